"""The section `replay`: what is learned from besides the run's own episodes."""

from __future__ import annotations

from pydantic import Field

from rollwright.config import Config


class ReplaySettings(Config):
    """What is learned from besides the run's own episodes."""

    stores: list[str] = Field([], description="Folders of stored trajectories (recipes/collect.py writes them).")


class OnlineReplaySettings(ReplaySettings):
    """What is learned from besides the run's own episodes, and what becomes of it when the run collects some."""

    warmup_turns: int = Field(
        0,
        ge=0,
        description="Number of turns to collect after the offline steps before the next update (WSRL); 0 = none.",
    )
    retain: bool = Field(
        True, description="Whether learning from `stores` continues after the offline steps; WSRL: false."
    )
