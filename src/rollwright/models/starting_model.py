"""The model that a run starts from: its section, its folder, its tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from rollwright.config import Config, Limits, Readers
from rollwright.contracts import ConfigError, SmallLanguage, World
from rollwright.models.chat_template import day_of_run, keep_day
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_tokenizer, resolve_model
from rollwright.models.tiny_model import make_tiny_model

TINY = "tiny"
"""The value of `model.path` for a model that the run makes itself."""


class ModelSettings(Config):
    """The policy."""

    path: str = Field("smollm2", description="`smollm2` (embedded), a Hugging Face folder, or `tiny` (random).")
    lora_rank: int = Field(0, ge=0, description="Rank of the LoRA adapters to train; 0 = train all weights.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the LoRA adapters during updates.")
    tiny_hidden: int = Field(128, ge=32, description="tiny: hidden size.")
    tiny_layers: int = Field(2, ge=1, description="tiny: number of layers.")
    tiny_context: int = Field(1024, ge=32, description="tiny: maximum sequence length, in tokens.")
    tiny_seed: int = Field(0, ge=0, description="tiny: seed of the initial weights.")

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


def policy_folder(settings: ModelSettings, world: World, run_folder: Path) -> Path:
    """The folder of the starting policy; `tiny` is made once per run, from the world's own language.

    Raises:
        ConfigError: `tiny` is asked of a world that does not list its language.
    """
    if settings.path != TINY:
        return resolve_model(settings.path)
    folder = run_folder / "tiny_model"
    if not isinstance(world, SmallLanguage):
        raise ConfigError(f"model.path=tiny needs a world with `texts()`; {world.name} has none: name a model folder")
    # A run that goes on must find its own weights and ids again.
    if not (folder / "config.json").exists():
        beside = folder.with_name(f".{folder.name}.writing")  # a kill must not leave half a model behind
        make_tiny_model(
            beside,
            texts=list(world.texts()),
            hidden=settings.tiny_hidden,
            layers=settings.tiny_layers,
            context_length=settings.tiny_context,
            seed=settings.tiny_seed,
        )
        beside.rename(folder)
    return folder


def open_codec(model_folder: Path, run_folder: Path | None = None) -> ChatCodec:
    """Tokenizer and chat template of a model folder.

    Args:
        run_folder: keeps the day that a template with a date is told, so that a run resumed later gives the same
            prompts; None for a look that is no part of a run.

    Raises:
        TemplateError: the folder lacks one of them. RunFolderError: the day that was kept cannot be read.
    """
    codec = ChatCodec(load_tokenizer(model_folder), today=day_of_run(run_folder) if run_folder else None)
    if run_folder and codec.tells_day and keep_day(run_folder, codec.tells_day) != codec.tells_day:
        return open_codec(model_folder, run_folder)  # another process of the run was first, a moment before midnight
    return codec
