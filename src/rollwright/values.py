"""Targets and losses of critics: lambda-returns, expectile regression, double-Q targets, Polyak averaging."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rollwright.segments import next_in_segment, reverse_discounted_sum


def lambda_returns(
    rewards: Tensor, values: Tensor, sequence_index: Tensor, last_values: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """G_t = r_t + gamma * ((1 - lam) * V_next + lam * G_next) within every sequence. [N] -> [N], without gradient.

    Args:
        rewards: [N] float.
        values: [N] float, the critic's value before each entry.
        sequence_index: [N] int.
        last_values: [S] float, what follows each sequence: 0 where it terminated, a bootstrap value where it was cut.
        gamma: discount per entry.
        lam: 0 gives one-step targets, 1 Monte-Carlo returns.

    Sources: Sutton and Barto, section 12.1.
    """
    following = next_in_segment(values, sequence_index, last_values)
    # After the last entry G_next is the bootstrap value itself, so that entry takes all of it.
    borders = next_in_segment(torch.zeros_like(values), sequence_index, last_values)
    steps = rewards + gamma * ((1.0 - lam) * following + lam * borders)
    return reverse_discounted_sum(steps, sequence_index, last_values.numel(), gamma * lam).detach()


def expectile_loss(values: Tensor, targets: Tensor, *, tau: float) -> Tensor:
    """|tau - 1(target < value)| * (target - value)^2 per entry: tau above 0.5 leans towards the larger targets.

    Args:
        values: float with gradient, any shape.
        targets: float, same shape; no gradient flows into them.
        tau: in (0, 1); 0.5 is half the squared error.

    Raises:
        ValueError: tau outside (0, 1).

    Sources: arXiv:2110.06169 (IQL).
    """
    if not 0 < tau < 1:
        raise ValueError(f"an expectile lies strictly between 0 and 1, got {tau}")
    errors = targets.detach() - values
    weights = torch.where(errors < 0, 1.0 - tau, tau)
    return weights * errors.square()


def double_q_target(rewards: Tensor, next_q1: Tensor, next_q2: Tensor, terminated: Tensor, *, gamma: float) -> Tensor:
    """r + gamma * min(Q1, Q2) of what follows, and r alone where the task ended. [N] -> [N], without gradient.

    A truncated step is not terminated: it keeps its bootstrap.

    Sources: arXiv:1802.09477 (TD3).
    """
    following = torch.minimum(next_q1, next_q2)
    # A terminal state has no value to read, so the critic's output there may be anything.
    following = torch.where(terminated.bool(), torch.zeros_like(following), following)
    return (rewards + gamma * following).detach()


@torch.no_grad()
def polyak_update(targets: Iterable[Tensor], sources: Iterable[Tensor], *, tau: float) -> None:
    """Move every target in place: target <- (1 - tau) * target + tau * source.

    Raises:
        ValueError: tau outside (0, 1], or lists of different lengths or shapes; then no target has moved.
    """
    if not 0 < tau <= 1:
        raise ValueError(f"tau must lie in (0, 1], got {tau}")
    pairs = list(zip(list(targets), list(sources), strict=True))
    for target, source in pairs:
        if target.shape != source.shape:
            raise ValueError(f"target {tuple(target.shape)} and source {tuple(source.shape)} differ in shape")
    for target, source in pairs:
        target.lerp_(source.to(target), tau)
