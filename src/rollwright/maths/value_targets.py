"""Targets and losses of critics: returns, implicit maximisation, double-Q targets, conservatism, Polyak averaging."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rollwright.contracts import require_choice
from rollwright.maths.sequences import (
    next_in_segment,
    require_finite_entries,
    require_length,
    require_same_shape,
    reverse_discounted_sum,
)


def lambda_returns(
    rewards: Tensor, values: Tensor, sequence_index: Tensor, last_values: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """G_t = r_t + gamma * ((1 - l) V_next + l G_next) within every sequence, l = `gae_lambda`. [N] -> [N], no gradient.

    Args:
        rewards: [N] float.
        values: [N] float, the critic's value before each entry.
        sequence_index: [N] int.
        last_values: [S] float, what follows each sequence: 0 where it terminated, a bootstrap value where it was cut.
        gamma: discount per entry.
        gae_lambda: 0 gives one-step targets, 1 Monte-Carlo returns; they are GAE's advantages plus the values.

    Raises:
        ValueError: tensors of other lengths than these, or numbers that are not finite.

    Sources: Sutton and Barto, section 12.1.
    """
    require_length("rewards", rewards, sequence_index.numel(), per="entry")
    require_length("values", values, sequence_index.numel(), per="entry")
    require_finite_entries(rewards=rewards, values=values, last_values=last_values)
    following = next_in_segment(values, sequence_index, last_values)
    # After the last entry G_next is the bootstrap value itself, so that entry takes all of it.
    borders = next_in_segment(torch.zeros_like(values), sequence_index, last_values)
    steps = rewards + gamma * ((1.0 - gae_lambda) * following + gae_lambda * borders)
    return reverse_discounted_sum(steps, sequence_index, last_values.numel(), gamma * gae_lambda).detach()


def expectile_loss(values: Tensor, targets: Tensor, *, expectile: float) -> Tensor:
    """|expectile - 1(target < value)| * (target - value)^2 per entry: above 0.5 it leans towards the larger targets.

    Args:
        values: float with gradient, any shape.
        targets: float, same shape; no gradient flows into them.
        expectile: in (0, 1), tau of the paper; 0.5 is half the squared error.

    Raises:
        ValueError: an expectile outside (0, 1), or tensors of different shapes.

    Sources: arXiv:2110.06169 (IQL).
    """
    if not 0 < expectile < 1:
        raise ValueError(f"an expectile lies strictly between 0 and 1, got {expectile}")
    require_same_shape(values=values, targets=targets)
    errors = targets.detach() - values
    # An error below 0 is a value above its target, which weighs little where the expectile is high.
    weights = torch.where(errors < 0, 1.0 - expectile, expectile)
    return weights * errors.square()


def total_variation_loss(values: Tensor, targets: Tensor, *, alpha: float) -> Tensor:
    """alpha * max(x, 0) - (1 - alpha) * x for x = target - value: f-DVL with the total-variation divergence.

    The minimiser is the (2 - 1 / alpha)-quantile of the targets; from alpha 0.5 down it degenerates to the minimum.

    Args:
        values: float with gradient, any shape.
        targets: float, same shape; no gradient flows into them.
        alpha: in (0, 1).

    Sources: arXiv:2302.08560 (Dual RL).
    """
    errors = _errors(values, targets, alpha)
    # In x, the slopes are 2 alpha - 1 above 0 and alpha - 1 below, which balance at the (2 - 1 / alpha)-quantile.
    return alpha * errors.clamp(min=0) - (1 - alpha) * errors


def chi_square_loss(values: Tensor, targets: Tensor, *, alpha: float) -> Tensor:
    """alpha * max(x + x^2 / 4, 0) - (1 - alpha) * x for x = target - value: f-DVL's chi-square form as released.

    x + x^2 / 4 turns positive again below -4, so a very bad action pulls the value down. The exact conjugate is flat
    there; the released form is the one that its results were made with.

    Sources: arXiv:2302.08560 (Dual RL).
    """
    errors = _errors(values, targets, alpha)
    return alpha * (errors + errors.square() / 4).clamp(min=0) - (1 - alpha) * errors


def _errors(values: Tensor, targets: Tensor, alpha: float) -> Tensor:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, got {alpha}")
    require_same_shape(values=values, targets=targets)
    return targets.detach() - values


Divergence = Literal["tv", "chi2"]
"""The f of an f-DVL value loss: total variation or chi-square."""


def dual_value_loss(values: Tensor, targets: Tensor, *, divergence: Divergence, alpha: float) -> Tensor:
    """f-DVL's value loss by the name of its divergence: implicit maximisation, interchangeable with `expectile_loss`.

    alpha grows towards 1 with the wish for the best action on record; see the two losses for what each value means.

    Sources: arXiv:2302.08560 (Dual RL).
    """
    require_choice("divergence", divergence, Divergence)
    loss = {"tv": total_variation_loss, "chi2": chi_square_loss}[divergence]
    return loss(values, targets, alpha=alpha)


def dual_weights(advantages: Tensor, *, divergence: Divergence) -> Tensor:
    """Slope of the conjugate f* at A = Q - V, where that is positive: how often the best policy takes an action, in
    terms of how often the data do. Without gradient.

    chi-square: max(1 + A / 2, 0). Total variation: 1 where A >= 0, else 0; at A = 0 the slope may be anything between,
    and 1 keeps the action that V was fitted to.

    Sources: arXiv:2302.08560 (Dual RL): density ratio (f')^-1 of the advantage; its released code weighs by exp(A).
    """
    require_choice("divergence", divergence, Divergence)
    require_finite_entries(advantages=advantages)
    detached = advantages.detach()
    if divergence == "chi2":
        return (1 + detached / 2).clamp(min=0)
    return (detached >= 0).to(detached.dtype)


def hybrid_weights(on_policy: Tensor, *, off_weight: float) -> Tensor:
    """Weight of each entry so that the plain mean over all is mean(on-policy) + off_weight * mean(logged). [N] -> [N].

    A hybrid critic regresses on-policy entries on their Monte-Carlo return and logged ones on r + gamma Q(s', a').
    Where both meet in one (s, a) the minimiser of the squared errors is (f_on G + off_weight f_off T) / (f_on +
    off_weight f_off), f the shares of each set that fall there: the logs add coverage, the returns keep it honest.

    Args:
        on_policy: [N] bool, false where the entry is a logged one. A set without entries adds nothing.
        off_weight: lambda of the paper, 0 or more; 0 leaves the logs out.

    Raises:
        ValueError: off_weight is negative.

    Sources: arXiv:2311.08384 (hybrid NPG).
    """
    if off_weight < 0:
        raise ValueError(f"the weight of logged entries must be 0 or more, got {off_weight}")
    total, on = on_policy.numel(), int(on_policy.sum())
    # A set without entries weighs nothing anyway; the clamp only avoids a division by 0.
    of_on, of_off = total / max(on, 1), off_weight * total / max(total - on, 1)
    return torch.where(on_policy, of_on, of_off).float()


def outcome_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a success probability, sigmoid(logit), against 0/1 labels, per entry.

    A state value trained so estimates the share of successes among the episodes that passed through the state.

    Sources: arXiv:2406.11896 (DigiRL), eq. 4.5 and 4.6.
    """
    # From logits: a probability that rounds to 0 or 1 would have an infinite loss.
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")


def conservative_loss(q_values: Tensor, actions: Tensor) -> Tensor:
    """logsumexp over the vocabulary minus the taken action's value, per entry: the CQL penalty. [N, V], [N] -> [N].

    Its gradient is softmax(q) - onehot(a).

    Sources: arXiv:2006.04779 (CQL), arXiv:2206.11871 (ILQL).
    """
    # Cross-entropy is logsumexp minus the entry of the target. float32, since half precision loses its digits.
    return F.cross_entropy(q_values.float(), actions, reduction="none")


def td_target(rewards: Tensor, next_values: Tensor, terminated: Tensor, *, gamma: float) -> Tensor:
    """r + gamma * V(s'), and r alone where the task ended. Any shape; without gradient.

    A truncated step is not terminated: it keeps its bootstrap.
    """
    require_same_shape(rewards=rewards, next_values=next_values, terminated=terminated)
    # `where` in place of a product: the value after the end may be NaN.
    following = torch.where(terminated.bool(), torch.zeros_like(next_values), next_values)
    return (rewards + gamma * following).detach()


@torch.no_grad()
def polyak_update(targets: Iterable[Tensor], sources: Iterable[Tensor], *, polyak: float) -> None:
    """Move every target in place: target <- (1 - polyak) * target + polyak * source.

    Raises:
        ValueError: polyak outside (0, 1], or lists of different lengths or shapes; then no target has moved.
    """
    if not 0 < polyak <= 1:
        raise ValueError(f"polyak must lie in (0, 1], got {polyak}")
    # `parameters()` is a generator, which the first loop would use up.
    pairs = list(zip(list(targets), list(sources), strict=True))
    for target, source in pairs:
        if target.shape != source.shape:
            raise ValueError(f"target {tuple(target.shape)} and source {tuple(source.shape)} differ in shape")
    for target, source in pairs:
        # The source may lie on another device, or have another dtype.
        target.lerp_(source.to(target), polyak)
