"""The section `model`: which weights a run starts from."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from rollwright.config import Config, Limits, Readers


class ModelSettings(Config):
    """The policy."""

    path: str = Field("smollm2", description="`smollm2` (embedded), a Hugging Face folder, or `tiny` (random).")
    lora_rank: int = Field(0, ge=0, description="Train LoRA adapters of this rank; 0 = all weights.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the LoRA adapters in updates.")
    tiny_hidden: int = Field(128, ge=32, description="tiny: width.")
    tiny_layers: int = Field(2, ge=1, description="tiny: layers.")
    tiny_context: int = Field(1024, ge=32, description="tiny: longest sequence.")
    tiny_seed: int = Field(0, ge=0, description="tiny: initial weights.")

    limits: ClassVar[Limits] = {
        "lora_rank": (2**14, "an adapter of a higher rank holds more than the weights that it stands for"),
        "tiny_hidden": (2**13, "a wider model is not tiny: it fills the memory"),
        "tiny_layers": (128, "a deeper model is not tiny: it fills the memory"),
        "tiny_context": (2**20, "its positions are all held in memory"),
    }
    only_for: ClassVar[Readers] = {
        name: {"path": ("tiny",)} for name in ("tiny_hidden", "tiny_layers", "tiny_context", "tiny_seed")
    }

    @model_validator(mode="after")
    def _dropout_is_of_an_adapter(self) -> ModelSettings:
        if self.lora_dropout and not self.lora_rank:
            raise ValueError(
                f"`lora_dropout={self.lora_dropout:g}` is for LoRA adapters, and with `lora_rank=0` there are none: "
                "set `model.lora_rank`, or `learner.dropout=true` for the dropout of the model itself"
            )
        return self
