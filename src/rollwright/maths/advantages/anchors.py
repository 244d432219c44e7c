"""GiGPO: siblings that passed through the same state are compared at that state."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.maths.advantages.groups import group_mean, standardise
from rollwright.maths.sequences import (
    require_finite_entries,
    reverse_discounted_sum,
    segment_count,
    segment_mean,
    segment_sum,
)

EpisodeMean = Literal["trajectories", "turns"]
Scale = Literal["none", "std"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GigpoAdvantages:
    """Advantages per turn, [U] each, with their two parts kept for the logs."""

    total: Tensor
    episode: Tensor
    step: Tensor
    lone_frac: float
    """Share of turns whose anchor no other turn of the group has, so that their step part is 0."""


def _step_groups(anchors: Sequence[Hashable], group_of_turn: Tensor) -> tuple[Tensor, int]:
    """Turns of one group with an identical anchor share a number. -> [U] int, how many numbers."""
    # The group is part of the key: an equal text in another task promises another return.
    numbers: dict[tuple[int, Hashable], int] = {}
    keys = zip(group_of_turn.tolist(), anchors, strict=True)
    index = [numbers.setdefault(key, len(numbers)) for key in keys]
    return torch.tensor(index, device=group_of_turn.device, dtype=torch.long), len(numbers)


def _require_comparable(anchors: Sequence[object]) -> None:
    """Raise at an anchor that is equal to nothing but itself: no state would ever be met again, in silence.

    Tensors and plain objects are hashed by identity; lists and arrays not at all; NaN differs from itself.
    """
    for place, anchor in enumerate(anchors):
        # A tuple hashes by what it holds, so one element that equals nothing spoils the whole key.
        if isinstance(anchor, tuple | frozenset):
            _require_comparable(tuple(anchor))
            continue
        # `__hash__` is None for lists and arrays. None inherits `object.__hash__` up to Python 3.11, and equals itself.
        by_identity = anchor is not None and type(anchor).__hash__ in (None, object.__hash__)
        # A tensor defines a hash of its own, by identity, so the test above does not find it.
        if by_identity or isinstance(anchor, Tensor) or (isinstance(anchor, float) and anchor != anchor):
            raise ValueError(
                f"`anchors` must be keys that equal states share, got {anchor!r:.80} ({type(anchor).__name__}) at "
                f"{place}, which equals nothing but itself: use text, numbers or tuples of them"
            )


def _normalise(values: Tensor, dense_index: Tensor, num_groups: int, scale: Scale, eps: float) -> Tensor:
    if scale == "std":
        return standardise(values, dense_index, num_groups, eps=eps)
    # Without the division an advantage keeps the unit of the reward (docs/decisions/0003).
    return values - segment_mean(values, dense_index, num_groups)[dense_index]


def _episode_part(
    totals: Tensor, trajectory_index: Tensor, group_index: Tensor, episode_mean: EpisodeMean, scale: Scale, eps: float
) -> Tensor:
    """Group-normalised return of each turn's trajectory. -> [U]."""
    # The segment functions want groups numbered 0..G-1; the caller's numbers may have gaps.
    names, dense = torch.unique(group_index, return_inverse=True)
    group_mean(totals, group_index)  # refuses a group of one and returns that are not finite
    if episode_mean == "trajectories":
        return _normalise(totals, dense, names.numel(), scale, eps)[trajectory_index]
    # One entry per turn: a long episode enters the mean and the spread once for each of its turns.
    return _normalise(totals[trajectory_index], dense[trajectory_index], names.numel(), scale, eps)


def gigpo(
    turn_rewards: Tensor,
    trajectory_index: Tensor,
    anchors: Sequence[Hashable],
    group_index: Tensor,
    *,
    gamma: float,
    scale: Scale,
    step_weight: float = 1.0,
    episode_mean: EpisodeMean = "trajectories",
    eps: float = 1e-6,
) -> GigpoAdvantages:
    """Episode advantage within the group, plus `step_weight` times the advantage among turns at the same anchor.

    Args:
        turn_rewards: [U] float, in playing order within each trajectory.
        trajectory_index: [U] int in [0, S).
        anchors: U keys of what the policy saw before each turn. Two turns with equal keys are taken to be in the same
            state, so the key must hold everything that matters (an inventory, not only the room).
        group_index: [S] int, the group of each trajectory.
        gamma: discount per turn of the return-to-go that the step part compares.
        scale: divide by the group's unbiased "std", or by nothing ("none").
        step_weight: omega of the paper.
        episode_mean: "trajectories" as in the paper; "turns" lets a long episode weigh more, as in the released code.
        eps: added to the std.

    Returns:
        One advantage per turn; without any repeated anchor the total is GRPO's (or Dr. GRPO's for scale "none").

    Raises:
        ValueError: a group of one trajectory, a trajectory without turns, a wrong number of anchors, anchors that are
            compared by identity (tensors), rewards that are not finite, a word for `scale` or `episode_mean` that is
            not known.

    Sources: arXiv:2505.10978.
    """
    require_choice("scale", scale, Scale)
    require_choice("episode_mean", episode_mean, EpisodeMean)
    require_finite_entries(turn_rewards=turn_rewards)
    _require_comparable(anchors)
    num_trajectories = group_index.numel()
    if len(anchors) != turn_rewards.numel():
        raise ValueError(f"{turn_rewards.numel()} turns need as many anchors, got {len(anchors)}")
    totals = segment_sum(turn_rewards, trajectory_index, num_trajectories)
    turns = segment_count(torch.ones_like(trajectory_index), trajectory_index, num_trajectories)
    # Such a trajectory would sum to 0 and enter its group's mean as an episode that earned nothing.
    if (turns == 0).any():
        raise ValueError(f"trajectories {(turns == 0).nonzero()[:, 0].tolist()} have no turns: drop them first")
    episode = _episode_part(totals, trajectory_index, group_index, episode_mean, scale, eps)
    # Only the step part discounts: the episode part compares the plain sums in `totals`.
    returns = reverse_discounted_sum(turn_rewards, trajectory_index, num_trajectories, gamma)
    step_index, num_steps = _step_groups(anchors, group_index[trajectory_index])
    # A turn that is alone at its anchor is its own mean, so its step part is 0.
    step = _normalise(returns, step_index, num_steps, scale, eps)
    lone = segment_count(torch.ones_like(step_index), step_index, num_steps)[step_index] == 1
    return GigpoAdvantages(
        total=(episode + step_weight * step).detach(),
        episode=episode.detach(),
        step=step.detach(),
        lone_frac=float(lone.double().mean()),
    )
