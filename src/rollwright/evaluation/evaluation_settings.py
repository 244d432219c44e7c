"""The section `evaluation`: judging on held-out start states."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Limits


class EvaluationSettings(Config):
    """Judging on held-out start states."""

    split: Literal["validation", "test"] = Field("validation", description="Tune on validation; report test once.")
    seeds_per_task: int = Field(20, ge=1, description="Start states per task.")
    attempts: int = Field(1, ge=1, description="Episodes per start state; above 1 gives pass@k.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 = greedy.")
    max_turns: int = Field(0, ge=0, description="Maximum number of turns per episode; 0 = the same as in the rollouts.")
    every: int = Field(0, ge=0, description="Steps between evaluations; 0 = only at the end.")
    at_start: bool = Field(False, description="Also evaluate before the first step.")

    limits: ClassVar[Limits] = dict.fromkeys(
        ("seeds_per_task", "attempts", "max_turns"), (1_000_000, "all episodes are held in memory")
    )
