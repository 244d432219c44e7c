"""What a hurried user types, and folders that are odd: one paragraph, exit code 2, nothing half made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.view.doctor.run_evidence import read_evidence


def metrics(folder: Path, *values: float) -> Path:
    folder.mkdir()
    rows = [{"step": step, "reward/total_mean": value, "time/step_s": value} for step, value in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_value_may_begin_with_a_minus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("low", 1.0), ("high", 2.0)):
        metrics(tmp_path / name, value)
    assert cli.main(["runs", str(tmp_path), "--sort", "-reward", "--columns", "name"]) == 0
    assert capsys.readouterr().out.split() == ["name", "high", "low"]
    with pytest.raises(SystemExit):
        cli.main(["runs", str(tmp_path), "--sort", "--columns", "name"])


def test_a_plot_is_an_svg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics(tmp_path / "one", 1.0)
    target = tmp_path / "x.png"
    assert cli.main(["runs", str(tmp_path), "--plot", str(target), "--metric", "reward/total_mean"]) == 2
    assert "ends in .svg" in capsys.readouterr().err and not target.exists()


@pytest.mark.parametrize("name", ["__main__", "a" * 300])
def test_init_takes_back_what_it_began(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(tmp_path / "new" / "folder"), "--name", name]) == 2
    assert capsys.readouterr().err.startswith("rollwright: ") and not list(tmp_path.iterdir())


def test_numbers_at_the_end_of_the_range_are_in_no_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = metrics(tmp_path / "run", *[1e308] * 40)
    assert not read_evidence(folder).series("reward/total_mean")
    assert cli.main(["report", str(folder)]) == 0
    assert cli.main(["runs", str(folder), "--group-by", "name"]) == 0
    assert "1e+308" not in capsys.readouterr().out


WORLD = """
import sys
from rollwright.contracts import StepResult, Task


class World:
    name = instructions = "own"
    execution, snapshots, max_turns = "inline", "none", 1

    def tasks(self, split):
        {tasks}

    def make(self):
        raise OSError("no machine")

    def close(self):
        pass


def build():
    {build}
"""
GOOD = {"tasks": "return [Task(id='a', split=split)]", "build": "return World()"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("raises", {"build": "raise RuntimeError('boom\\nmore')"}, "cannot be built: RuntimeError: boom more."),
        ("leaves", {"build": "sys.exit(4)"}, "cannot be built: SystemExit: 4."),
        ("no_world", {"build": "return 5"}, "it lacks name, instructions, execution, snapshots, max_turns"),
        ("no_tasks", {"tasks": "raise ValueError('none')"}, "cannot be audited: ValueError: none was raised outside"),
        ("odd_tasks", {"tasks": "return 5"}, "cannot be audited: TypeError: "),
    ],
)
def test_a_world_that_fails_is_one_paragraph(
    name: str,
    change: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"own_{name}.py").write_text(WORLD.format(**(GOOD | change)))
    assert cli.main(["audit", f"own_{name}:build", "--quick"]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and said.count("\n") == 1


def test_a_module_that_leaves_at_import_is_one_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_script.py").write_text("import sys\nsys.exit(7)\n")
    assert cli.main(["audit", "own_script:build"]) == 2
    assert "cannot be imported: SystemExit: 7" in capsys.readouterr().err
