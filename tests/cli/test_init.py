"""`rollwright init`: what it writes works as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.evaluation import load_evaluation

FILES = ["README.md", "grpo.yaml", "heating.py", "heating_reward.py", "sft.yaml", "test_heating.py", "world.yaml"]


def rollwright(*words: str, folder: Path) -> str:
    """Run the command in a folder, as a user would; -> what it printed."""
    command = [sys.executable, "-m", "rollwright.cli", *words]
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}  # as the installed script: the folder itself is not on the path
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=safe)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `rollwright init` has written."""
    folder = tmp_path_factory.mktemp("init") / "work"
    assert cli.main(["init", str(folder), "--name", "heating"]) == 0
    return folder


def test_it_writes_every_file_under_the_chosen_name(made: Path) -> None:
    assert sorted(file.name for file in made.iterdir() if file.is_file()) == FILES
    texts = [(made / name).read_text(encoding="utf-8") for name in FILES]
    assert not [text for text in texts if "my_world" in text]
    assert "name: heating:build" in (made / "world.yaml").read_text()


def test_its_own_tests_pass(made: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(made), str(made)]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True)
    assert "5 passed" in done.stdout, done.stdout[-3000:]


def test_it_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["init", str(tmp_path / "new")])
    shown = capsys.readouterr().out
    for line in ("cd ", "pytest", "rollwright audit my_world:build", "rollwright train grpo grpo.yaml"):
        assert f"\n  {line}" in shown
    readme = (tmp_path / "new" / "README.md").read_text()
    commands = [line.strip() for line in shown.splitlines() if line.startswith("  ") and "cd " not in line]
    assert all(command in readme for command in commands)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["there"], "world.yaml: already there, and nothing is overwritten"),
        (["new", "--name", "My World"], "--name 'My World' cannot name a Python module"),
        (["new", "--name", "class"], "--name 'class' cannot name a Python module"),
        (["new", "--name", "random"], "--name random: a module of that name is installed already"),
        (["file/below"], "file/below cannot be written"),
    ],
)
def test_what_cannot_be_is_one_paragraph_and_writes_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/world.yaml").write_text("mine")
    Path("file").write_text("")
    assert cli.main(["init", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("new").exists() and [file.name for file in Path("there").iterdir()] == ["world.yaml"]


def test_check_env_finds_the_world_in_the_folder(made: Path) -> None:
    assert "keeps the environment contract" in rollwright("check-env", "heating:build", "--seeds", "1", folder=made)


def test_a_module_in_the_folder_is_found_last(tmp_path: Path) -> None:
    """A file there cannot stand in for a module that is installed."""
    (tmp_path / "own_world.py").write_text("import tomllib\n\ndef build():\n    return tomllib.__file__\n")
    (tmp_path / "tomllib.py").write_text("raise ImportError('the wrong one')")
    code = "from rollwright.config import load; print(load('envs', 'own_world:build')())"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path) not in done.stdout and "tomllib" in done.stdout


@pytest.mark.slow
def test_the_world_is_fit_and_the_policy_learns(made: Path) -> None:
    """The commands that `init` prints, as they are: success rises on tasks that training does not show."""
    assert "\nFIT: " in rollwright("audit", "heating:build", "--quick", folder=made)
    rollwright("train", "sft", "sft.yaml", folder=made)
    rollwright("train", "grpo", "grpo.yaml", folder=made)
    found = [load_evaluation(made / "runs" / "grpo" / "eval" / f"{name}.json") for name in ("start", "final")]
    first, last = (sum(bool(row.success) for row in one.rows) / len(one.rows) for one in found)
    assert found[0].split == "test" and last > first + 0.1
    shown = rollwright("compare", "runs/grpo/eval/start.json", "runs/grpo/eval/final.json", folder=made)
    assert "final is better than start" in shown
