"""They learn from stored turns by their own recipes: DigiRL, WebRL and HNPG on the maze, ArCHer on a lock.

Maze: mean return of the sampling policy over the test starts; the optimum is -6.8, the policy that all begin with is
near -55 (`test_learning.py`). Whole runs with these settings bring DigiRL to between -8 and -10 and WebRL, whose
outcome is to arrive at all and which stays near its start, to -17. The tests take a part of the steps and ask for a
part of the way. ArCHer's whole runs on the maze (-7 to -10) take minutes and stand in
`benchmarks/results/learning_maze.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rollwright.evaluation import load_evaluation
from rollwright.recipes import archer, collect, grpo, sft

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("method", "steps", "least"), [("digirl", 12, -25), ("webrl", 6, -35)])
def test_it_finds_the_way(
    run_recipe: Callable[..., None], maze_walker: Path, tmp_path: Path, method: str, steps: int, least: float
) -> None:
    words = [f"run.folder={tmp_path}", f"model.path={maze_walker}", "evaluation.every=5", f"run.steps={steps}"]
    run_recipe(f"{method}.py", f"text/maze_{method}.yaml", *words)
    assert max(mean_return(path) for path in (tmp_path / "eval").glob("*.json")) >= least


@pytest.mark.usefixtures("at_root")
def test_archer_opens_a_lock_with_fewer_episodes_than_grpo(tmp_path: Path) -> None:
    """Eight dials, one reward at the end, a start that opens it once in sixty tries; 768 episodes for either."""
    eight = ["world.options.lengths=[8]", "world.options.wording=compact"]
    data, start = tmp_path / "data", tmp_path / "start"
    collect.main(["recipes/text/lock_collect.yaml", *eight, f"run.folder={data}"])
    stored = f"data.stores=[{data / 'trajectories'}]"
    sft.main(["recipes/text/lock_sft.yaml", *eight, stored, f"run.folder={start}"])
    begin = [*eight, f"model.path={start / 'policy'}"]
    whole = ["starts=initial", *(f"~starts.{key}" for key in ("source", "episodes", "pick"))]
    runs = {
        "archer": (archer, ["run.steps=24", "evaluation.every=4"]),
        "grpo": (grpo, ["run.steps=12", "evaluation.every=2", *whole]),
    }
    opened = {}
    for name, (recipe, words) in runs.items():
        recipe.main([f"recipes/text/lock_{name}.yaml", *begin, *words, f"run.folder={tmp_path / name}"])
        # The best of the evaluations: a run may lose for a while what it knew.
        opened[name] = max(success(path) for path in (tmp_path / name / "eval").glob("*.json"))
    assert opened["archer"] > 0.6 > opened["grpo"], opened  # in fifteen seeds ArCHer came to 0.94 or more


def test_hnpg_finds_the_way_with_logged_walks_beside_its_own(
    run_recipe: Callable[..., None], maze_walker: Path, tmp_path: Path
) -> None:
    run_recipe("collect.py", "text/maze_collect.yaml", f"run.folder={tmp_path / 'data'}", f"model.path={maze_walker}")
    words = [f"run.folder={tmp_path}", f"model.path={maze_walker}", f"replay.stores=[{tmp_path / 'data/trajectories'}]"]
    run_recipe("hnpg.py", "text/maze_hnpg.yaml", *words, "run.steps=10")
    assert mean_return(tmp_path / "eval" / "final.json") >= -38  # -23 was seen, and -14 after 20 steps


def mean_return(path: Path) -> float:
    rows = load_evaluation(path).rows
    return sum(row.total_return for row in rows) / len(rows)


def success(path: Path) -> float:
    rows = load_evaluation(path).rows
    return sum(bool(row.success) for row in rows) / len(rows)
