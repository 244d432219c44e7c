"""From one loss per action token to one number, with a denominator that counts the whole optimiser step.

The denominator is computed once, over every micro-batch of every rank, and passed in; therefore no split of the batch
can change the gradient. A batch reports its `LossCounts`; ranks add theirs up; `loss_denominator` turns the sum into a
number.

| name | formula | used by |
|---|---|---|
| token-mean | sum of all losses / number of tokens | PPO, DAPO |
| seq-mean-token-mean | mean over sequences of their token mean | GRPO, GSPO |
| seq-mean-token-sum | mean over sequences of their token sum | RLOO |
| constant | sum of all losses / (number of sequences * max_length) | Dr. GRPO |

A sequence whose tokens are all masked out does not count in a mean over sequences.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.maths.sequences import (
    check_segments,
    require_same_shape,
    segment_count,
)

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"]
AGGREGATIONS: tuple[Aggregation, ...] = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCounts:
    """What a batch contributes to the denominators; add them over micro-batches and ranks."""

    num_tokens: int
    """Tokens that are not masked."""
    num_sequences: int
    """Sequences with at least one such token."""
    num_rows: int
    """All sequences, fully masked ones included: Dr. GRPO's constant must not depend on a filter."""

    def __add__(self, other: LossCounts) -> LossCounts:
        return LossCounts(
            num_tokens=self.num_tokens + other.num_tokens,
            num_sequences=self.num_sequences + other.num_sequences,
            num_rows=self.num_rows + other.num_rows,
        )


def count_loss_units(mask: Tensor, sequence_index: Tensor, *, num_sequences: int) -> LossCounts:
    """Counts of one micro-batch.

    Args:
        mask: [N] bool, true on the tokens that take part in the loss.
        sequence_index: [N] int.
        num_sequences: sequences that begin in this micro-batch, each counted in exactly one micro-batch.
    """
    kept = segment_count(mask.bool(), sequence_index, num_sequences)
    return LossCounts(num_tokens=int(kept.sum()), num_sequences=int((kept > 0).sum()), num_rows=num_sequences)


def loss_denominator(
    counts: Iterable[LossCounts], how: Aggregation, *, max_length: float | None = None, per_sequence: bool = True
) -> float:
    """The denominator of an optimiser step.

    Args:
        counts: of every micro-batch of every rank.
        how: name of the aggregation.
        max_length: L of "constant", in tokens (see `constant_length`); must be None for the others.
        per_sequence: for "constant": divide by (number of sequences * L), or by L alone.

    Raises:
        ValueError: nothing to average over, an unknown name, or `max_length` given or missing against `how`.
    """
    require_choice("how", how, Aggregation, what="aggregation")
    total = sum(counts, LossCounts(num_tokens=0, num_sequences=0, num_rows=0))
    if total.num_tokens == 0:
        raise ValueError("no unmasked action token in the whole step: filters removed everything, so skip the update")
    if (how == "constant") != (max_length is not None):
        raise ValueError(f"max_length belongs to the 'constant' aggregation and only to it: {how!r} with {max_length}")
    if how == "token-mean":
        return float(total.num_tokens)
    if how in ("seq-mean-token-mean", "seq-mean-token-sum"):
        return float(total.num_sequences)
    # Only "constant" is left here. It has a length, which the type checker does not know.
    if max_length is not None and max_length > 0:
        # verl's "seq-mean-token-sum-norm" leaves the number of sequences out.
        return float(max_length * (total.num_rows if per_sequence else 1))
    raise ValueError(f"max_length must be positive, got {max_length}: it is the L of the 'constant' aggregation")


def constant_length(max_length: float, *, collected: int, kept: int) -> float:
    """L of "constant" where only `kept` of the `collected` sequences are handed to the update.

    Dr. GRPO's sum goes over every sequence that was sampled; one whose advantage is 0 adds nothing to it and counts in
    the denominator all the same. Leaving such sequences out for their cost must not make the step larger:
    `kept` rows times this length are `collected` rows times L, whatever minibatches the rows are split into.

    Raises:
        ValueError: none was kept, or more than were collected.

    Sources: arXiv:2503.20783 (the sum and its constant); arXiv:2503.14476 counts the tokens of the kept ones instead.
    """
    if not 0 < kept <= collected:
        raise ValueError(f"{kept} of {collected} sequences kept: expected one at least, and no more than collected")
    return max_length * collected / kept


def token_weights(
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    how: Aggregation,
    denominator: float,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The factor of every token's loss, 0 where masked: any aggregation is a dot product with these. [N] -> [N].

    Computed before the batch is split, they also allow one sequence to be spread over several micro-batches.

    Raises:
        ValueError: an unknown name, a denominator that is not positive, or tensors of different shapes.
    """
    require_choice("how", how, Aggregation, what="aggregation")
    check_segments(mask, sequence_index, num_sequences)
    # `not >` refuses NaN too.
    if not denominator > 0:
        raise ValueError(f"the denominator must be positive, got {denominator}: compute it with `loss_denominator`")
    kept = mask.bool()
    weights = kept.to(dtype) / denominator
    # All aggregations share the step's denominator; only this one divides by each sequence's own length too.
    if how == "seq-mean-token-mean":
        lengths = segment_count(kept, sequence_index, num_sequences)
        # The weights of a sequence without unmasked tokens are 0 already; the clamp only avoids 0 / 0.
        weights = weights / lengths.clamp(min=1)[sequence_index]
    return weights


def aggregate(
    losses: Tensor,
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    how: Aggregation,
    denominator: float,
    num_ranks: int = 1,
) -> Tensor:
    """This micro-batch's share of the step's loss; the shares of all micro-batches add up to the whole.

    Args:
        losses: [N] float per action token; entries under a false mask may hold anything, NaN included.
        mask: [N] bool.
        sequence_index: [N] int. "seq-mean-token-mean" needs whole sequences here (else use `token_weights`).
        num_sequences: S of this micro-batch.
        how: name of the aggregation.
        denominator: of the whole optimiser step, from `loss_denominator`.
        num_ranks: ranks over which the gradient will be *averaged*; it is multiplied back here.

    Returns:
        Scalar.
    """
    require_same_shape(losses=losses, mask=mask)
    weights = token_weights(
        mask,
        sequence_index,
        num_sequences=num_sequences,
        how=how,
        # Ranks average their gradients, and the shares are to be summed, so each must be `num_ranks` times as large.
        denominator=denominator / num_ranks,
        dtype=torch.promote_types(losses.dtype, torch.float32),  # half precision would lose small weights
    )
    # `where` comes before the product: a masked loss may be NaN, and NaN times a weight of 0 is NaN.
    return (torch.where(mask.bool(), losses, torch.zeros_like(losses)) * weights).sum()
