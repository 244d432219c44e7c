"""Turn-level advantages from an outcome and a state value: DigiRL and WebRL, each as in the paper and as released.

All tensors are flat over turns: `values` [U] before each turn, `trajectory_index` [U], turns in the order played, and
`outcomes` [S], the reward r_H of each trajectory's end (0 or 1). No gradient flows into a result. The paper and the
released code of both methods differ; results of one form must not be reported under the other's name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rollwright.maths.sequences import (
    next_in_segment,
    positions_in_segment,
    require_finite_entries,
    require_length,
    segment_count,
)

RELEASED_OFFSET = 0.05
"""Both released trainers subtract it from the advantage (1 / 20, whatever the task's horizon)."""


def _steps(
    values: Tensor, index: Tensor, outcomes: Tensor, last_values: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """V(s') - V(s), the reward of each turn (the outcome on the last one), and the turns left after each."""
    num = outcomes.numel()
    require_length("outcomes", outcomes, num, per="trajectory")
    # The outcomes are cast to the dtype of the values below, and an integer one would truncate them.
    if not values.is_floating_point():
        raise ValueError(f"`values` are a critic's probabilities, so floats; got {values.dtype}")
    # V(s_{T+1}) = 0, as in the WebRL paper.
    ends = torch.zeros_like(outcomes) if last_values is None else last_values
    require_length("last_values", ends, num, per="trajectory")
    require_finite_entries(values=values, outcomes=outcomes, last_values=ends)
    following = next_in_segment(values, index, ends)
    counts = segment_count(torch.ones_like(index), index, num)
    # H - h of the papers: 0 on the last turn.
    left = counts[index] - 1 - positions_in_segment(index, num)
    # The outcome is paid once, on the last turn. Only the released WebRL pays it on every turn.
    rewards = torch.where(left == 0, outcomes.to(values.dtype)[index], torch.zeros_like(values))
    return following - values, rewards, left


def digirl(
    values: Tensor, trajectory_index: Tensor, outcomes: Tensor, *, decay: float = 0.5, last_values: Tensor | None = None
) -> Tensor:
    """w + (1 - w) (V(s') + r - V(s)) with w = decay^(H - h) r_H: the doubly robust step advantage of the paper. -> [U].

    Args:
        last_values: [S] V of what follows each trajectory; None = 0.

    Sources: arXiv:2406.11896, eq. 4.3.
    """
    change, rewards, left = _steps(values, trajectory_index, outcomes, last_values)
    # w is 1 on the last turn of a success and 0 on every turn of a failure.
    weights = decay ** left.to(values.dtype) * outcomes.to(values.dtype)[trajectory_index]
    return (weights + (1 - weights) * (change + rewards)).detach()


def digirl_released(
    values: Tensor,
    trajectory_index: Tensor,
    outcomes: Tensor,
    *,
    gamma: float = 0.5,
    offset: float = RELEASED_OFFSET,
    last_values: Tensor | None = None,
) -> Tensor:
    """V(s') - V(s) - offset + r + gamma^(H - h) r_H, clamped to [0, 1]; a turn is kept where it is positive. -> [U].

    Sources: the released trainer of arXiv:2406.11896.
    """
    # Only the sign is used: the released actor weighs a turn by 1 where this is positive, else by 0.
    return _released(values, trajectory_index, outcomes, gamma, offset, last_values).clamp(0.0, 1.0)


def webrl(
    values: Tensor,
    trajectory_index: Tensor,
    outcomes: Tensor,
    *,
    advantage_lambda: float = 0.5,
    last_values: Tensor | None = None,
) -> Tensor:
    """l (r + V(s') - V(s)) + (1 - l) (r_T - V(s)), l = `advantage_lambda`: 1 is the TD error, 0 Monte Carlo. -> [U].

    Sources: arXiv:2411.02337, eq. 9.
    """
    change, rewards, _ = _steps(values, trajectory_index, outcomes, last_values)
    # The Monte-Carlo part of eq. 9 has no discount, however far away the end is.
    whole = outcomes.to(values.dtype)[trajectory_index] - values
    return (advantage_lambda * (rewards + change) + (1 - advantage_lambda) * whole).detach()


def webrl_released(
    values: Tensor,
    trajectory_index: Tensor,
    outcomes: Tensor,
    *,
    gamma: float = 0.9,
    offset: float = RELEASED_OFFSET,
    last_values: Tensor | None = None,
) -> Tensor:
    """The target that the released WebRL trainer regresses on: 1 where the advantage is 0 or more, else -0.6. -> [U].

    Its data script puts the outcome on *every* turn, so a turn of a success always has 1; a turn of a failure has 1
    where V(s') - V(s) reaches the offset. The trainer then leaves out all negative targets (see
    `losses.webrl_released_loss`).

    Sources: the released trainer of arXiv:2411.02337.
    """
    change, _, left = _steps(values, trajectory_index, outcomes, last_values)
    every = outcomes.to(values.dtype)[trajectory_index]
    longest = int(left.max()) + 1 if len(left) else 0
    # With the outcome on every turn, the discounted sum takes one term for each turn that is left.
    to_go = sum((gamma**k * every * (left >= k) for k in range(longest)), torch.zeros_like(values))
    # A success has r + to_go of 2 or more, so its advantage is positive whatever the critic says.
    advantages = (change - offset + every + to_go).clamp(-1.0, 1.0)
    # The size of an advantage is lost here: the released trainer knows these two targets only.
    return torch.where(advantages >= 0, 1.0, -0.6)


def _released(
    values: Tensor, index: Tensor, outcomes: Tensor, gamma: float, offset: float, last_values: Tensor | None
) -> Tensor:
    change, rewards, left = _steps(values, index, outcomes, last_values)
    # The released code puts lambda of the paper in here, as gamma of the return; the factor (1 - w) is absent.
    to_go = gamma ** left.to(values.dtype) * outcomes.to(values.dtype)[index]
    return (change - offset + rewards + to_go).detach()


def awr_weights(advantages: Tensor, *, temperature: float, cap: float | None = 100.0) -> Tensor:
    """min(exp(A / temperature), cap), without gradient: advantage-weighted regression's weight of a turn.

    Args:
        cap: None = not capped (the released offline ArCHer).

    Sources: arXiv:1910.00177 (AWR), arXiv:2110.06169 (IQL caps at 100).
    """
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    require_finite_entries(advantages=advantages)
    # `exp` may reach infinity, which the cap brings back.
    weights = (advantages.detach() / temperature).exp()
    return weights if cap is None else weights.clamp(max=cap)
