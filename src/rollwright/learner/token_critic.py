"""A critic with one value per action token, read at the position before the token."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rollwright.batching import PackedBatch
from rollwright.learner.critic_losses import CriticLoss, Squared
from rollwright.models import body_hidden, body_of, causal_lm

CriticKind = Literal["model", "head"]
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
        self.body = copy.deepcopy(body_of(policy)) if kind == "model" else None
        last = nn.Linear(width, 1)
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
            hidden = policy_hidden.detach()
        else:
            hidden = body_hidden(self.body, packed)
            hidden = hidden.reshape(-1, hidden.shape[-1])[packed.gather]
        # Returns are regressed in full precision: bfloat16 has no room between 0.990 and 0.994.
        with torch.autocast(hidden.device.type, enabled=False):
            values = self.head(hidden.float())
        return values.squeeze(-1)[packed.slots]
