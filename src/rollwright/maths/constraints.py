"""Reward against cost: the multiplier of a constraint J_C <= d, and the advantage that it mixes.

    min over lambda >= 0, max over the policy:  E[R] - lambda (E[C] - d)

Sources: arXiv:2310.12773 (Safe RLHF: the multiplier in log space, the mixed advantage).
"""

from __future__ import annotations

import math

from torch import Tensor

from rollwright.maths.sequences import require_length


def log_dual_step(multiplier: float, *, cost: float, limit: float, rate: float, floor: float, most: float) -> float:
    """lambda after one step of gradient ascent on nu = log lambda: nu + rate * lambda * (cost - limit).

    The step is proportional to lambda itself: a multiplier near 0 comes back slowly, hence `floor`.

    Raises:
        ValueError: not 0 < floor <= most.
    """
    if not 0 < floor <= most:
        raise ValueError(f"a multiplier in log space lies in [floor, most] with 0 < floor, got {floor:g}, {most:g}")
    now = min(max(multiplier, floor), most)
    moved = math.log(now) + rate * now * (cost - limit)
    # Compared in log space: exp of a large step is beyond every float, and exp(log(cap)) is not the cap itself.
    if moved >= math.log(most):
        return most
    return math.exp(moved) if moved > math.log(floor) else floor


def linear_dual_step(multiplier: float, *, cost: float, limit: float, rate: float, most: float) -> float:
    """lambda after one step of projected gradient ascent: lambda + rate * (cost - limit), within [0, most]."""
    return min(max(multiplier + rate * (cost - limit), 0.0), most)


def constrained_advantages(rewards: Tensor, costs: Tensor, multiplier: float) -> Tensor:
    """(A_R - lambda A_C) / (1 + lambda): [N] advantages of reward and of cost -> [N].

    The denominator keeps the scale when lambda grows: without it the step size would grow with the multiplier.

    Raises:
        ValueError: unlike lengths, or a negative multiplier.
    """
    require_length("costs", costs, len(rewards), per="advantage of the reward")
    if not multiplier >= 0:
        raise ValueError(f"a multiplier is 0 or more, got {multiplier}")
    return (rewards - multiplier * costs) / (1.0 + multiplier)
