"""The sections of critics: what they read with, and how they are fitted."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from rollwright.config import OWN, Config, Readers
from rollwright.learner import CRITIC_LOSSES, CriticKind


class TurnCriticFit(Config):
    """A critic of states or actions: a model of its own beside the policy, and how it is fitted."""

    model: str = Field(
        "", description="Folder or hub name of another transformer to read with, such as RoBERTa; empty: the policy's."
    )
    frozen: bool = Field(False, description="Only heads learn, on the model the run began with; a state is read once.")
    depth: float = Field(1.0, gt=0, le=1, description="Share of its layers that is kept, from the bottom.")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm is clipped to this.")
    updates: int = Field(5, ge=0, description="Optimiser steps for one step of the run.")
    batch_size: int = Field(64, ge=1, description="Turns (or trajectories) of one optimiser step.")
    width: int = Field(256, ge=0, description="Hidden layer of the heads; 0 = linear heads.")
    layer_norm: bool = Field(False, description="Layer norm in the heads, for many updates per step.")


class RegressedCriticFit(TurnCriticFit):
    """The same where heads are regressed on targets, so that the error can be measured in several ways."""

    loss: Annotated[str, CRITIC_LOSSES] = Field(
        "squared", description="Of values against their targets: the whole square; or a loss of one's own."
    )
    loss_options: dict[str, Any] = Field({}, description="Arguments of a loss of one's own.")

    only_for: ClassVar[Readers] = {"loss_options": {"loss": (OWN,)}}


class TokenCriticFit(Config):
    """A critic with one value per action token, and how it is fitted."""

    kind: CriticKind = Field("model", description="A transformer of its own, or a head on the policy's.")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's peak learning rate for the critic.")
    loss: Annotated[str, CRITIC_LOSSES] = Field("squared", description="Of its values; or a loss of one's own.")
    loss_options: dict[str, Any] = Field({}, description="Arguments of a loss of one's own.")

    only_for: ClassVar[Readers] = {"loss_options": {"loss": (OWN,)}}
