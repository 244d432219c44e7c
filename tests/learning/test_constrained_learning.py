"""A limit on cost in the maze with a hazard: with it the policy learns to walk around, without it the way through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from rollwright.contracts.errors import ConfigError
from rollwright.recipes import constrained
from rollwright.run_io.tracking import read_metrics

pytestmark = pytest.mark.slow
Run = Callable[..., None]
SIZE = ["rollout.groups_per_step=4", "evaluation.seeds_per_task=2", "run.seed=3"]


@pytest.fixture(scope="module")
def walker(run_recipe: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that takes the short way in half of its moves."""
    folder = tmp_path_factory.mktemp("hazard")
    run_recipe("sft.py", "text/hazard_sft.yaml", f"run.folder={folder}", "data.per_task=12", "sft.epochs=2")
    return folder / "policy"


def late(run: Path, name: str) -> float:
    """Mean over the last eight steps."""
    return fmean([row[name] for row in read_metrics(run / "metrics.jsonl") if name in row][-8:])


@pytest.mark.parametrize("settings", ["hazard_constrained", "hazard_critics_constrained"])
def test_a_limit_turns_the_policy_from_the_hazard_and_the_goal_is_still_reached(
    settings: str, run_recipe: Run, walker: Path, tmp_path: Path
) -> None:
    words = [f"model.path={walker}", *SIZE, "run.steps=36"]
    run_recipe("constrained.py", f"text/{settings}.yaml", *words, f"run.folder={tmp_path / 'held'}")
    free = ["constraint.initial=0", "constraint.limit=1000"]
    run_recipe("constrained.py", f"text/{settings}.yaml", *words, *free, f"run.folder={tmp_path / 'free'}")
    held, free_cost = (late(tmp_path / name, "constraint/cost_mean") for name in ("held", "free"))
    print(f"{settings}: cost {held:.3f} with the limit, {free_cost:.3f} without")
    # Within this budget the cost comes down towards the limit of 0.1; it is still falling where the run ends.
    assert held < 0.28 < free_cost
    assert late(tmp_path / "held", "rollout/success_frac") > 0.95
    assert late(tmp_path / "free", "constraint/multiplier") == 0.0


def test_a_cost_that_the_world_does_not_count_ends_the_run_at_the_first_step(walker: Path, tmp_path: Path) -> None:
    words = ["recipes/text/hazard_constrained.yaml", f"model.path={walker}", *SIZE, f"run.folder={tmp_path}"]
    with pytest.raises(ConfigError, match="no turn of 32 episodes has that cost; they have hazard"):
        constrained.main([*words, "constraint.cost=fire"])
