"""Ctrl-C on real runs: what it says is true, and the command that it prints goes on. And starts that are refused."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rollwright.recipes import grpo
from rollwright.run_io.tracking import read_metrics
from rollwright.store import TrajectoryStore
from rollwright.training.recipe_entry import run_recipe

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
WORDS = [
    *("world.name=text.bandit", "world.options={words: [up, down], pays: up}", "model.path=tiny", "rollout.history=0"),
    *("engine={name: transformers, dtype: float32}", "rollout={group_size: 2, groups_per_step: 2}"),
    *("rollout.max_action_tokens=2", "learner.precision=float32", "evaluation.seeds_per_task=1"),
    *("run.steps=100000", "run.checkpoint_every=2"),
]


def interrupted(command: Sequence[str], place: Path) -> tuple[str, int]:
    """Start a run, press Ctrl-C as a terminal does when it has said its fifth step; -> its errors and its code."""
    with (place / "err.txt").open("w+") as err:
        run = subprocess.Popen(
            command, cwd=place, stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True, env=own_env()
        )
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("step 5 of"):
                os.killpg(run.pid, signal.SIGINT)  # the whole group, the launcher too
        code = run.wait(timeout=120)
        err.seek(0)
        return err.read(), code


def own_env() -> dict[str, str]:
    """Ours, without what would change how much is said."""
    return {**os.environ, "ROLLWRIGHT_DEBUG": "", "OMP_NUM_THREADS": "1"}


def going_on(message: str) -> list[str]:
    """The words of the command that the message prints last."""
    lines = message.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("This command goes on from there:"))
    return shlex.split(lines[place + 1])


@pytest.mark.slow
@pytest.mark.parametrize("launched", [False, True], ids=["python", "accelerate"])
def test_ctrl_c_says_what_is_saved_and_the_command_that_goes_on(launched: bool, tmp_path: Path) -> None:
    recipe = [str(ROOT / "recipes" / "grpo.py"), *WORDS, "run.folder=run"]
    start = [*LAUNCH, str(ROOT / "accelerate_configs" / "cpu.yaml")] if launched else [sys.executable]
    message, code = interrupted([*start, *recipe], tmp_path)
    assert launched or (code == 130 and "Traceback" not in message)
    whole = len([row for row in read_metrics(tmp_path / "run/metrics.jsonl") if "time/step_s" in row])
    stored = len(TrajectoryStore(tmp_path / "run/trajectories", mode="read"))
    saved = max(int(path.name[5:]) for path in (tmp_path / "run/checkpoints").glob("step_*"))
    assert f"{whole} whole steps done, a checkpoint after step {saved}, {stored} episodes stored." in message
    assert whole >= 5 and saved >= 4 and stored >= 4 * whole

    command = going_on(message)
    assert command[0] == ("accelerate" if launched else "python")
    typed = [sys.executable if command[0] == "python" else str(Path(sys.executable).with_name("accelerate"))]
    again = subprocess.run(
        [*typed, *command[1:], f"run.steps={whole + 1}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env=own_env(),
    )
    assert again.returncode == 0, again.stderr
    assert f"resumed after step {saved}" in again.stdout
    assert f"finished: step {whole + 1} of {whole + 1}" in again.stdout


@pytest.mark.long
def test_a_refused_start_leaves_another_runs_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoint belongs to other settings: those must still be in config.yaml for the run to go on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLLWRIGHT_DEBUG", "")
    grpo.main([*WORDS, "run.folder=run", "run.steps=1", "evaluation.max_turns=1"])
    capsys.readouterr()
    settings = (tmp_path / "run/config.yaml").read_bytes()
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    monkeypatch.setattr(sys, "argv", ["grpo.py", *WORDS, "run.folder=run", "run.steps=1", "run.seed=7"])
    with pytest.raises(SystemExit) as stop:
        run_recipe(grpo.main)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "holds a run with other settings: run.seed" in said
    assert (tmp_path / "run/config.yaml").read_bytes() == settings
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == files
