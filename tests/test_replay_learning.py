"""They learn from stored turns: DigiRL, WebRL, ArCHer and HNPG by their own recipes, judged on the maze.

Mean return of the sampling policy over the test starts: the optimum is -6.8, the policy that all begin with is near -55
(`test_learning.py`). Whole runs with these settings bring DigiRL to between -8 and -10, ArCHer to between -7 and -10
and WebRL, whose outcome is to arrive at all and which stays near its start, to -17. The tests take a part of the steps
and ask for a part of the way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rollwright.evaluation import load_evaluation

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("method", "steps", "least"), [("digirl", 12, -25), ("webrl", 6, -35), ("archer", 16, -32)])
def test_it_finds_the_way(
    launch: Callable[..., None], maze_walker: Path, tmp_path: Path, method: str, steps: int, least: float
) -> None:
    words = [f"run.folder={tmp_path}", f"model.path={maze_walker}", "evaluation.every=5", f"run.steps={steps}"]
    launch(f"{method}.py", f"text/maze_{method}.yaml", *words)
    # The best of the evaluations: ArCHer can lose its moves for a few steps until the critic has seen what they cost.
    assert max(mean_return(path) for path in (tmp_path / "eval").glob("*.json")) >= least


def test_hnpg_finds_the_way_with_logged_walks_beside_its_own(
    launch: Callable[..., None], maze_walker: Path, tmp_path: Path
) -> None:
    launch("collect.py", "text/maze_collect.yaml", f"run.folder={tmp_path / 'data'}", f"model.path={maze_walker}")
    words = [f"run.folder={tmp_path}", f"model.path={maze_walker}", f"replay.stores=[{tmp_path / 'data/trajectories'}]"]
    launch("hnpg.py", "text/maze_hnpg.yaml", *words, "run.steps=10")
    assert mean_return(tmp_path / "eval" / "final.json") >= -38  # -23 was seen, and -14 after 20 steps


def mean_return(path: Path) -> float:
    rows = load_evaluation(path).rows
    return sum(row.total_return for row in rows) / len(rows)
