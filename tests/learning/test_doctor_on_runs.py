"""The doctor on real runs finds a learning rate that is wrong; it finds nothing in the run of `test_learning.py`."""

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
        (["learner.learning_rate=1e-12"], "learning-rate-too-low"),
        (["learner.learning_rate=0.05"], "kl-runaway"),
    ],
)
def test_a_run_of_the_maze(
    run_recipe: Callable[..., None], maze_walker: Path, tmp_path: Path, words: list[str], rule: str
) -> None:
    run_recipe("grpo.py", "text/maze_grpo.yaml", f"run.folder={tmp_path}", f"model.path={maze_walker}", *FEW, *words)
    assert rule in [finding.rule for finding in diagnose(tmp_path)]
