"""Losses of a critic's values against their targets, and how the configuration names one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rollwright.config import Parts
from rollwright.maths.losses import value_loss

_HERE = "rollwright.learner.critic_losses"
CRITIC_LOSSES = Parts(
    what="critic loss",
    options="loss_options",
    trial=f"{_HERE}:try_critic_loss",
    ours={"squared": f"{_HERE}:Squared"},
)


class CriticLoss(Protocol):
    """The loss of every value.

    An attribute `needs_old = True` says that it looks at `values_old`: they are then read before the first of several
    optimiser steps. Where it is missing, `values_old` may be the values of this very step.
    """

    def __call__(self, values: Tensor, targets: Tensor, values_old: Tensor) -> Tensor:
        """[N] values with gradient, their targets [N], and the values before the update [N] -> [N] losses."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Squared:
    """Half the squared error; with `clip_eps` PPO's clipped form (see `maths.losses.value_loss`).

    clip_eps: how far a value may move from where it stood when the update began, in reward units; None = no clipping.
    """

    clip_eps: float | None = None

    @property
    def needs_old(self) -> bool:
        """Whether the values before the update count."""
        return self.clip_eps is not None

    def __call__(self, values: Tensor, targets: Tensor, values_old: Tensor) -> Tensor:
        anchor = None if self.clip_eps is None else values_old
        return value_loss(values, targets, values_old=anchor, clip_eps=self.clip_eps)


def try_critic_loss(loss: CriticLoss) -> None:
    """Call a user's own loss on four values.

    Raises:
        ValueError: it does not give one finite number per value with a gradient. Whatever the loss raises.
    """
    values = torch.tensor([0.0, 0.5, -1.0, 2.0], requires_grad=True)
    found: object = loss(values, torch.tensor([1.0, 0.5, 0.0, 0.0]), values.detach() - 0.1)
    if not isinstance(found, Tensor) or found.shape != values.shape:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"it must give one loss per value, [4], got {shape}")
    if not found.isfinite().all():
        raise ValueError(f"losses must be finite, got {found.tolist()}")
    if not found.requires_grad:
        raise ValueError("losses must carry the gradient of the values: they have none")
