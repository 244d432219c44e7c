"""A run keeps the policy with the best validation score beside its last one, and chooses nothing by the test split."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rollwright.contracts import Group, Score
from rollwright.evaluation import Evaluation, best_checkpoint
from rollwright.recipes import grpo
from rollwright.training import loop

SMALL = [
    *("world.name=text.bandit", "model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"),
    *("engine=transformers", "engine.dtype=float32", "learner.precision=float32", "run.steps=4"),
    *("rollout.max_action_tokens=2", "rollout.history=0", "rollout.groups_per_step=2", "rollout.group_size=2"),
    *("evaluation.seeds_per_task=4", "evaluation.every=1", "evaluation.at_start=true", "run.keep_checkpoints=1"),
]
SOLVED = {"start": 0, "step_00001": 1, "step_00002": 3, "step_00003": 2, "final": 1}


class PaysByToken:
    """A reward that tells siblings apart whatever an untrained policy says, so that every step moves the weights."""

    name = "by_token"

    def score(self, group: Group) -> list[Score]:
        """By the sampled ids alone."""
        ids = [turn.action_ids for trajectory in group.trajectories for turn in trajectory.turns[:1]]
        return [Score(value=float(sum(found) % 7), verifier=self.name) for found in ids]


def play(folder: Path, split: str) -> None:
    """A real run whose held-out episodes are judged as `SOLVED` says."""
    real = loop.evaluate_policy

    def judged(*args: Any, name: str, **more: Any) -> tuple[Evaluation, list[Any]]:
        found, played = real(*args, name=name, **more)
        rows = tuple(replace(row, success=n % 4 < SOLVED[name]) for n, row in enumerate(found.rows))
        return replace(found, rows=rows), played

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate_policy", judged)
        patch.setitem(sys.modules, "best_policy_rewards", sys.modules[__name__])
        grpo.main(
            [*SMALL, "reward.name=best_policy_rewards:PaysByToken", f"run.folder={folder}", f"evaluation.split={split}"]
        )


@pytest.fixture(scope="module")
def finished(at_root: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best") / "run"
    play(folder, "validation")
    return folder


def test_the_best_policy_is_kept_with_the_weights_it_had_then(finished: Path) -> None:
    found = best_checkpoint(finished)
    assert (found.evaluation, found.version, found.num_candidates) == ("step_00002", 2, 5)
    assert found.folder == finished / "best" and found.score.point == 0.75
    assert (finished / "best" / "evaluation.txt").read_text() == "step_00002\n"
    best, last = (load_file(finished / name / "model.safetensors") for name in ("best", "policy"))
    assert best.keys() == last.keys() and any(not best[name].equal(last[name]) for name in best)
    assert (finished / "best" / "tokenizer_config.json").exists()


def test_judgements_on_the_test_split_choose_nothing(at_root: None, tmp_path: Path) -> None:
    play(tmp_path / "run", "test")
    assert not (tmp_path / "run" / "best").exists()
