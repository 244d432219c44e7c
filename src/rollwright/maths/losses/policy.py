"""Policy losses per action token: ratio level x clip x detached weight.

| method | ratio level | clip |
|---|---|---|
| REINFORCE | none | NoClip |
| PPO, GRPO | token | PpoClip(low=0.2, high=0.2) |
| DAPO | token | PpoClip(low=0.2, high=0.28) |
| GSPO | sequence | PpoClip(low=3e-4, high=4e-4), with seq-mean-token-mean |
| GSPO-token | sequence_token | the same |
| RLOO as in TRL | sequence_sum | PpoClip(low=0.2, high=0.2), with seq-mean-token-mean |
| CISPO | token | CispoClip |

Off-policy corrections: what to do when tokens were sampled by another policy than the one the update starts from.

Two different things are kept apart. A *truncation* changes a detached weight on the loss; a *filter* changes the mask,
and so also the denominator. Each function returns a `Correction` with both, and `combine` multiplies several into one.
If the sampler and the learner agree, every correction is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.maths.sequences import (
    check_segments,
    require_same_shape,
    segment_count,
    segment_sum,
)


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
    # The sampler's log-prob may be missing, the learner's may not: it has computed every token itself.
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
    # A truncation leaves the mask, and so the denominator of the loss, as it is.
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
    # A range without 1 would drop sequences on which sampler and learner agree.
    if not 0 < low <= 1 <= high:
        raise ValueError(f"the range must contain 1, got [{low}, {high}]")
    require_same_shape(log_weights=log_weights, mask=mask)
    kept = torch.where(mask.bool(), log_weights, torch.zeros_like(log_weights))
    # A sequence without unmasked tokens has mean weight 1 this way, which lies inside any range.
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
    # log(pi / pi_sampler) with its sign turned is the drift of the paper.
    drift = -sampler_log_weights(logprobs.detach(), logprobs_sampled, mask)
    counts = segment_count(mask.bool(), sequence_index, num_sequences).clamp(min=1)
    gains = torch.where(mask.bool(), advantages, torch.zeros_like(advantages))
    mean_drift = segment_sum(drift, sequence_index, num_sequences) / counts
    # The sign of the sum is that of the mean.
    bad = segment_sum(gains, sequence_index, num_sequences) < 0
    return _keep_sequences(~(bad & (mean_drift > threshold)), drift, mask, sequence_index)


def _keep_sequences(chosen: Tensor, like: Tensor, mask: Tensor, sequence_index: Tensor) -> Correction:
    # A filter changes the mask alone: the weight of what it keeps is 1.
    return Correction(weights=torch.ones_like(like), mask=mask.bool() & chosen[sequence_index])


RatioLevel = Literal["none", "token", "sequence", "sequence_token", "sequence_sum"]
MAX_LOG_RATIO = 20.0
"""What is exponentiated (a token's log-ratio, a sequence's sum or mean) is clamped to +-20: no sane update comes near,
and nothing overflows. Sums and means are taken before, so that one extreme token counts with all it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoClip:
    """The ratio as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoClip:
    """PPO's pessimistic clip. Sources: arXiv:1707.06347; dual clip arXiv:1912.09729; clip-higher arXiv:2503.14476."""

    low: float
    """The ratio is clipped below at 1 - low."""
    high: float
    """The ratio is clipped above at 1 + high."""
    dual: float | None = None
    """c > 1: for negative advantages the loss is at most -c * advantage; None = no such bound."""

    def __post_init__(self) -> None:
        if not (0 < self.low <= 1 and self.high > 0):
            raise ValueError(f"clip range needs 0 < low <= 1 and high > 0, got low={self.low}, high={self.high}")
        if self.dual is not None and self.dual <= 1:
            raise ValueError(f"the dual clip must exceed 1, got {self.dual}: it bounds ratios far above 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class CispoClip:
    """A detached, capped ratio as a weight on -advantage * logprob: no token loses its gradient.

    Sources: arXiv:2506.13585.
    """

    min_ratio: float
    max_ratio: float

    def __post_init__(self) -> None:
        if not 0 <= self.min_ratio < self.max_ratio:
            raise ValueError(f"need 0 <= min_ratio < max_ratio, got {self.min_ratio} and {self.max_ratio}")

    @classmethod
    def relative(cls, *, low: float, high: float) -> CispoClip:
        """Caps around 1, as in PPO: the ratio is kept in [1 - low, 1 + high]; low >= 1 means no lower cap."""
        return cls(min_ratio=max(0.0, 1.0 - low), max_ratio=1.0 + high)

    @classmethod
    def absolute(cls, *, cap: float) -> CispoClip:
        """One upper cap on the ratio itself, such as 5.0."""
        return cls(min_ratio=0.0, max_ratio=cap)


Clip = NoClip | PpoClip | CispoClip


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """Per token, [N] each; masked tokens have loss 0, ratio 1, clipped false."""

    losses: Tensor
    """Carries the gradient."""
    ratio: Tensor
    """Detached."""
    clipped: Tensor
    """bool: the clip changed this token's gradient."""


def log_ratio(logprobs: Tensor, logprobs_old: Tensor, mask: Tensor) -> Tensor:
    """log pi - log pi_old, not clamped; exactly 0, and without gradient, where masked. [N] -> [N]."""
    require_same_shape(logprobs=logprobs, logprobs_old=logprobs_old, mask=mask)
    return torch.where(mask.bool(), logprobs - logprobs_old.detach(), torch.zeros_like(logprobs))


def bounded_exp(logs: Tensor) -> Tensor:
    """exp of the logs, clamped to +-20. Any shape."""
    return logs.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def importance_ratio(
    logprobs: Tensor,
    logprobs_old: Tensor,
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    level: RatioLevel,
) -> Tensor:
    """The ratio of new to old policy that each token is weighted by, with its gradient. [N] -> [N].

    `token` is the token's own; `sequence` the geometric mean over the sequence's unmasked tokens (GSPO);
    `sequence_token` has that value but the token's own gradient (GSPO-token); `sequence_sum` is the ratio of
    whole-sequence probabilities.
    `none` is 1: the ratio of a policy that has not moved.

    Raises:
        ValueError: an unknown level, or tensors of different shapes.
    """
    require_choice("level", level, RatioLevel, what="ratio level")
    check_segments(logprobs, sequence_index, num_sequences)
    logs = log_ratio(logprobs, logprobs_old, mask)
    if level == "none":
        # The gradient comes from the log-prob in `policy_loss`: a ratio of 1 has none.
        return torch.ones_like(logs)
    if level == "token":
        return bounded_exp(logs)
    sums = segment_sum(logs, sequence_index, num_sequences)
    if level == "sequence_sum":
        return bounded_exp(sums)[sequence_index]
    # The mean of the logs, so that its exp is the geometric mean of the ratios.
    means = sums / segment_count(mask.bool(), sequence_index, num_sequences).clamp(min=1)
    if level == "sequence":
        return bounded_exp(means)[sequence_index]
    # `logs - logs.detach()` is 0 and carries each token's own gradient.
    return bounded_exp(means.detach()[sequence_index] + logs - logs.detach())


def _clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: PpoClip) -> tuple[Tensor, Tensor]:
    """Loss and whether the clip cut the gradient, per token."""
    inside = ratio.clamp(1 - clip.low, 1 + clip.high)
    # The larger loss is the pessimistic one. Where that is the clipped one, its gradient is 0.
    plain, bounded = -ratio * advantages, -inside * advantages
    losses, cut = torch.maximum(plain, bounded), bounded > plain
    if clip.dual is None:
        return losses, cut
    # For a negative advantage the loss grows with the ratio without end, unless the dual clip stops it.
    ceiling = -clip.dual * advantages
    over = (advantages < 0) & (losses > ceiling)
    return torch.where(over, ceiling, losses), cut | over


def policy_loss(
    logprobs: Tensor,
    logprobs_old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    level: RatioLevel,
    clip: Clip,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """The surrogate loss of every action token; average it with `aggregate`.

    Args:
        logprobs: [N] float with gradient, by the learner now.
        logprobs_old: [N] float, by the learner when the update began.
        advantages: [N] float per token.
        mask: [N] bool; a masked token enters no ratio, no loss and no gradient, whatever it holds.
        sequence_index: [N] int; for the sequence levels the whole sequence must be in this micro-batch.
        num_sequences: S.
        level: which ratio (see `importance_ratio`); "none" and CispoClip use -advantage * logprob.
        clip: `NoClip`, `PpoClip` or `CispoClip`.
        weights: [N] float, detached factors such as truncated importance weights; None = 1.

    Raises:
        ValueError: shapes differ, or a clip that cannot act at this ratio level.
    """
    check_segments(logprobs, sequence_index, num_sequences)
    if not logprobs.shape == logprobs_old.shape == advantages.shape == mask.shape:
        shapes = [tuple(x.shape) for x in (logprobs, logprobs_old, advantages, mask)]
        raise ValueError(f"logprobs, logprobs_old, advantages and mask must share one shape, got {shapes}")
    if level == "none" and not isinstance(clip, NoClip):
        raise ValueError(f"ratio level 'none' has no ratio to clip, got {clip}: use NoClip, or the level 'token'")
    if not isinstance(clip, Clip):
        raise ValueError(f"unknown clip {clip!r}: `clip` is a NoClip(), a PpoClip(low=, high=) or a CispoClip")
    kept = mask.bool()
    zeros = torch.zeros_like(logprobs)
    # NaN under the mask would survive the product with a ratio, so it goes first.
    gains = torch.where(kept, advantages.detach(), zeros)
    ratio = importance_ratio(logprobs, logprobs_old, kept, sequence_index, num_sequences=num_sequences, level=level)
    cut = torch.zeros_like(kept)
    if isinstance(clip, PpoClip):
        losses, cut = _clipped_surrogate(ratio, gains, clip)
    elif isinstance(clip, CispoClip):
        # The ratio is a mere weight: the log-prob carries the gradient, also where the weight is capped.
        capped = ratio.detach().clamp(clip.min_ratio, clip.max_ratio)
        losses, cut = -capped * gains * torch.where(kept, logprobs, zeros), capped != ratio.detach()
    elif level == "none":
        # This is the gradient of -ratio * A at ratio 1.
        losses = -gains * torch.where(kept, logprobs, zeros)
    else:
        losses = -ratio * gains
    if weights is not None:
        require_same_shape(weights=weights, logprobs=logprobs)
        # The weights come after the clip, which bounds pi / pi_old alone.
        losses = losses * torch.where(kept, weights.detach(), zeros)
    return PolicyLoss(
        losses=torch.where(kept, losses, zeros),
        ratio=torch.where(kept, ratio.detach(), torch.ones_like(zeros)),
        clipped=cut & kept,
    )
