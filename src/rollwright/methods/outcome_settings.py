"""The sections that the recipes of outcome models share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Readers


class JudgeModel(Config):
    """The model that becomes a judge of outcomes."""

    path: str = Field("smollm2", description="`smollm2` (embedded), a Hugging Face folder, or `tiny` (random).")
    tiny_hidden: int = Field(64, ge=32, description="tiny: width.")
    tiny_layers: int = Field(2, ge=1, description="tiny: layers.")

    only_for: ClassVar[Readers] = {name: {"path": ("tiny",)} for name in ("tiny_hidden", "tiny_layers")}


class JudgedData(Config):
    """What a judge of outcomes is shown of a stored episode, and how much of it is kept for its own test."""

    held_out_frac: float = Field(0.2, gt=0, lt=1, description="Share of trajectories that only the report sees.")
    max_actions: int = Field(50, ge=1, description="Latest actions that are shown.")


class JudgeFit(Config):
    """How a judge of outcomes is trained."""

    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate.")
    batch_size: int = Field(16, ge=1, description="Episodes (or pairs) per optimiser step.")
    epochs: float = Field(4.0, gt=0, description="Passes over the training episodes.")
    max_steps: int = Field(-1, description="Optimiser steps in place of epochs; -1 = by epochs.")
    max_minutes: float = Field(0.0, ge=0, description="Stop after so many minutes of training; 0 = no limit.")
    max_length: int = Field(1024, ge=64, description="Tokens of a prompt; the state, then old actions are cut.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Compute type; weights stay fp32.")
