"""The sections that the recipes of outcome models share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Readers


class JudgeModel(Config):
    """The model that becomes a judge of outcomes."""

    path: str = Field("smollm2", description="`smollm2` (embedded), a Hugging Face folder, or `tiny` (random).")
    tiny_hidden: int = Field(64, ge=32, description="tiny: hidden size.")
    tiny_layers: int = Field(2, ge=1, description="tiny: number of layers.")

    only_for: ClassVar[Readers] = {name: {"path": ("tiny",)} for name in ("tiny_hidden", "tiny_layers")}


class JudgedData(Config):
    """What a judge of outcomes is shown of a stored episode, and how much of it is kept for its own test."""

    held_out_frac: float = Field(0.2, gt=0, lt=1, description="Share of trajectories held out for the report.")
    max_actions: int = Field(50, ge=1, description="Number of latest actions shown in the prompt.")


class JudgeFit(Config):
    """How a judge of outcomes is trained."""

    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate.")
    batch_size: int = Field(16, ge=1, description="Number of episodes (or pairs) per optimiser step.")
    epochs: float = Field(4.0, gt=0, description="Passes over the training episodes.")
    max_steps: int = Field(-1, description="Number of optimiser steps, in place of epochs; -1 = use epochs.")
    max_minutes: float = Field(0.0, ge=0, description="Stop training after this many minutes; 0 = no limit.")
    max_length: int = Field(
        1024, ge=64, description="Maximum length of a prompt in tokens; the state is cut first, then old actions."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Data type of the computation; weights stay in fp32."
    )
