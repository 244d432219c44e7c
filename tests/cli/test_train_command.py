"""`rollwright train` and its like: names become files, the launcher's line is shown, the exit code is the recipe's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.cli.launching import recipe_launch, train_command
from rollwright.cli.launching.recipe_names import launch_names, recipe_names, recipe_path, settings_word, yaml_names

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "recipes" / "grpo.py"


def test_names_stand_for_the_files_that_ship() -> None:
    assert {"grpo", "sft", "demo"} <= set(recipe_names()) and "__init__" not in recipe_names()
    assert {"text/maze_grpo", "web/miniwob_sft"} <= set(yaml_names())
    assert {"cpu", "zero3"} <= set(launch_names())
    assert recipe_path("grpo").samefile(SCRIPT) and recipe_path("recipes/grpo.py").samefile(SCRIPT)


@pytest.mark.parametrize("word", ["text/maze_grpo", "text/maze_grpo.yaml", "recipes/text/maze_grpo.yaml"])
def test_a_shipped_yaml_is_found_from_any_folder(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(settings_word(word)).samefile(ROOT / "recipes" / "text" / "maze_grpo.yaml")


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").mkdir()
    Path("text/maze_grpo.yaml").write_text("run: {}")
    assert settings_word("text/maze_grpo") == "text/maze_grpo.yaml"
    assert [settings_word(word) for word in ("run.steps=3", "~engine", "text")] == ["run.steps=3", "~engine", "text"]
    Path("mine.py").write_text("")
    assert recipe_path("./mine.py") == Path("mine.py")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a recipe: agent_r, archer, "),
        (["gpro"], "there is no recipe `gpro`. Did you mean `grpo`?"),
        (["./none.py"], "there is no recipe `./none.py`."),
        (["text/maze_grpo"], "the recipe comes first: rollwright train grpo text/maze_grpo."),
        (["grpo", "text/maze_gpro"], "Did you mean `text/maze_grpo`?"),
        (["grpo", "maze_grpo"], "Did you mean `text/maze_grpo`?"),
        (["grpo", "my_wrld"], "Did you mean `my_world.yaml`?"),
        (["grpo", "run.steps", "3"], "Keys are set without dashes"),
        (
            ["grpo", "text/maze", "--config-file", "cpuu"],
            "no such file. Did you mean `cpu`?",
        ),
        (["grpo", "text/maze", "--config-file", "./cpu.yaml"], "--config-file ./cpu.yaml: there is no such file."),
    ],
)
def test_a_wrong_name_is_one_paragraph(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_world.yaml").write_text("")
    assert cli.main(["train", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of every launch that a command asks for; none is made."""
    found: list[list[str]] = []

    def note(words: list[str], *, verbose: bool = False) -> int:
        found.append(list(words))
        return 0

    monkeypatch.setattr(train_command, "launch_recipe", note)
    monkeypatch.setattr(train_command, "run_alone", lambda script, words: found.append([str(script), *words]) or 0)
    monkeypatch.setattr("rollwright.config.has_gpu", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.chdir(ROOT)
    return found


def short(words: list[str]) -> list[str]:
    return [str(Path(word).relative_to(ROOT)) if word.startswith(str(ROOT)) else word for word in words]


def test_the_launcher_gets_what_the_printed_line_says(
    launched: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "grpo", "text/maze_grpo", "run.steps=3", "--check", "-v", "--processes", "2", "~engine.dtype"]
    assert cli.main(words) == 0
    line = ["--config_file", "accelerate_configs/cpu_zero1.yaml", "--num_processes", "2", "recipes/grpo.py"]
    line += ["recipes/text/maze_grpo.yaml", "run.steps=3", "~engine.dtype", "--check", "-v"]
    assert short(launched[0]) == line
    shown = capsys.readouterr().err.strip()
    assert shown == "accelerate launch " + " ".join(line).replace("~engine.dtype", "'~engine.dtype'")
    assert os.environ["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 2))


def test_evaluate_and_collect_name_their_recipe(launched: list[list[str]]) -> None:
    cli.main(["evaluate", "web/miniwob_eval", "model.path=x", "--config-file", "single_gpu"])
    cli.main(["collect", "text/maze_collect"])
    assert [short(words)[2] for words in launched] == ["recipes/evaluate.py", "recipes/collect.py"]
    assert short(launched[0])[:2] == ["--config_file", "accelerate_configs/single_gpu.yaml"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["plan", "ppo", "text/maze_ppo"], ["recipes/ppo.py", "recipes/text/maze_ppo.yaml", "--plan"]),
        (["train", "ppo", "--plan"], ["recipes/ppo.py", "--plan"]),
        (["train", "sft", "--help"], ["recipes/sft.py", "--help"]),
        (["evaluate", "text/maze", "--help"], ["recipes/evaluate.py", "recipes/text/maze.yaml", "--help"]),
    ],
)
def test_what_loads_no_weights_needs_no_launcher(
    words: list[str], expected: list[str], launched: list[list[str]]
) -> None:
    assert cli.main(words) == 0
    assert short(launched[0]) == expected


def test_help_without_a_recipe_is_about_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help"]) == 0 and cli.main(["evaluate", "-h"]) == 0
    shown = capsys.readouterr().out
    assert "usage: rollwright train" in shown and "usage: rollwright evaluate" in shown


def test_a_secret_is_not_shown_in_the_line(launched: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "sft", "text/maze_sft", "reward.options.api_key=sk-verysecretverysecret1234"])
    assert "verysecret" not in capsys.readouterr().err


CPU = str(ROOT / "accelerate_configs" / "cpu.yaml")


@pytest.mark.long
@pytest.mark.parametrize(
    ("body", "code"), [("raise SystemExit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137), ("", 0)]
)
def test_the_launcher_hands_on_the_exit_code(
    body: str, code: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "recipe.py"
    script.write_text(body)
    assert recipe_launch.launch_recipe(["--config_file", CPU, str(script)]) == code
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_two_ranks_that_fail_alike_end_with_their_code(tmp_path: Path) -> None:
    """The real recipe under DeepSpeed's launcher: one paragraph, code 2."""
    command = [sys.executable, "-m", "rollwright.cli", "train", "grpo", "text/maze_grpo", "run.setps=3"]
    done = subprocess.run([*command, "--processes", "2"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("unknown key `run.setps`") == 1
    assert "Traceback" not in done.stderr and "ChildFailedError" not in done.stderr
    assert list(tmp_path.iterdir()) == []


WAITS = """import time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    print("saved", flush=True)
    raise SystemExit(130)
"""


@pytest.mark.long
def test_ctrl_c_waits_until_the_recipe_has_saved(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    command = [sys.executable, "-m", "rollwright.cli", "train", "./waits.py", "--config-file", "cpu"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all processes at once
    assert child.stdout.read() == "saved\n" and child.wait() == 130


@pytest.mark.long
def test_sigterm_reaches_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS.replace("import time", "import os, time\nprint(os.getpid())", 1))
    command = [sys.executable, "-m", "rollwright.cli", "train", "./waits.py", "--config-file", "cpu"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    recipe = int(child.stdout.readline())
    assert child.stdout.readline() == "started\n"
    child.terminate()
    assert child.wait() == 143
    until = time.monotonic() + 20
    while Path(f"/proc/{recipe}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{recipe}").exists()
