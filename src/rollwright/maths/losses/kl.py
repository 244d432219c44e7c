"""Estimates of the KL divergence to a reference policy from sampled tokens, and the controller of its coefficient.

Numbers about an update, for the logs. All take flat tokens and a mask; a batch without tokens gives 0.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.maths.losses.policy import bounded_exp, log_ratio
from rollwright.maths.sequences import require_same_shape


def masked_mean(values: Tensor, mask: Tensor) -> float:
    """Mean over the unmasked entries of any shape; 0 if there are none."""
    require_same_shape(values=values, mask=mask)
    kept = values.detach()[mask.bool()].double()
    return float(kept.mean()) if kept.numel() else 0.0


def clip_frac(clipped: Tensor, mask: Tensor) -> float:
    """Share of unmasked tokens whose gradient the clip changed (`PolicyLoss.clipped`)."""
    return masked_mean(clipped.double(), mask)


def approximate_kl(logprobs: Tensor, logprobs_old: Tensor, mask: Tensor) -> float:
    """Mean k3 estimate of KL(pi_old || pi) over tokens sampled from pi_old: e^d - d - 1 with d = log pi - log pi_old.

    Sources: Schulman 2020, "Approximating KL divergence".
    """
    require_same_shape(logprobs=logprobs, logprobs_old=logprobs_old)
    # k3(x) is e^-x + x - 1, so x = -d gives the estimate for KL(pi_old || pi).
    return masked_mean(k3((logprobs_old - logprobs).detach()), mask)


KlKind = Literal["k1", "k2", "k3", "abs", "k3+"]


def k3(x: Tensor) -> Tensor:
    """e^-x + x - 1: unbiased and never negative. Any shape -> the same shape.

    Bounded only where floats end: from x = -87.7 down (float32) e^-x would soon be infinite, so value and gradient stay
    there as they are at that place.
    """
    # One nat inside the range of floats, so that e^-x is still finite there.
    lowest = 1.0 - math.log(torch.finfo(x.dtype).max)
    x = x + (x.clamp(min=lowest) - x).detach()  # a plain clamp would let a token beyond go without a gradient
    # For small x, e^-x - 1 loses its digits, and expm1 does not.
    return torch.expm1(-x) + x


def kl_estimate(logprobs: Tensor, logprobs_ref: Tensor, *, kind: KlKind) -> Tensor:
    """Per-token estimate of KL(pi || pi_ref), for tokens sampled from pi. Any shape -> the same shape.

    With x = log pi - log pi_ref: k1 = x, abs = |x|, k2 = x^2 / 2, k3 = e^-x + x - 1.
    In a *loss*, k1 has zero expected gradient (use it in the reward only), and the gradient of k3 is not that of the
    KL; "k3+" has the value of k3 and the gradient of k2, which is.

    Raises:
        ValueError: an unknown kind, or tensors of different shapes.

    Sources: Schulman 2020, "Approximating KL divergence".
    """
    require_choice("kind", kind, KlKind, what="KL estimate")
    require_same_shape(logprobs=logprobs, logprobs_ref=logprobs_ref)
    x = logprobs - logprobs_ref.detach()
    if kind == "k1":
        return x
    if kind == "abs":
        return x.abs()
    if kind == "k2":
        return 0.5 * x.square()
    if kind == "k3":
        return k3(x)
    k2 = 0.5 * x.square()
    # The two k2 terms cancel in the value, and only the one without `detach` has a gradient.
    return k3(x).detach() + k2 - k2.detach()


def kl_loss(
    logprobs: Tensor,
    logprobs_old: Tensor,
    logprobs_ref: Tensor,
    mask: Tensor,
    *,
    kind: KlKind,
    ratio_weighted: bool,
) -> Tensor:
    """The KL term of a loss, per token; multiply it by its coefficient and add it to the policy's losses. [N] -> [N].

    Args:
        logprobs: [N] float with gradient.
        logprobs_old: [N] float, of the policy that sampled; used only if `ratio_weighted`.
        logprobs_ref: [N] float, of the frozen reference.
        mask: [N] bool; masked tokens give 0, whatever they hold.
        kind: see `kl_estimate`. Unweighted, "k2" and "k3+" have the gradient of the KL, as long as the data is fresh.
        ratio_weighted: multiply by pi / pi_old, gradient included: then k1 and k3 have the right expected gradient, on
            data of an older policy too.

    Sources: arXiv:2512.02556 section 3.1 (the weighted form).
    """
    require_choice("kind", kind, KlKind, what="KL estimate")
    require_same_shape(logprobs=logprobs, logprobs_old=logprobs_old, logprobs_ref=logprobs_ref, mask=mask)
    kept, zeros = mask.bool(), torch.zeros_like(logprobs)
    # Masked entries become 0 before the estimate: `where` at the end alone would still let NaN into the gradient.
    current = torch.where(kept, logprobs, zeros)
    estimate = kl_estimate(current, torch.where(kept, logprobs_ref, zeros), kind=kind)
    if ratio_weighted:
        # The ratio keeps its gradient: without it, the gradient of k1 would be 0 on average.
        estimate = estimate * bounded_exp(log_ratio(logprobs, logprobs_old, mask))
    return torch.where(kept, estimate, zeros)


def kl_shaped_rewards(
    rewards: Tensor, logprobs: Tensor, logprobs_ref: Tensor, *, kl_coef: float, kind: KlKind = "k1"
) -> Tensor:
    """Rewards per action token minus `kl_coef` times the KL estimate of that token, without gradient. [N] -> [N].

    Sources: arXiv:1909.08593.
    """
    require_same_shape(rewards=rewards, logprobs=logprobs)
    return (rewards - kl_coef * kl_estimate(logprobs, logprobs_ref, kind=kind)).detach()
