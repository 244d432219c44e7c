"""The section `run`: where a run writes, how long it lives, from which seed."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Limits


class RunSettings(Config):
    """Where the run writes, how long it lasts, from which seed."""

    folder: str = Field("runs/latest", description="Run folder: config, metrics, trajectories, checkpoints, report.")
    seed: int = Field(0, ge=0, description="Fixes task order, start states and every sampled token.")
    steps: int = Field(20, ge=0, description="Rounds of collect, update and sync: the axis of all that is logged.")
    max_minutes: float = Field(0.0, ge=0, description="Stop cleanly after so many minutes; 0 = no limit.")
    resume: Literal["auto", "never", "must"] = Field(
        "auto", description="auto: continue from the folder's last checkpoint if there is one; must: or stop."
    )
    checkpoint_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 = only at the end.")
    keep_checkpoints: int = Field(2, ge=1, description="How many checkpoints stay on disk.")
    score_s: float = Field(600.0, ge=0, description="Limit of scoring one batch, a clear stop beyond; 0 = none.")
    sync_s: float = Field(900.0, ge=0, description="Limit of one weight sync; 0 = none.")
    checkpoint_s: float = Field(1800.0, ge=0, description="Limit of writing one checkpoint; 0 = none.")
    parity_checks: int = Field(
        2, ge=0, description="So many batches, from the first, are compared with the learner's log-probs; 0 = all."
    )
    transcripts_every: int = Field(5, ge=0, description="Steps between readable transcripts; 0 = none.")
    trackers: list[str] = Field([], description="Further sinks besides metrics.jsonl: tensorboard, trackio, wandb.")
    rank_timeout_s: float = Field(
        1800.0, gt=0, description="Several processes: how long one waits for the others before the run ends."
    )

    limits: ClassVar[Limits] = {"steps": (2**53, "trackers keep a step's number as a float, exact up to here")}
