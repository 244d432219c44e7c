"""A step whose groups all lost their score teaches nothing; the run says so and goes on, whatever it trains."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rollwright.contracts.record import Group, Score

TINY = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "world.options.maze=umaze"]
RUN = ["engine=transformers", "engine.dtype=float32", "learner.precision=float32", "run.steps=2"]
RUN += ["rollout.groups_per_step=2", "rollout.max_turns=2", "evaluation.max_turns=2", "evaluation.seeds_per_task=1"]
RUN += ["evaluation.at_start=false", "run.transcripts_every=0", "run.parity_checks=1"]
SIBLINGS = "rollout.group_size=2"
WITHOUT_SIBLINGS = ["~algorithm.drop_equal_groups", "~algorithm.preset"]
FAILS = {1, 2, 5}  # both groups of the first step, and one greedy episode of the second


class FailsFirst:
    """Fails where `FAILS` says so; later groups earn more, so that there is a lesson."""

    name = "fails_first"
    verifies = True

    def __init__(self) -> None:
        self.asked = 0

    def score(self, group: Group) -> list[Score]:
        self.asked += 1
        if self.asked in FAILS:
            raise RuntimeError("the judge is away")
        return [
            Score(value=float(i + self.asked), verifier=self.name, parts={"judge": float(i + self.asked)})
            for i, _ in enumerate(group.trajectories)
        ]


@pytest.fixture
def reward(monkeypatch: pytest.MonkeyPatch) -> str:
    module: Any = ModuleType("reward_that_fails_first")
    module.build = FailsFirst
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return f"reward.name={module.__name__}:build"


RECIPES = {
    "grpo": ("grpo.py", "text/maze_grpo.yaml", [SIBLINGS]),
    "reinforce++": ("grpo.py", "text/maze_grpo.yaml", [SIBLINGS, *WITHOUT_SIBLINGS, "algorithm.advantage=reinforce++"]),
    "remax": ("grpo.py", "text/maze_grpo.yaml", [SIBLINGS, *WITHOUT_SIBLINGS, "algorithm.advantage=remax"]),
    "ppo": ("ppo.py", "text/maze_ppo.yaml", []),
    "hnpg": (
        "hnpg.py",
        "text/maze_hnpg.yaml",
        ["replay.stores=[]", "algorithm.offline_weight=0", "algorithm.logged_states=0", "critic.updates=1"],
    ),
    "archer": (
        "archer.py",
        "text/maze_archer.yaml",
        ["algorithm.warmup_steps=0", "algorithm.actor_updates=1", "algorithm.batch_size=4", "critic.updates=1"],
    ),
    "digirl": ("digirl.py", "text/maze_digirl.yaml", ["algorithm.actor_updates=1", "algorithm.batch_size=4"]),
    "webrl": ("webrl.py", "text/maze_webrl.yaml", ["algorithm.batch_size=4"]),
    "filtered_bc": ("filtered_bc.py", "text/maze_filtered.yaml", ["algorithm.updates=1", "algorithm.batch_size=4"]),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_without_a_scored_group_is_told_and_passed_over(
    name: str, run_recipe: Callable[..., None], reward: str, tmp_path: Path
) -> None:
    recipe, settings, words = RECIPES[name]
    run_recipe(recipe, settings, *TINY, *RUN, *words, reward, "rollout.max_fault_frac=1", f"run.folder={tmp_path}")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    taught = {row["step"]: row["optim/taught_count"] for row in rows if "optim/taught_count" in row}
    assert taught[0] == 0 and set(taught) == {0, 1}
    assert taught[1] == 1 or name == "digirl", "whose second filter may leave out every step of two short episodes"
    faults = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [fault["kind"] for fault in faults] == ["reward"] * (3 if name == "remax" else 2)
