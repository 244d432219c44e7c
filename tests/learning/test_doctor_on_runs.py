"""The doctor on real runs: a shipped recipe that learns is healthy, and a learning rate that is wrong is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rollwright.view import diagnose

pytestmark = pytest.mark.slow
FEW = ["run.steps=6", "evaluation.seeds_per_task=1", "evaluation.max_turns=5", "run.transcripts_every=0"]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ([], None),
        (["learner.learning_rate=1e-12", *FEW], "learning-rate-too-low"),
        (["learner.learning_rate=0.05", *FEW], "kl-runaway"),
    ],
)
def test_a_run_of_the_maze(
    launch: Callable[..., None], maze_walker: Path, tmp_path: Path, words: list[str], rule: str | None
) -> None:
    launch("grpo.py", "text/maze_grpo.yaml", f"run.folder={tmp_path}", f"model.path={maze_walker}", *words)
    found = [finding.rule for finding in diagnose(tmp_path)]
    assert rule in found if rule else found == []
