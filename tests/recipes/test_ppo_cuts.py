"""PPO's recipe on a real small model: what a cut episode ends in is the critic's value of the prompt that came next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rollwright.batching.credit import TokenBatch
from rollwright.batching.value_estimators import ValueAdvantage
from rollwright.config import build_part
from rollwright.learner.learner import Learner
from rollwright.learner.token_critic import TokenCritic
from rollwright.maths.advantages import ValueAdvantages
from rollwright.recipes import ppo
from rollwright.run_io.tracking import read_metrics

pytestmark = pytest.mark.usefixtures("at_root")

SMALL = [
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "world.options.maze=umaze",
    "run.steps=2",
    "run.transcripts_every=0",
    "rollout.schedule=rounds",
    "rollout.groups_per_step=3",
    "rollout.max_turns=3",
    "critic.learning_rate=1e-2",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=2",
]


class Watch:
    """What the recipe gave to its estimator in each step, with the critic's own answer at the same moment."""

    def __init__(self) -> None:
        self.batches: list[TokenBatch] = []
        self.ends: list[Tensor | None] = []
        self.wanted: list[Tensor] = []
        self.found: list[ValueAdvantages] = []
        self.critic: Any = None

    def values(self, learner: Learner, batch: TokenBatch) -> Tensor:
        self.critic = learner._critic.module  # type: ignore[union-attr]
        return READ(learner, batch)

    def build(self, section: Any, key: str) -> Any:
        """What the recipe builds; of its estimator every call is noted."""
        made = build_part(section, key)
        if key != "advantage":
            return made
        self.estimator: ValueAdvantage = made
        return self.advantages

    def advantages(self, batch: TokenBatch, values: Tensor, last_values: Tensor | None) -> ValueAdvantages:
        made = self.estimator(batch, values, last_values)
        self.batches.append(batch)
        self.ends.append(last_values)
        self.wanted.append(torch.tensor([value_behind(self.critic, t.next_prompt_ids) for t in batch.trajectories]))
        self.found.append(made)
        return made


READ = Learner.values


@torch.no_grad()
def value_behind(critic: TokenCritic, ids: tuple[int, ...]) -> float:
    """A plain forward pass over one prompt, read at its last token; 0 where nothing follows."""
    if not ids:
        return 0.0
    assert critic.body is not None
    return float(critic.head(critic.body(torch.tensor([ids])).last_hidden_state[0, -1]))


def watched(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> Watch:
    watch = Watch()
    monkeypatch.setattr(Learner, "values", lambda learner, batch: watch.values(learner, batch))
    monkeypatch.setattr(ppo, "build_part", watch.build)
    ppo.main(["recipes/text/maze_ppo.yaml", *SMALL, f"run.folder={folder}", *words])
    assert len(watch.batches) == 2
    return watch


@pytest.mark.parametrize("how", ["gae", "turn_gae"])
def test_a_cut_episode_is_trained_on_the_value_of_the_next_prompt(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("algorithm.bootstrap_truncated=true", f"algorithm.advantage={how}", "algorithm.gae_lambda=1")
    watch = watched(monkeypatch, tmp_path, *words)
    batch, ends, wanted = watch.batches[1], watch.ends[1], watch.wanted[1]
    cut = torch.tensor([t.stop_reason.is_truncation for t in batch.trajectories])
    assert cut.any() and ends is not None and (wanted[cut] != 0).all(), "after one step the critic has an opinion"
    torch.testing.assert_close(ends[cut], wanted[cut], atol=1e-5, rtol=1e-4)
    last = torch.zeros(len(cut))
    last[batch.sequence_index] = watch.found[1].returns  # of each episode's last token
    rewards = torch.zeros(len(cut))
    rewards[batch.trajectory_index] = batch.turn_rewards  # of its last turn
    torch.testing.assert_close(last[cut], (rewards + wanted)[cut], atol=1e-5, rtol=1e-4)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) >= 2


def test_a_limit_that_belongs_to_the_task_ends_in_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watch = watched(monkeypatch, tmp_path)
    assert watch.ends == [None, None]
