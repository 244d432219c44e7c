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
        return torch.ones_like(logs)
    if level == "token":
        return bounded_exp(logs)
    sums = segment_sum(logs, sequence_index, num_sequences)
    if level == "sequence_sum":
        return bounded_exp(sums)[sequence_index]
    means = sums / segment_count(mask.bool(), sequence_index, num_sequences).clamp(min=1)
    if level == "sequence":
        return bounded_exp(means)[sequence_index]
    return bounded_exp(means.detach()[sequence_index] + logs - logs.detach())


def _clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: PpoClip) -> tuple[Tensor, Tensor]:
    """Loss and whether the clip cut the gradient, per token."""
    inside = ratio.clamp(1 - clip.low, 1 + clip.high)
    plain, bounded = -ratio * advantages, -inside * advantages
    losses, cut = torch.maximum(plain, bounded), bounded > plain
    if clip.dual is None:
        return losses, cut
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
    gains = torch.where(kept, advantages.detach(), zeros)
    ratio = importance_ratio(logprobs, logprobs_old, kept, sequence_index, num_sequences=num_sequences, level=level)
    cut = torch.zeros_like(kept)
    if isinstance(clip, PpoClip):
        losses, cut = _clipped_surrogate(ratio, gains, clip)
    elif isinstance(clip, CispoClip):
        capped = ratio.detach().clamp(clip.min_ratio, clip.max_ratio)
        losses, cut = -capped * gains * torch.where(kept, logprobs, zeros), capped != ratio.detach()
    elif level == "none":
        losses = -gains * torch.where(kept, logprobs, zeros)
    else:
        losses = -ratio * gains
    if weights is not None:
        require_same_shape(weights=weights, logprobs=logprobs)
        losses = losses * torch.where(kept, weights.detach(), zeros)
    return PolicyLoss(
        losses=torch.where(kept, losses, zeros),
        ratio=torch.where(kept, ratio.detach(), torch.ones_like(zeros)),
        clipped=cut & kept,
    )
