"""Loss of a value head, and the entropy of a policy."""

from __future__ import annotations

import torch
from torch import Tensor

from rollwright.maths.sequences import require_same_shape


def value_loss(values: Tensor, returns: Tensor, *, values_old: Tensor | None, clip_eps: float | None) -> Tensor:
    """Half the squared error of every value, the worse of clipped and unclipped. [N] -> [N]; average with `aggregate`.

    Args:
        values: [N] float with gradient, by the critic now.
        returns: [N] float, its targets (before whitening).
        values_old: [N] float, by the critic when the update began; None together with `clip_eps` None.
        clip_eps: how far a value may move from `values_old`, in reward units; None = no clipping.

    Raises:
        ValueError: tensors of different shapes, only one of `values_old` and `clip_eps` is given, or `clip_eps` is not
            positive.

    Sources: arXiv:1707.06347 (code); arXiv:2005.12729.
    """
    require_same_shape(values=values, returns=returns)
    if (values_old is None) != (clip_eps is None):
        raise ValueError("value clipping needs both values_old and clip_eps: give both, or neither")
    errors = (values - returns.detach()).square()
    if values_old is None or clip_eps is None:
        return 0.5 * errors
    if clip_eps <= 0:
        raise ValueError(f"clip_eps must be positive, got {clip_eps}: use None for no clipping")
    require_same_shape(values=values, values_old=values_old)
    anchor = values_old.detach()
    clipped = anchor + (values - anchor).clamp(-clip_eps, clip_eps)
    # Where the clipped error is the larger one, the value has moved far enough and gets no gradient.
    return 0.5 * torch.maximum(errors, (clipped - returns.detach()).square())
