"""Off-policy corrections: what to do when tokens were sampled by another policy than the one the update starts from.

Two different things are kept apart. A *truncation* changes a detached weight on the loss; a *filter* changes the mask,
and so also the denominator. Each function returns a `Correction` with both, and `combine` multiplies several into one.
If the sampler and the learner agree, every correction is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rollwright.maths.losses.policy import MAX_LOG_RATIO, bounded_exp
from rollwright.maths.sequences import require_same_shape, segment_count, segment_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """[N] each, without gradient. Feed `weights` to `policy_loss` and `mask` to it, the counts and `aggregate`."""

    weights: Tensor
    mask: Tensor


def combine(*corrections: Correction) -> Correction:
    """All corrections at once: weights multiply, a token is kept if every filter keeps it.

    Raises:
        ValueError: nothing to combine.
    """
    if not corrections:
        raise ValueError("give at least one correction to combine")
    weights, mask = corrections[0].weights, corrections[0].mask
    for other in corrections[1:]:
        weights, mask = weights * other.weights, mask & other.mask
    return Correction(weights=weights, mask=mask)


def sampler_log_weights(logprobs_old: Tensor, logprobs_sampled: Tensor, mask: Tensor) -> Tensor:
    """log(pi_old / pi_sampler) per token, without gradient and not clamped: sums are, before exp. [N] -> [N].

    A sampler's log-prob that is not finite (an appended stop token has none) gives 0, that is weight 1; so do masked
    tokens.

    Raises:
        ValueError: the learner's own log-prob of an unmasked token is not finite.
    """
    require_same_shape(logprobs_old=logprobs_old, logprobs_sampled=logprobs_sampled, mask=mask)
    kept = mask.bool()
    if not logprobs_old[kept].isfinite().all():
        raise ValueError("the learner's log-probs hold NaN or infinity: the model is broken, no weight can repair that")
    usable = kept & logprobs_sampled.isfinite()
    return torch.where(usable, logprobs_old - logprobs_sampled, torch.zeros_like(logprobs_old)).detach()


def sequence_log_weights(log_weights: Tensor, mask: Tensor, sequence_index: Tensor, *, num_sequences: int) -> Tensor:
    """Log of the product of each sequence's token weights, clamped to +-20 after the sum. [N] -> [S]."""
    require_same_shape(log_weights=log_weights, mask=mask)
    kept = torch.where(mask.bool(), log_weights, torch.zeros_like(log_weights))
    return segment_sum(kept, sequence_index, num_sequences).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def _check_cap(cap: float) -> None:
    if cap < 1:
        raise ValueError(f"a cap below 1 would also change on-policy tokens, got {cap}: use 1 or more")


def truncate_tokens(log_weights: Tensor, mask: Tensor, *, cap: float) -> Correction:
    """Token-level truncated importance sampling: w = min(pi_old / pi_sampler, cap). Usual caps 1.5 to 5.

    Sources: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy training".
    """
    _check_cap(cap)
    require_same_shape(log_weights=log_weights, mask=mask)
    return Correction(weights=bounded_exp(log_weights).clamp(max=cap), mask=mask.bool())


def truncate_sequences(
    log_weights: Tensor, mask: Tensor, sequence_index: Tensor, *, num_sequences: int, cap: float
) -> Correction:
    """Sequence-level truncated importance sampling: every token gets min(product of the ratios, cap). Caps 2 to 10.

    The product grows with length: a ratio of 1.1 per token is 2.6 after 10 tokens and 13,780 after 100.
    """
    _check_cap(cap)
    logs = sequence_log_weights(log_weights, mask, sequence_index, num_sequences=num_sequences)
    return Correction(weights=logs.exp().clamp(max=cap)[sequence_index], mask=mask.bool())


def mask_tokens(log_weights: Tensor, mask: Tensor, *, cap: float) -> Correction:
    """Masked importance sampling per token: a weight above the cap drops the token, others are kept as they are."""
    _check_cap(cap)
    require_same_shape(log_weights=log_weights, mask=mask)
    return _drop_above(bounded_exp(log_weights), mask, cap)


def mask_sequences(
    log_weights: Tensor, mask: Tensor, sequence_index: Tensor, *, num_sequences: int, cap: float
) -> Correction:
    """Masked importance sampling per sequence: a product above the cap drops the sequence, others keep theirs."""
    _check_cap(cap)
    logs = sequence_log_weights(log_weights, mask, sequence_index, num_sequences=num_sequences)
    return _drop_above(logs.exp()[sequence_index], mask, cap)


def _drop_above(weights: Tensor, mask: Tensor, cap: float) -> Correction:
    kept = mask.bool() & (weights <= cap)
    return Correction(weights=torch.where(weights <= cap, weights, torch.zeros_like(weights)), mask=kept)


def filter_geometric(
    log_weights: Tensor,
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    low: float = 0.999,
    high: float = 1.001,
) -> Correction:
    """Drop the sequences whose geometric mean weight lies outside [low, high]; no weight changes."""
    if not 0 < low <= 1 <= high:
        raise ValueError(f"the range must contain 1, got [{low}, {high}]")
    require_same_shape(log_weights=log_weights, mask=mask)
    kept = torch.where(mask.bool(), log_weights, torch.zeros_like(log_weights))
    counts = segment_count(mask.bool(), sequence_index, num_sequences).clamp(min=1)
    means = bounded_exp(segment_sum(kept, sequence_index, num_sequences) / counts)
    inside = (means >= low) & (means <= high)
    return _keep_sequences(inside, log_weights, mask, sequence_index)


def filter_off_policy(
    logprobs: Tensor,
    logprobs_sampled: Tensor,
    advantages: Tensor,
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    threshold: float,
) -> Correction:
    """Off-policy sequence masking: drop a sequence that did badly and that the policy has since moved away from.

    A sequence goes if its advantage is negative and the mean of log pi_sampler - log pi over it exceeds `threshold`, in
    nats per token. A sequence's advantage is the mean over its tokens.

    Sources: arXiv:2512.02556 section 3.1 (DeepSeek-V3.2).
    """
    require_same_shape(logprobs=logprobs, advantages=advantages)
    drift = -sampler_log_weights(logprobs.detach(), logprobs_sampled, mask)
    counts = segment_count(mask.bool(), sequence_index, num_sequences).clamp(min=1)
    gains = torch.where(mask.bool(), advantages, torch.zeros_like(advantages))
    mean_drift = segment_sum(drift, sequence_index, num_sequences) / counts
    bad = segment_sum(gains, sequence_index, num_sequences) < 0
    return _keep_sequences(~(bad & (mean_drift > threshold)), drift, mask, sequence_index)


def _keep_sequences(chosen: Tensor, like: Tensor, mask: Tensor, sequence_index: Tensor) -> Correction:
    return Correction(weights=torch.ones_like(like), mask=mask.bool() & chosen[sequence_index])
