"""Numbers about an update, for the logs. All take flat tokens and a mask; a batch without tokens gives 0."""

from __future__ import annotations

from torch import Tensor

from rollwright.maths.losses.kl import k3
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
    return masked_mean(k3((logprobs_old - logprobs).detach()), mask)
