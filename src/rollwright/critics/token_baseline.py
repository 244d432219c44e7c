"""ArCHer's token baseline: a value per token inside the utterance, taken from the utterance's advantage.

Inside an utterance the advantage A(s, a) of the critic above is the only reward; it comes with the last token and is
not discounted, so A is the return from every token on. v(s, a^<t) is regressed on it and has not seen token t: taking
it from A leaves the expected gradient as it was and, as a rule, less of its variance.

    policy    -(A - v(s, a^<t)) log pi(a^t | s, a^<t), v without gradient
    v         (A - v(s, a^<t))^2 / 2

Source: arXiv:2402.19446 with its released trainer; docs/methods/archer.md says where this differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from rollwright.batching import Segment
from rollwright.config import build_part
from rollwright.critics.critic_settings import TokenCriticFit
from rollwright.learner import CriticSettings


def baseline_critic(fit: TokenCriticFit) -> CriticSettings:
    """The learner's token critic as a baseline: named apart from the critic of utterances, its values free to move."""
    return CriticSettings(name="baseline", kind=fit.kind, learning_rate=fit.learning_rate, loss=build_part(fit, "loss"))


def with_token_baseline(segments: Sequence[Segment], values: Sequence[Tensor]) -> list[Segment]:
    """The segments with A - v_t as the advantage of each token, and A as the return that v_t is fitted to.

    Args:
        segments: of whole utterances, A the advantage of every token (see `replay_updates.stored_segments`).
        values: [len(action_ids)] per segment, v before each token (see `Learner.values`).

    Raises:
        ValueError: another number of values than of segments or of tokens.
    """
    result = []
    for segment, row in zip(segments, values, strict=True):
        left = tuple(a - v for a, v in zip(segment.advantages, row.tolist(), strict=True))
        result.append(replace(segment, advantages=left, returns=segment.advantages))
    return result


def residual_ratio(segments: Sequence[Segment]) -> float:
    """Mean square of A - v_t over that of A, over the action tokens: 1 before v has learned, above 1 where it misleads.

    Raises:
        ValueError: a segment without `returns`.
    """
    left = total = 0.0
    for segment in segments:
        if segment.returns is None:
            raise ValueError("a segment without returns has no baseline: use `with_token_baseline` first")
        for a, whole, counts in zip(segment.advantages, segment.returns, segment.action_mask, strict=True):
            left, total = left + counts * a * a, total + counts * whole * whole
    return left / total if total else 1.0
