"""ArCHer's token baseline: a value per token inside the utterance, taken from the utterance's advantage.

Inside an utterance the advantage A(s, a) of the critic above is the only reward; it comes with the last token and is
not discounted, so A is the return from every token on. v(s, a^<t) is regressed on it and has not seen token t: taking
it from A leaves the expected gradient as it was and, as a rule, less of its variance.

    policy    -(A - v(s, a^<t)) log pi(a^t | s, a^<t), v without gradient
    v         (A - v(s, a^<t))^2 / 2

Source: arXiv:2402.19446 with its released trainer; docs/methods/archer.md says where this differs.
"""

from __future__ import annotations

from torch import Tensor

from rollwright.batching import TokenBatch
from rollwright.config import build_part
from rollwright.critics.critic_settings import TokenCriticFit
from rollwright.learner import CriticSettings
from rollwright.maths import require_length


def baseline_critic(fit: TokenCriticFit) -> CriticSettings:
    """The learner's token critic as a baseline: named apart from the critic of utterances, its values free to move."""
    return CriticSettings(name="baseline", kind=fit.kind, learning_rate=fit.learning_rate, loss=build_part(fit, "loss"))


def with_token_baseline(batch: TokenBatch, values: Tensor) -> TokenBatch:
    """The batch with A - v_t as the advantage of each token, and A as the return that v_t is fitted to.

    Args:
        batch: of whole utterances, A the advantage of every token (see `replay_updates.stored_batch`).
        values: [N] v before each token (see `Learner.values`).

    Raises:
        ValueError: another number of values than of tokens.
    """
    require_length("values", values, len(batch), per="action token")
    left = batch.advantages.double() - values.double()
    # v is fitted to A itself and not to what is left of it.
    return batch.with_columns(advantages=left, returns=batch.advantages, values=values)


def residual_ratio(batch: TokenBatch) -> float:
    """Mean square of A - v_t over that of A, over the action tokens: 1 before v has learned, above 1 where it misleads.

    Raises:
        ValueError: a batch without `returns` and `values`.
    """
    if batch.returns is None or batch.values is None:
        raise ValueError("a batch without returns has no baseline: use `with_token_baseline` first")
    left = total = 0.0
    for whole, value in zip(batch.returns.tolist(), batch.values.tolist(), strict=True):
        left, total = left + (whole - value) * (whole - value), total + whole * whole
    return left / total if total else 1.0
