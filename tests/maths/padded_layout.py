"""The padded layout of other libraries, [B, T] with a mask, laid flat for the functions of `rollwright.maths`."""

from __future__ import annotations

import torch
from torch import Tensor

from rollwright.maths.advantages import ValueAdvantages, gae, returns_to_go
from rollwright.maths.losses import (
    Aggregation,
    Clip,
    LossCounts,
    PolicyLoss,
    RatioLevel,
    aggregate,
    count_loss_units,
    policy_loss,
)


def flatten_padded(padded: Tensor, mask: Tensor) -> Tensor:
    """The masked-in entries of a padded tensor, row after row. [B, T] -> [N].

    Raises:
        ValueError: the shapes differ.
    """
    if padded.shape != mask.shape:
        raise ValueError(f"tensor {tuple(padded.shape)} and mask {tuple(mask.shape)} must have the same shape")
    return padded[mask.bool()]


def padded_sequence_index(mask: Tensor) -> Tensor:
    """Row number of every masked-in entry, in the order of `flatten_padded`. [B, T] -> [N] int64."""
    return mask.bool().nonzero()[:, 0]


def unflatten_padded(flat: Tensor, mask: Tensor) -> Tensor:
    """Inverse of `flatten_padded`: entries go back to their places, all other places hold 0. [N] -> [B, T]."""
    chosen = mask.bool()
    if flat.dim() != 1 or flat.numel() != int(chosen.sum()):
        raise ValueError(f"{flat.numel()} flat entries cannot fill a mask with {int(chosen.sum())} places")
    return flat.new_zeros(mask.shape).masked_scatter(chosen, flat)


def check_rewards(rewards: Tensor, mask: Tensor) -> None:
    """Raise if a reward stands on a token that the policy did not write, or is not finite.

    Such a reward would vanish silently from every estimator below, since they walk over action tokens only.

    Args:
        rewards: [B, T] or [T] float.
        mask: same shape, true on the tokens that the policy sampled.

    Raises:
        ValueError: shapes differ, a reward on a masked token, or a reward that is not finite.
    """
    if rewards.shape != mask.shape:
        raise ValueError(f"rewards {tuple(rewards.shape)} and mask {tuple(mask.shape)} must have the same shape")
    lost = (rewards != 0) & ~mask.bool()
    if lost.any():
        raise ValueError(
            f"{int(lost.sum())} reward(s) stand on masked tokens, first at {lost.nonzero()[0].tolist()}: "
            "put each reward on the last token of the action that earned it"
        )
    if not rewards.isfinite().all():
        raise ValueError("rewards must be finite: check the reward function of this batch")


def gae_padded(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    last_values: Tensor | None = None,
) -> ValueAdvantages:
    """`gae` for the padded layout: [B, T] (or [T] for one sequence) with a mask; masked places return 0.

    Raises:
        ValueError: a reward stands on a masked token.
    """
    check_rewards(rewards, mask)
    rows = mask.reshape(-1, mask.shape[-1])
    flat = gae(
        flatten_padded(rewards, mask),
        flatten_padded(values, mask),
        padded_sequence_index(rows),
        num_sequences=rows.shape[0],
        gamma=gamma,
        gae_lambda=gae_lambda,
        last_values=last_values,
    )
    return ValueAdvantages(
        advantages=unflatten_padded(flat.advantages, mask), returns=unflatten_padded(flat.returns, mask)
    )


def returns_to_go_padded(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """`returns_to_go` for the padded layout: [B, T] (or [T]) with a mask; masked places return 0.

    Raises:
        ValueError: a reward stands on a masked token.
    """
    check_rewards(rewards, mask)
    rows = mask.reshape(-1, mask.shape[-1])
    flat = returns_to_go(
        flatten_padded(rewards, mask), padded_sequence_index(rows), num_sequences=rows.shape[0], gamma=gamma
    )
    return unflatten_padded(flat, mask)


def aggregate_padded(losses: Tensor, mask: Tensor, *, how: Aggregation, denominator: float) -> Tensor:
    """`aggregate` for the padded layout, [B, T] losses and mask; every row is a sequence."""
    flat = flatten_padded(losses, mask)
    index = padded_sequence_index(mask)
    everything = torch.ones_like(index, dtype=torch.bool)
    return aggregate(flat, everything, index, num_sequences=mask.shape[0], how=how, denominator=denominator)


def count_loss_units_padded(mask: Tensor) -> LossCounts:
    """`count_loss_units` for a [B, T] mask."""
    index = padded_sequence_index(mask)
    return count_loss_units(torch.ones_like(index, dtype=torch.bool), index, num_sequences=mask.shape[0])


def policy_loss_padded(
    logprobs: Tensor,
    logprobs_old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    level: RatioLevel,
    clip: Clip,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """`policy_loss` for [B, T] tensors; the result is flat, in the order of `flatten_padded`."""
    index = padded_sequence_index(mask)
    return policy_loss(
        flatten_padded(logprobs, mask),
        flatten_padded(logprobs_old, mask),
        flatten_padded(advantages, mask),
        torch.ones_like(index, dtype=torch.bool),
        index,
        num_sequences=mask.shape[0],
        level=level,
        clip=clip,
        weights=None if weights is None else flatten_padded(weights, mask),
    )
