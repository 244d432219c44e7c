"""docs/command_line.md: a section for every command, and examples that the commands understand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.cli.launching.recipe_names import recipe_path, settings_word

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
LINES = re.findall(r"^rollwright (.*)$", PAGE, re.MULTILINE)


def test_every_command_has_a_section_with_an_example() -> None:
    assert set(SECTIONS) == set(cli.COMMANDS)
    assert not [name for name, text in SECTIONS.items() if f"rollwright {name}" not in text.partition("```sh")[2]]


@pytest.mark.parametrize("line", LINES)
def test_every_example_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_settings.yaml").write_text("")
    name, *words = shlex.split(line)
    found = cli.parser_of(name).parse_args([word for word in words if word != "--help"])
    if name in ("train", "plan"):
        assert recipe_path(found.recipe).is_file()
    for word in getattr(found, "words", ()):
        assert "=" in word or Path(settings_word(word)).is_file()


def test_the_overview_names_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if len(re.findall(rf"^  {name} ", shown, re.MULTILINE)) != 1] == []
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.slow
def test_the_lines_of_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand, with fewer episodes and steps."""
    monkeypatch.chdir(tmp_path)
    code = PAGE.partition("```python\n")[2].partition("```")[0]
    small = {
        '"text/maze_sft", ': '"text/maze_sft", "data.per_task=1", "sft.epochs=1", ',
        '"run.steps": 20': '"run.steps": 1, "rollout.max_turns": 8, "evaluation.seeds_per_task": 1',
    }
    for long, short in small.items():
        assert long in code
        code = code.replace(long, short)
    exec(compile(code, "command_line.md", "exec"), {})
    verdict, success, action, report = capsys.readouterr().out.splitlines()[-4:]
    assert "start" in verdict and "bound method" not in verdict
    assert 0 <= float(success) <= 1 and action and report == str(Path("runs/grpo/report.html"))
    assert Path("runs/grpo/report.html").is_file()
