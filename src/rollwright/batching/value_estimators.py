"""Advantage estimators that stand on a critic's values, and how the configuration names one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rollwright.batching.token_batch import TokenBatch
from rollwright.config import Parts
from rollwright.maths import advantages as adv
from rollwright.maths import require_length

_HERE = "rollwright.batching.value_estimators"
VALUE_ADVANTAGES = Parts(
    what="advantage estimator",
    options="advantage_options",
    trial="rollwright.batching.estimator_trials:try_value_advantage",
    ours={
        "gae": f"{_HERE}:Gae",
        "turn_gae": f"{_HERE}:TurnGae",
        "bilevel_v1": f"{_HERE}:BilevelV1",
        "bilevel_v2": f"{_HERE}:BilevelV2",
    },
)
"""Of `recipes/ppo.py`: [N] advantages and critic targets from a flat batch and the critic's values."""


class ValueAdvantage(Protocol):
    """Advantages and critic targets of every action token.

    `last_values` is [S], the critic's value of the state after each trajectory (see `states_after_cuts`). It counts
    where a limit cut the trajectory; those that the task itself ended count as 0 whatever it holds (see `ends_of`).
    None: nothing follows any of them, as where the limit is part of the task.
    """

    def __call__(self, batch: TokenBatch, values: Tensor, last_values: Tensor | None = None) -> adv.ValueAdvantages:
        """-> [N] each, not whitened. values: [N] float, read one position before each token."""
        ...


def ends_of(batch: TokenBatch, last_values: Tensor | None) -> Tensor | None:
    """[S] the values where a limit cut the trajectory, 0 where the task ended it; None where none are given.

    Raises:
        ValueError: not one value per trajectory.
    """
    if last_values is None:
        return None
    require_length("last_values", last_values, len(batch.trajectories), per="trajectory")
    # Faults are left out before a batch is made, so what no limit cut was ended by its task.
    cut = torch.tensor([t.stop_reason.is_truncation for t in batch.trajectories])
    return adv.bootstrap_values(last_values, terminated=~cut, truncated=cut)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gae:
    """GAE over action tokens. gamma: discount per token. Source: arXiv:1506.02438."""

    gamma: float = 1.0
    gae_lambda: float = 0.95

    def __call__(self, batch: TokenBatch, values: Tensor, last_values: Tensor | None = None) -> adv.ValueAdvantages:
        return adv.gae(
            batch.rewards,
            values,
            batch.sequence_index,
            num_sequences=len(batch.trajectories),
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            last_values=ends_of(batch, last_values),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnGae:
    """GAE over turns, all tokens of one alike. turn_gamma: discount per turn. Source: see `advantages.turn_gae`."""

    turn_gamma: float = 1.0
    gae_lambda: float = 0.95

    def __call__(self, batch: TokenBatch, values: Tensor, last_values: Tensor | None = None) -> adv.ValueAdvantages:
        return adv.turn_gae(
            batch.rewards,
            values,
            batch.turn_index,
            batch.trajectory_index,
            # The clock has one tick per turn here, whatever number of tokens a turn has.
            gamma=self.turn_gamma,
            gae_lambda=self.gae_lambda,
            last_values=ends_of(batch, last_values),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BilevelV1:
    """GAE over turns and over the tokens within each. Source: see `advantages.bilevel_gae_v1`."""

    gamma: float = 1.0
    turn_gamma: float = 1.0
    gae_lambda: float = 0.95

    def __call__(self, batch: TokenBatch, values: Tensor, last_values: Tensor | None = None) -> adv.ValueAdvantages:
        return adv.bilevel_gae_v1(
            batch.rewards,
            values,
            batch.turn_index,
            batch.trajectory_index,
            gamma=self.gamma,
            turn_gamma=self.turn_gamma,
            gae_lambda=self.gae_lambda,
            last_values=ends_of(batch, last_values),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BilevelV2:
    """The same in its second form, the turn's reward as the sum of its tokens'. Source: see `bilevel_gae_v2`."""

    gamma: float = 1.0
    turn_gamma: float = 1.0
    gae_lambda: float = 0.95

    def __call__(self, batch: TokenBatch, values: Tensor, last_values: Tensor | None = None) -> adv.ValueAdvantages:
        return adv.bilevel_gae_v2(
            batch.rewards,
            values,
            batch.turn_index,
            batch.trajectory_index,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            turn_gamma=self.turn_gamma,
            # One lambda serves both levels: the settings have one key for it.
            turn_gae_lambda=self.gae_lambda,
            # A KL in the reward lies on every token (see `with_kl`); the last token alone would miss most of it.
            turn_reward="sum",
            last_values=ends_of(batch, last_values),
        )
