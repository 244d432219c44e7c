"""Policy losses, and how the configuration names one: ratio level and clip of ours, or one of a user's own.

A loss is made once per run, from the keys that its signature names, and called with the action tokens of every
micro-batch. Averaging, the detached weights, KL and entropy are added by `objective`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from rollwright.batching import Segment, TokenBatch
from rollwright.config import Parts
from rollwright.maths.losses import CispoClip, Clip, NoClip, PolicyLoss, PpoClip, RatioLevel, policy_loss

_HERE = "rollwright.learner.policy_losses"
LOSSES = Parts(
    what="policy loss",
    options="loss_options",
    trial=f"{_HERE}:try_loss",
    ours={
        # Names and not classes: a user's own loss is named in the same form, package.module:Attribute.
        "reinforce": f"{_HERE}:Reinforce",
        "ppo": f"{_HERE}:Ppo",
        "gspo": f"{_HERE}:Gspo",
        "gspo_token": f"{_HERE}:GspoToken",
        "cispo": f"{_HERE}:Cispo",
        "rloo_sequence": f"{_HERE}:RlooSequence",
    },
)


class TokenPolicyLoss(Protocol):
    """The surrogate of every action token.

    A class attribute `whole_sequences = True` says that it looks at sequences as wholes, which are then not split over
    micro-batches; where it is missing, tokens may come in any parts.
    """

    def __call__(self, tokens: TokenBatch, weights: Tensor | None = None) -> PolicyLoss:
        """-> [N] losses with gradient, before they are averaged.

        Args:
            tokens: of one micro-batch, with `logprobs` (gradient) and `logprobs_old`.
            weights: [N] float, detached factors of the loss (`algorithm.correction`); None = 1.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce:
    """-advantage * logprob: no ratio, no clip. Source: Williams 1992."""

    def __call__(self, tokens: TokenBatch, weights: Tensor | None = None) -> PolicyLoss:
        return surrogate(tokens, weights, level="none", clip=NoClip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ppo:
    """The token's own ratio, PPO's clip. Source: arXiv:1707.06347."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        _ppo_clip(self)  # a range that cannot be is refused when the loss is made

    def __call__(self, tokens: TokenBatch, weights: Tensor | None = None) -> PolicyLoss:
        return surrogate(tokens, weights, level="token", clip=_ppo_clip(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gspo(Ppo):
    """The geometric mean of the sequence's ratios, PPO's clip. Source: arXiv:2507.18071."""

    # The mean of a sequence's log-ratios needs all its tokens in one micro-batch.
    whole_sequences: ClassVar[bool] = True

    def __call__(self, tokens: TokenBatch, weights: Tensor | None = None) -> PolicyLoss:
        return surrogate(tokens, weights, level="sequence", clip=_ppo_clip(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class GspoToken(Ppo):
    """GSPO's ratio with the token's own gradient. Source: arXiv:2507.18071."""

    whole_sequences: ClassVar[bool] = True

    def __call__(self, tokens: TokenBatch, weights: Tensor | None = None) -> PolicyLoss:
        # The sequence's ratio is detached, so that advantages may differ between its tokens.
        return surrogate(tokens, weights, level="sequence_token", clip=_ppo_clip(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class RlooSequence(Ppo):
    """The ratio of whole-sequence probabilities, PPO's clip: RLOO as TRL had it. Source: arXiv:2402.14740."""

    whole_sequences: ClassVar[bool] = True

    def __call__(self, tokens: TokenBatch, weights: Tensor | None = None) -> PolicyLoss:
        # The sum grows with length where GSPO's mean does not, so long sequences meet the clip sooner.
        return surrogate(tokens, weights, level="sequence_sum", clip=_ppo_clip(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cispo:
    """The token's ratio, capped and detached, as a weight on -advantage * logprob. Source: arXiv:2506.13585."""

    clip_low: float = 0.2
    clip_high: float = 0.2

    def __call__(self, tokens: TokenBatch, weights: Tensor | None = None) -> PolicyLoss:
        # A low of 1 or more means no lower cap here; PPO's clip refuses one above 1.
        clip = CispoClip.relative(low=self.clip_low, high=self.clip_high)
        return surrogate(tokens, weights, level="token", clip=clip)


def _ppo_clip(loss: Ppo) -> PpoClip:
    return PpoClip(low=loss.clip_low, high=loss.clip_high, dual=loss.dual_clip)


def surrogate(tokens: TokenBatch, weights: Tensor | None, *, level: RatioLevel, clip: Clip) -> PolicyLoss:
    """`maths.losses.policy_loss` of a token record: what all of ours are.

    Raises:
        ValueError: the record lacks log-probs, or the clip cannot act at this ratio level.
    """
    return policy_loss(
        required(tokens.logprobs, "logprobs"),
        required(tokens.logprobs_old, "logprobs_old"),
        tokens.advantages,
        tokens.mask,
        tokens.sequence_index,
        num_sequences=tokens.num_sequences,
        level=level,
        clip=clip,
        weights=weights,
    )


def required(column: Tensor | None, name: str) -> Tensor:
    """A column of the token record that a loss cannot do without.

    Raises:
        ValueError: it was not given.
    """
    if column is None:
        raise ValueError(f"this loss needs `{name}` of every token; the segments or the learner did not give them")
    return column


def try_loss(loss: TokenPolicyLoss) -> None:
    """Call a user's own loss on six tokens of two sequences, with and without weights, one token masked.

    Raises:
        ValueError: it does not give one finite loss per token with a gradient. Whatever the loss raises.
    """
    # None is what a run passes that neither corrects nor filters.
    for weights in (None, torch.full((6,), 0.5)):
        tokens = small_tokens()
        found: object = loss(tokens, weights)
        if not isinstance(found, PolicyLoss):
            given = type(found).__name__
            raise ValueError(f"it must give PolicyLoss(losses=..., ratio=..., clipped=...), got {given}")
        for name in ("losses", "ratio", "clipped"):
            column = getattr(found, name)
            if not isinstance(column, Tensor) or column.shape != (6,):
                shape = list(column.shape) if isinstance(column, Tensor) else type(column).__name__
                raise ValueError(f"`{name}` must have one number per action token, [6], got {shape}")
        if not found.losses.isfinite().all():
            raise ValueError(f"`losses` must be finite, got {found.losses.tolist()}")
        # A detached loss would train nothing, and nothing would say so.
        if not found.losses.requires_grad:
            raise ValueError("`losses` must carry the gradient of `tokens.logprobs`: they have none")


def small_tokens() -> TokenBatch:
    """Six action tokens of two sequences, the fifth masked, by a policy that has moved a little."""
    logprobs = torch.tensor([-0.5, -1.0, -2.0, -0.1, -3.0, -0.7], requires_grad=True)
    batch = TokenBatch.of(
        [Segment(prompt_ids=(1,), action_ids=(2, 3, 4), sequence=sequence) for sequence in range(2)],
        logprobs_sampled=logprobs.detach() + 0.1,
        advantages=torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]),
    )
    mask = torch.tensor([True, True, True, True, False, True])
    moved = torch.tensor([0.05, -0.02, 0.1, -0.04, 0.0, 0.06])  # unlike within a sequence: levels of ratio differ
    return replace(batch, mask=mask, logprobs=logprobs, logprobs_old=logprobs.detach() - moved)
