"""Advantage estimators that compare episodes without a critic, and how the configuration names one.

An estimator is made once per run, from the keys that its signature names, and called with every flat batch. What it
needs besides rewards it says in attributes of its class, all false where they are missing:

    needs_siblings   its baseline is the group: a group with one learnable member has none and is left out
    needs_spread     it divides by the spread of the batch, and one action token alone has none
    needs_states     it compares turns that met the same state of the world
    needs_greedy     it is called with the returns of one greedy episode per group besides
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from rollwright.batching.token_batch import TokenBatch
from rollwright.config import Parts, is_own, load_part
from rollwright.contracts import require_choice
from rollwright.maths import advantages as adv

_HERE = "rollwright.batching.estimators"
ADVANTAGES = Parts(
    what="advantage estimator",
    options="advantage_options",
    trial="rollwright.batching.estimator_trials:try_advantage",
    ours={
        "grpo": f"{_HERE}:Grpo",
        "dr_grpo": f"{_HERE}:DrGrpo",
        "rloo": f"{_HERE}:Rloo",
        "opo": f"{_HERE}:Opo",
        "pass@k": f"{_HERE}:PassAtK",
        "remax": f"{_HERE}:Remax",
        "reinforce": f"{_HERE}:ReturnToGo",
        "reinforce++": f"{_HERE}:ReinforcePlusPlus",
        "reinforce++baseline": f"{_HERE}:ReinforcePlusPlusBaseline",
        "gigpo": f"{_HERE}:Gigpo",
    },
)
"""Of `recipes/grpo.py`: [N] advantages from a flat batch."""

Need = Literal["siblings", "spread", "states", "greedy"]


class Advantage(Protocol):
    """One advantage per action token."""

    def __call__(self, batch: TokenBatch) -> Tensor:
        """-> [N] float, on the CPU; not divided by anything that the estimator does not say."""
        ...


def estimator_needs(name: str, what: Need) -> bool:
    """Whether the named estimator asks for something, by the attribute `needs_<what>` of what builds it.

    Names that are none of `ADVANTAGES` (those of estimators with a critic) ask for nothing.

    Raises:
        UnknownComponent, ConfigError: a user's own estimator is not there, or its module cannot be imported.
    """
    require_choice("what", what, Need)
    if name not in ADVANTAGES.ours and not is_own(name):
        return False
    # Read from what builds the estimator: the estimator itself is made later, once its options are known.
    return bool(getattr(load_part(ADVANTAGES, name), f"needs_{what}", False))


def estimators_that_need(what: Need) -> tuple[str, ...]:
    """Our estimators that ask for something."""
    return tuple(name for name in ADVANTAGES.ours if estimator_needs(name, what))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grpo:
    """The return against the group's mean, divided by its spread. Source: arXiv:2402.03300."""

    eps: float = 1e-6
    needs_siblings: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> Tensor:
        # One number per trajectory, [S], becomes one per action token, [N]: all tokens of an episode share its credit.
        return adv.grpo(batch.scores, batch.group_index, eps=self.eps)[batch.sequence_index]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrGrpo:
    """The return against the group's mean, in the reward's own unit. Source: arXiv:2503.20783."""

    needs_siblings: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> Tensor:
        return adv.dr_grpo(batch.scores, batch.group_index)[batch.sequence_index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rloo:
    """The return against the mean of the other members. Source: arXiv:2402.14740."""

    needs_siblings: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> Tensor:
        return adv.rloo(batch.scores, batch.group_index)[batch.sequence_index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opo:
    """The return against the group's mean weighted by length. Source: see `advantages.opo`."""

    needs_siblings: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> Tensor:
        # The lengths count action tokens alone: observations are no part of what the policy wrote.
        return adv.opo(batch.scores, batch.lengths, batch.group_index)[batch.sequence_index]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAtK:
    """What an episode adds to the chance that any of its group succeeds. Source: see `pass_at_k_advantages`."""

    needs_siblings: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> Tensor:
        return adv.pass_at_k_advantages(batch.scores, batch.group_index)[batch.sequence_index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remax:
    """The return against that of a greedy episode from the same start. Source: see `advantages.remax`."""

    needs_greedy: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch, greedy_scores: Mapping[str, float] | None = None) -> Tensor:
        """-> [N] float32.

        Args:
            greedy_scores: the return of the greedy episode of each group, by group id.

        Raises:
            ValueError: no greedy scores.
        """
        if greedy_scores is None:
            raise ValueError("remax needs the return of one greedy episode per group: pass greedy_scores")
        # `group_index` counts the groups that are kept, so the ids and not the numbers name a greedy episode.
        baseline = torch.tensor([greedy_scores[batch.group_ids[g]] for g in batch.group_index.tolist()])
        return adv.remax(batch.scores, baseline)[batch.sequence_index]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnToGo:
    """The discounted return from the token on, per action token. Source: see `advantages.reinforce`."""

    gamma: float = 1.0

    def __call__(self, batch: TokenBatch) -> Tensor:
        # Not the episode's whole return: a token is credited with what was earned from it on.
        count = len(batch.trajectories)
        return adv.reinforce(batch.rewards, batch.sequence_index, num_sequences=count, gamma=self.gamma)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforcePlusPlus:
    """The same, whitened over the batch. Source: arXiv:2501.03262."""

    gamma: float = 1.0
    needs_spread: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> Tensor:
        count = len(batch.trajectories)
        return adv.reinforce_plus_plus(batch.rewards, batch.sequence_index, num_sequences=count, gamma=self.gamma)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforcePlusPlusBaseline:
    """The return against the group's mean, then whitened over the batch. Source: arXiv:2501.03262."""

    needs_siblings: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> Tensor:
        index, count = batch.sequence_index, len(batch.trajectories)
        # Tokens are whitened together, so a long episode weighs more in mean and spread than a short one.
        return adv.reinforce_plus_plus_baseline(batch.rewards, index, batch.group_index, num_sequences=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gigpo:
    """Whole episodes and, beside them, turns that met the same state. Source: arXiv:2505.10978.

    gamma: discount per turn. gigpo_scale, step_weight: see `advantages.gigpo`.
    """

    gamma: float = 1.0
    gigpo_scale: Literal["none", "std"] = "none"
    step_weight: float = 1.0
    eps: float = 1e-6
    needs_siblings: ClassVar[bool] = True
    needs_states: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_choice("gigpo_scale", self.gigpo_scale, ("none", "std"))

    def __call__(self, batch: TokenBatch) -> Tensor:
        # The clock is that of turns: `turn_rewards` [U], not the token column, so gamma acts once per turn.
        found = adv.gigpo(
            batch.turn_rewards,
            batch.trajectory_index,
            # Turns are equal by this key alone: a world whose key leaves something out compares different states.
            [turn.state_key for turn in batch.turns],
            batch.group_index,
            gamma=self.gamma,
            scale=self.gigpo_scale,
            step_weight=self.step_weight,
            eps=self.eps,
        )
        return found.total[batch.turn_index]
