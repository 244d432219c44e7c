"""The sections of critics: what they read with, and how they are fitted."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from rollwright.config import OWN, Config, Readers
from rollwright.learner import CRITIC_LOSSES, CriticKind


class TurnCriticFit(Config):
    """A critic of states or actions: a model of its own beside the policy, and how it is fitted."""

    model: str = Field(
        "",
        description="Folder or hub name of another transformer that reads the text, such as RoBERTa; empty = "
        "the policy's.",
    )
    # What the heads can tell apart is then what the body tells apart already.
    frozen: bool = Field(
        False, description="Train only the heads, on the frozen starting model; each state is then read once."
    )
    depth: float = Field(
        1.0, gt=0, le=1, description="Share of the transformer's layers to keep, counted from the bottom."
    )
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate.")
    max_grad_norm: float = Field(1.0, gt=0, description="Maximum gradient norm; larger gradients are clipped.")
    updates: int = Field(5, ge=0, description="Optimiser steps per step of the run.")
    batch_size: int = Field(64, ge=1, description="Turns (or trajectories) per optimiser step.")
    width: int = Field(256, ge=0, description="Width of the heads' hidden layer; 0 = linear heads.")
    # WSRL has it in its critics, which take many updates per step (arXiv:2412.07762).
    layer_norm: bool = Field(False, description="Use layer norm in the heads; it helps with many updates per step.")


class RegressedCriticFit(TurnCriticFit):
    """The same where heads are regressed on targets, so that the error can be measured in several ways."""

    loss: Annotated[str, CRITIC_LOSSES] = Field(
        "squared", description="Loss of values against targets: the squared error, or your own loss."
    )
    loss_options: dict[str, Any] = Field({}, description="Arguments of your own loss.")

    only_for: ClassVar[Readers] = {"loss_options": {"loss": (OWN,)}}


class TokenCriticFit(Config):
    """A critic with one value per action token, and how it is fitted."""

    kind: CriticKind = Field(
        "model", description="Whether the critic has its own transformer or is a head on the policy's."
    )
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's peak learning rate for the critic.")
    loss: Annotated[str, CRITIC_LOSSES] = Field("squared", description="Loss of the critic's values, or your own loss.")
    loss_options: dict[str, Any] = Field({}, description="Arguments of your own loss.")

    only_for: ClassVar[Readers] = {"loss_options": {"loss": (OWN,)}}
