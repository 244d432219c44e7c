"""Losses that move a policy towards actions on record: weighted likelihood, and WebRL's regression of log-ratios."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.maths.sequences import require_length, require_same_shape, segment_count, segment_sum

_SURE = 0.8
"""p_ref from which the released WebRL trainer uses beta 5 in place of 1."""


def weighted_nll(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-w log pi per token, the weights without gradient. [N], [N] -> [N].

    One form for many methods: filtered BC (w in {0, 1}), AWR (w = exp(A / beta)), DigiRL (w = kept), REINFORCE (w = A).
    """
    require_same_shape(logprobs=logprobs, advantages=advantages)
    return -advantages.detach() * logprobs


def webrl_squared(
    logprobs: Tensor,
    logprobs_ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    beta: float,
) -> Tensor:
    """(beta log(pi / pi_ref) - A)^2 per turn, the log-ratio summed over the turn's tokens. -> [S].

    At pi = pi_ref its gradient is -2 beta A grad log pi: a policy gradient. Its minimum holds the policy at
    pi_ref exp(A / beta) where the advantages are soft-optimal.

    Args:
        logprobs, logprobs_ref, mask: [N] of action tokens. advantages: [S], one per turn.
        sequence_index: [N] the turn of each token.

    Sources: arXiv:2411.02337, eq. 6.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    require_length("advantages", advantages, num_sequences, per="turn")
    require_same_shape(logprobs=logprobs, logprobs_ref=logprobs_ref, mask=mask)
    # A masked token may hold NaN, which a product with the mask would keep.
    ratios = torch.where(mask, logprobs - logprobs_ref.detach(), torch.zeros_like(logprobs))
    return (beta * segment_sum(ratios, sequence_index, num_sequences) - advantages.detach()).square()


def webrl_released_loss(
    logprobs: Tensor,
    logprobs_ref: Tensor,
    targets: Tensor,
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    num_tokens: float | Literal["turn"] | None = None,
) -> Tensor:
    """The released trainer's loss per turn: SmoothL1(beta rho - target) / beta where the target is positive. -> [S].

    rho is the turn's summed log-ratio divided by the number of action tokens of all positive turns; beta is 1, or 5
    where the geometric mean probability under the reference reaches 0.8, and at most |target / rho|.

    Args:
        targets: [S], see `advantages.webrl_released`.
        num_tokens: that number of tokens over the whole optimiser step; None = of this batch; "turn" = each turn's own,
            which is what the released micro-batch of one turn amounts to.

    Sources: the released trainer of arXiv:2411.02337.
    """
    if isinstance(num_tokens, str):
        require_choice("num_tokens", num_tokens, ("turn",))
    require_length("targets", targets, num_sequences, per="turn")
    require_same_shape(logprobs=logprobs, logprobs_ref=logprobs_ref, mask=mask)
    zero = torch.zeros_like(logprobs)
    counts = segment_count(mask, sequence_index, num_sequences)
    # The released trainer learns from positive turns only: a target of -0.6 gives no loss.
    positive = (targets > 0) & (counts > 0)
    if num_tokens == "turn":
        total = counts.clamp(min=1).to(logprobs.dtype)
    else:
        whole = float(counts[positive].sum()) if num_tokens is None else num_tokens
        # Without a positive turn the total would be 0, and NaN gradients would pass the `where` at the end.
        total = torch.full_like(counts, max(whole, 1.0), dtype=logprobs.dtype)
    ratios = segment_sum(torch.where(mask, logprobs - logprobs_ref.detach(), zero), sequence_index, num_sequences)
    rho = ratios / total
    reference = segment_sum(torch.where(mask, logprobs_ref, zero), sequence_index, num_sequences).detach()
    # exp of the mean log-prob is the geometric mean of the turn's token probabilities.
    beta = torch.where((reference / counts.clamp(min=1)).exp() >= _SURE, 5.0, 1.0)
    beta = torch.minimum(beta, (targets / rho.detach()).abs())  # rho 0 gives infinity, which bounds nothing
    errors = torch.nn.functional.smooth_l1_loss(beta * rho, targets.to(rho.dtype), reduction="none")
    return torch.where(positive, errors / beta, torch.zeros_like(errors))
