"""Supervised fine-tuning by TRL's SFTTrainer on rows that are already token ids: nothing is encoded a second time."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from rollwright.config import Config
from rollwright.contracts import MissingDependency
from rollwright.models import Precision, resolve_precision
from rollwright.run_io import RunFacts, StepReport


class SftSettings(Config):
    """The optimiser of supervised fine-tuning."""

    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate.")
    batch_size: int = Field(16, ge=1, description="Number of rows per optimiser step.")
    epochs: float = Field(1.0, gt=0, description="Passes over the rows.")
    max_steps: int = Field(-1, description="Number of optimiser steps, in place of epochs; -1 = use epochs.")
    max_minutes: float = Field(0.0, ge=0, description="Stop training after this many minutes; 0 = no limit.")
    max_length: int = Field(1024, ge=16, description="Maximum length of a row in tokens; longer rows are left out.")
    precision: Precision = Field("auto", description="Data type of the computation; weights stay in fp32.")


class FitSettings(Protocol):
    """What `fit` reads of a recipe's settings; see `SftSettings` for their meaning."""

    @property
    def learning_rate(self) -> float:
        """AdamW's peak learning rate."""

    @property
    def batch_size(self) -> int:
        """Rows per optimiser step."""

    @property
    def epochs(self) -> float:
        """Passes over the rows."""

    @property
    def max_steps(self) -> int:
        """Optimiser steps in place of epochs; -1 = by epochs."""

    @property
    def max_minutes(self) -> float:
        """Minutes of training after which it stops; 0 = no limit."""

    @property
    def max_length(self) -> int:
        """Tokens that a row may have."""

    @property
    def precision(self) -> Precision:
        """Compute type; weights stay fp32."""


def require_trl(what: str) -> None:
    """Before anything is played or read: TRL, which `fit` trains with, must be there.

    Args:
        what: is trained, for the message.

    Raises:
        MissingDependency: it is not installed.
    """
    # find_spec looks without importing: TRL takes long to load.
    missing = [name for name in ("trl", "datasets") if find_spec(name) is None]
    if missing:
        raise MissingDependency(f"{what} uses TRL ({', '.join(missing)} missing): pip install 'rollwright[trl]'")


def fit(
    rows: list[dict[str, Any]],
    start: Path,
    folder: Path,
    settings: FitSettings,
    *,
    seed: int,
    name: str = "policy",
    facts: RunFacts | None = None,
) -> Path:
    """Train the model in `start` on `rows` and save it to `folder/<name>`.

    Args:
        rows: `input_ids` and `labels`, -100 where no loss is wanted.
        facts: of the run, which count the labelled tokens and the seconds of the training.

    Returns:
        The folder of the trained model.

    Raises:
        MissingDependency: TRL is not installed.
    """
    from datasets import Dataset

    from rollwright.models import load_policy

    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise MissingDependency("supervised fine-tuning uses TRL: pip install 'rollwright[trl]'") from error

    # Master weights are float32 whatever is computed in; `bf16` below is autocast.
    model, tokenizer = load_policy(start, "float32")
    arguments = SFTConfig(
        output_dir=str(folder / "sft"),
        **trainer_arguments(settings, seed=seed),
        # Rows of like length share a batch, so that little is padded.
        train_sampling_strategy="group_by_length",
        # Rows are ids already. TRL then truncates nothing either: too long a row is for the caller to leave out.
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    follow(trainer, max_minutes=settings.max_minutes)
    began = time.monotonic()
    trainer.train()
    if facts is not None:
        labelled = sum(label >= 0 for row in rows for label in row["labels"])
        # The epoch is a fraction where max_steps or max_minutes ended the training early.
        facts.add(tokens_trained=round(trainer.state.epoch * labelled), learner_s=time.monotonic() - began)
    target = folder / name
    trainer.save_model(str(target))
    tokenizer.save_pretrained(target)
    return target


def trainer_arguments(settings: FitSettings, *, seed: int) -> dict[str, Any]:
    """What every TRL trainer of ours is told alike."""
    import torch

    on_cpu = not torch.cuda.is_available()
    return {
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps,
        "lr_scheduler_type": "linear",
        "warmup_steps": 2,
        # TRL's own default is bfloat16 wherever fp16 is not set.
        "bf16": resolve_precision(settings.precision) == "bfloat16",
        "use_cpu": on_cpu,
        # Pinned memory speeds up copies to a GPU, and torch warns where there is none.
        "dataloader_pin_memory": not on_cpu,
        # TRL's own default is True, which computes every forward pass twice.
        "gradient_checkpointing": False,
        "logging_steps": 5,
        "disable_tqdm": True,  # `follow` prints a line in place of a bar
        "save_strategy": "no",
        "report_to": [],
        "seed": seed,
        "max_length": settings.max_length,
    }


def follow(trainer: Any, *, max_minutes: float = 0.0) -> None:
    """Let a trainer print the lines of our loops in place of its own, and stop after so many minutes; 0 = no limit."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_step_lines(max_minutes))
    if max_minutes:
        trainer.add_callback(_stop_after(max_minutes))


def _step_lines(max_minutes: float) -> Any:
    """A trainer callback that prints a line whenever the trainer logs: step, loss, entropy, tokens per second."""
    from transformers import TrainerCallback

    class StepLines(TrainerCallback):
        """Reads what the trainer logs; tokens are counted over the whole training."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.report = StepReport(state.max_steps, max_minutes=max_minutes)
            self.report.begin(state.global_step)
            self.tokens, self.at = 0.0, time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" not in (logs or {}):  # the summary at the end
                return
            # TRL counts from the beginning of the training; the line shows what is new since the last one.
            now, tokens = time.monotonic(), float(logs.get("num_tokens", 0.0))
            named = {"optim/loss": logs["loss"], "policy/entropy_mean": logs.get("entropy")}
            rates = {"time/step_s": now - self.at, "optim/tokens_count": tokens - self.tokens}
            self.report.step(state.global_step, named | rates)
            self.tokens, self.at = tokens, now

    return StepLines()


def _stop_after(minutes: float) -> Any:
    """A trainer callback that ends training after so many minutes of wall clock."""
    from transformers import TrainerCallback

    class StopAfter(TrainerCallback):
        """Looks at the clock after every step."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # From the first step on: loading the model does not count.
            self.end = time.monotonic() + 60 * minutes

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = control.should_training_stop or time.monotonic() > self.end

    return StopAfter()
