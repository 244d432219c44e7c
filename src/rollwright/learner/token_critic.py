"""A critic with one value per action token, read at the position before the token.

Losses of a critic's values against their targets, and how the configuration names one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from rollwright.batching import PackedBatch
from rollwright.config import Parts
from rollwright.maths.losses import value_loss
from rollwright.models import body_hidden, body_of, causal_lm

_HERE = "rollwright.learner.token_critic"
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
    # Old values differ from the new ones, so that a loss with a clip has something to clip.
    found: object = loss(values, torch.tensor([1.0, 0.5, 0.0, 0.0]), values.detach() - 0.1)
    if not isinstance(found, Tensor) or found.shape != values.shape:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"it must give one loss per value, [4], got {shape}")
    if not found.isfinite().all():
        raise ValueError(f"losses must be finite, got {found.tolist()}")
    if not found.requires_grad:
        raise ValueError("losses must carry the gradient of the values: they have none")


CriticKind = Literal["model", "head"]
# The range that verl's configuration has.
_CLIPPED = Squared(clip_eps=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSettings:
    """The token critic and its optimiser.

    kind: "model" is a transformer of its own, started from the policy's weights; "head" reads the policy's hidden
    states without sending a gradient into them, which costs almost nothing and tells less.
    """

    name: str = "critic"
    """Area of its metrics, for a method that has another critic beside it."""
    kind: CriticKind = "model"
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    loss: CriticLoss = _CLIPPED
    """Of its values against the returns."""

    def __post_init__(self) -> None:
        if self.kind not in ("model", "head"):
            raise ValueError(f"unknown critic {self.kind!r}; expected 'model' or 'head'")
        if self.learning_rate <= 0 or self.max_grad_norm <= 0:
            raise ValueError(f"critic learning_rate and max_grad_norm must be positive, got {self}")


class TokenCritic(nn.Module):
    """Values of action tokens. Made by the learner, which owns its optimiser; starts by predicting 0 everywhere."""

    def __init__(self, policy: nn.Module, *, kind: CriticKind) -> None:
        super().__init__()
        width = causal_lm(policy).config.get_text_config().hidden_size
        # The learner makes the critic before it wraps the policy: a sharded module could not be copied.
        self.body = copy.deepcopy(body_of(policy)) if kind == "model" else None
        last = nn.Linear(width, 1)
        # Values of 0 at first: a random head would hand noise to the first advantages.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)

    def forward(self, packed: PackedBatch, policy_hidden: Tensor | None) -> Tensor:
        """[N] values of the action tokens.

        Args:
            packed: the micro-batch.
            policy_hidden: [U, H] of the policy at `packed.gather`; the kind "model" does not look at it.
        """
        if self.body is None:
            assert policy_hidden is not None
            # The critic's loss must not pull at the policy's layers.
            hidden = policy_hidden.detach()
        else:
            hidden = body_hidden(self.body, packed)
            hidden = hidden.reshape(-1, hidden.shape[-1])[packed.gather]
        # Returns are regressed in full precision: bfloat16 has no room between 0.990 and 0.994.
        with torch.autocast(hidden.device.type, enabled=False):
            values = self.head(hidden.float())
        # [U] -> [N]: tokens of siblings that share a prompt are read at one position.
        return values.squeeze(-1)[packed.slots]
