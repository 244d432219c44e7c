"""The section `run`: where a run writes, how long it lives, from which seed."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Limits


class RunSettings(Config):
    """Where the run writes, how long it lasts, from which seed."""

    folder: str = Field("runs/latest", description="Run folder: config, metrics, trajectories, checkpoints, report.")
    seed: int = Field(0, ge=0, description="Seed of the task order, the start states and every sampled token.")
    steps: int = Field(
        20, ge=0, description="Number of steps; one step is collect, update and sync. All metrics are logged by step."
    )
    max_minutes: float = Field(0.0, ge=0, description="Stop cleanly after this many minutes; 0 = no limit.")
    resume: Literal["auto", "never", "must"] = Field(
        "auto",
        description="auto: continue from the folder's last checkpoint if there is one; must: stop with an "
        "error if there is none.",
    )
    checkpoint_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 = only at the end.")
    keep_checkpoints: int = Field(2, ge=1, description="Number of checkpoints kept on disk.")
    score_s: float = Field(
        600.0,
        ge=0,
        description="Time limit for scoring one batch in seconds; the run stops with an error beyond it; 0 = no limit.",
    )
    sync_s: float = Field(900.0, ge=0, description="Time limit of one weight sync, in seconds; 0 = no limit.")
    checkpoint_s: float = Field(
        1800.0, ge=0, description="Time limit for writing one checkpoint, in seconds; 0 = no limit."
    )
    parity_checks: int = Field(
        2,
        ge=0,
        description="Number of initial batches whose engine log-probs are checked against the learner's; 0 = all.",
    )
    transcripts_every: int = Field(5, ge=0, description="Steps between readable transcripts; 0 = none.")
    token_log: int = Field(
        16384,
        ge=0,
        description="Action tokens per step whose advantage, mask and log-prob difference `rollwright view` can show; "
        "0 = none.",
    )
    trackers: list[str] = Field([], description="Further sinks besides metrics.jsonl: tensorboard, trackio, wandb.")
    rank_timeout_s: float = Field(
        1800.0,
        gt=0,
        description="Several processes: seconds that one waits for the others before the run stops with an error.",
    )

    limits: ClassVar[Limits] = {"steps": (2**53, "trackers keep a step's number as a float, exact up to here")}
