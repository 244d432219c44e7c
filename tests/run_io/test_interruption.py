"""After Ctrl-C: what is saved is counted from the folder, and the command that goes on is the one that was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwright.run_io import run_facts
from rollwright.run_io.checkpoint import Checkpoints
from rollwright.run_io.interruption import launcher_words, next_command, parent_words, what_is_saved
from rollwright.run_io.tracking import append_line


def test_what_is_saved_is_counted(tmp_path: Path) -> None:
    assert what_is_saved(tmp_path, stored=0, resumes=True) == ["0 whole steps done", "no checkpoint yet"]
    assert what_is_saved(tmp_path, stored=0, resumes=False) == []
    for step in range(3):
        append_line(tmp_path / "metrics.jsonl", {"step": step, "time/step_s": 1.0})
    append_line(tmp_path / "metrics.jsonl", {"step": 3, "eval/success_frac": 0.5})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(step, lambda folder: None, {})
    (tmp_path / "checkpoints" / "step_000003").mkdir()  # a kill while it was written
    assert what_is_saved(tmp_path, stored=1, resumes=True) == [
        "3 whole steps done",
        "a checkpoint after step 2",
        "1 episode stored",
    ]
    assert what_is_saved(tmp_path, stored=7, resumes=False) == ["7 episodes stored"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/v/bin/python", "/v/bin/accelerate", "launch", "recipes/grpo.py", "a b.yaml"], "accelerate launch"),
        (["python", "-m", "accelerate.commands.launch", "recipes/grpo.py"], "accelerate launch"),
        (["python", "-m", "rollwright.cli", "train", "grpo"], "rollwright train"),
        (["/v/bin/python3", "/v/bin/rollwright", "train", "grpo", "text/maze_grpo"], "rollwright train"),
        (["/v/bin/rollwright", "collect", "text/maze"], "rollwright collect"),
        (["/v/bin/python", "/v/bin/rollwright", "view", "runs/x"], ""),
        (["bash"], ""),
        (["accelerate"], ""),
        ([], ""),
    ],
)
def test_launchers_are_known_by_their_command(words: list[str], expected: str) -> None:
    assert " ".join(launcher_words(words)[:2]) == expected


def test_the_command_is_the_launchers_or_else_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = ["/v/bin/accelerate", "launch", "grpo.py", "a b.yaml", "tracker.api_key=hunter2"]
    assert next_command(launch) == "accelerate launch grpo.py 'a b.yaml' 'tracker.api_key=***'"
    monkeypatch.setattr("sys.argv", ["recipes/grpo.py", "changed"])
    monkeypatch.setattr(run_facts, "_words", ["grpo.py", "a b.yaml", "run.steps=3"])
    assert next_command(["bash"]) == "python recipes/grpo.py 'a b.yaml' run.steps=3"


def test_the_system_tells_who_started_us() -> None:
    assert parent_words()
