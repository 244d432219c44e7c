"""Advantages of whole trajectories, judged against their siblings: the rollouts of one task from one start.

A group is named by an integer per trajectory (`group_index` [S]); the numbers need not be consecutive. Every result
is one advantage per trajectory; give it to the tokens with `advantages[sequence_index]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rollwright.maths.sequences import (
    require_finite_entries,
    require_length,
    segment_count,
    segment_mean,
    segment_std,
    segment_sum,
)


def _dense_groups(scores: Tensor, group_index: Tensor) -> tuple[Tensor, int]:
    """Groups renumbered 0..G-1, and G. Raises where a trajectory has no siblings, or a score is not finite."""
    if scores.dim() != 1 or scores.shape != group_index.shape:
        raise ValueError(
            f"expected one score and one group per trajectory, got {tuple(scores.shape)} and {tuple(group_index.shape)}"
        )
    if not scores.isfinite().all():
        raise ValueError(f"scores must be finite, got {scores.tolist()}: check the verifier of this task")
    # `unique` turns arbitrary group numbers into 0..G-1, which the segment functions need.
    names, dense = torch.unique(group_index, return_inverse=True)
    counts = torch.bincount(dense, minlength=names.numel())
    # A lone score is its own mean: the trajectory would teach nothing, and nobody would notice.
    if (counts < 2).any():
        raise ValueError(
            f"group(s) {names[counts < 2].tolist()} have a single trajectory and so no baseline: "
            "sample 2 rollouts or more per task, or drop the group"
        )
    return dense, names.numel()


def group_mean(scores: Tensor, group_index: Tensor) -> Tensor:
    """Mean score of each trajectory's group. [S] -> [S].

    Raises:
        ValueError: a group of one, or a score that is not finite.
    """
    dense, num_groups = _dense_groups(scores, group_index)
    return segment_mean(scores, dense, num_groups)[dense]


def dr_grpo(scores: Tensor, group_index: Tensor) -> Tensor:
    """Score minus the group's mean. Use with the `constant` aggregation, which is the other half of the method.

    Args:
        scores: [S] float, one return per trajectory.
        group_index: [S] int.

    Returns:
        [S] float; zeros where all siblings scored the same.

    Raises:
        ValueError: a group of one, or a score that is not finite.

    Sources: arXiv:2503.20783.
    """
    return (scores - group_mean(scores, group_index)).detach()


def grpo(scores: Tensor, group_index: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Score minus the group's mean, divided by the group's unbiased standard deviation plus `eps`.

    Args:
        scores: [S] float, one return per trajectory.
        group_index: [S] int.
        eps: in the unit of the score.

    Returns:
        [S] float; exact zeros where all siblings scored the same.

    Raises:
        ValueError: a group of one, or a score that is not finite.

    Sources: arXiv:2402.03300 section 4.1.
    """
    dense, num_groups = _dense_groups(scores, group_index)
    # The default of eps is verl's; TRL adds 1e-4.
    return standardise(scores, dense, num_groups, eps=eps)


def standardise(scores: Tensor, dense_index: Tensor, num_groups: int, *, eps: float) -> Tensor:
    """(x - mean) / (unbiased std + eps) within each group; 0 in a group of one. [S] -> [S]."""
    centred = scores - segment_mean(scores, dense_index, num_groups)[dense_index]
    spread = segment_std(scores, dense_index, num_groups)[dense_index]
    # Equal scores whose mean rounds would otherwise be blown up by 1 / eps.
    equal = segment_spread(scores, dense_index, num_groups)[dense_index] == 0
    return torch.where(equal, torch.zeros_like(centred), centred / (spread + eps)).detach()


def segment_spread(scores: Tensor, dense_index: Tensor, num_groups: int) -> Tensor:
    """Largest minus smallest score of each group. [S] -> [G]."""
    # `include_self=False` keeps the initial zeros out: all scores of a group may be negative.
    high = scores.new_zeros(num_groups).scatter_reduce(0, dense_index, scores, "amax", include_self=False)
    low = scores.new_zeros(num_groups).scatter_reduce(0, dense_index, scores, "amin", include_self=False)
    return high - low


def rloo(scores: Tensor, group_index: Tensor) -> Tensor:
    """Score minus the mean of the *other* members of the group: an unbiased baseline. [S] -> [S].

    Raises:
        ValueError: a group of one, or a score that is not finite.

    Sources: arXiv:2402.14740.
    """
    dense, num_groups = _dense_groups(scores, group_index)
    # s - mean(others) = (s - mean(all)) * n / (n - 1), so no loop over the members is needed.
    size = segment_count(torch.ones_like(dense), dense, num_groups)[dense].to(scores.dtype)
    return ((scores - segment_mean(scores, dense, num_groups)[dense]) * size / (size - 1)).detach()


def remax(scores: Tensor, greedy_scores: Tensor) -> Tensor:
    """Score minus the score of the greedy rollout of the same task. [S], [S] -> [S].

    Raises:
        ValueError: different numbers of scores, or one that is not finite.

    Sources: arXiv:2310.10505.
    """
    if scores.shape != greedy_scores.shape:
        raise ValueError(
            f"each score needs the greedy score of its own task: {tuple(scores.shape)} and {tuple(greedy_scores.shape)}"
        )
    require_finite_entries(scores=scores, greedy_scores=greedy_scores)
    return (scores - greedy_scores).detach()


def pass_at_k_advantages(
    scores: Tensor, group_index: Tensor, *, divide_by_std: bool = False, eps: float = 1e-6
) -> Tensor:
    """Only the best trajectory of a group is paid: by its lead over the second best; 0 in a tie. [S] -> [S].

    Raises:
        ValueError: a group of one, or a score that is not finite.

    Sources: arXiv:2503.19595.
    """
    dense, num_groups = _dense_groups(scores, group_index)
    advantages = torch.zeros_like(scores)
    # `topk` has no form that works on segments, so the groups go one by one.
    for group in range(num_groups):
        members = (dense == group).nonzero()[:, 0]
        best, second = torch.topk(scores[members], 2).values
        # `argmax` takes the first of several best ones; their lead over the second is 0 in any case.
        advantages[members[scores[members].argmax()]] = best - second
    if divide_by_std:
        # The spread is that of the scores: the advantages are 0 for all members but one.
        advantages = advantages / (segment_std(scores, dense, num_groups)[dense] + eps)
    return advantages.detach()


def opo(scores: Tensor, lengths: Tensor, group_index: Tensor) -> Tensor:
    """Score minus the group's length-weighted mean score, the baseline of least variance under a simple model.

    Args:
        scores: [S] float.
        lengths: [S] number of action tokens of each trajectory, all positive.
        group_index: [S] int.

    Returns:
        [S] float.

    Raises:
        ValueError: a group of one, a score that is not finite, another number of lengths, or a length below 1.

    Sources: arXiv:2505.23585.
    """
    require_length("lengths", lengths, scores.numel(), per="trajectory")
    require_finite_entries(lengths=lengths)
    # A group whose lengths are all 0 would divide 0 by 0 below.
    if (lengths < 1).any():
        raise ValueError("every trajectory needs 1 action token or more: drop the empty ones")
    dense, num_groups = _dense_groups(scores, group_index)
    # The best baseline weighs by the squared gradient norm of a trajectory; the paper takes it to grow with the length.
    weights = lengths.to(scores.dtype)
    baseline = segment_sum(scores * weights, dense, num_groups) / segment_sum(weights, dense, num_groups)
    return (scores - baseline[dense]).detach()
