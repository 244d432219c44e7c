"""Replay: random access to the turns of a trajectory store, views over them, and samplers whose state is saved.

The store stays the only truth. `TurnTable` lays an index of plain arrays beside it, which is memory-mapped and can be
deleted at any time; a view is an array of turn numbers; a sampler draws from views.
"""

from rollwright.store.replay.replay_sampler import ReplaySampler
from rollwright.store.replay.replay_settings import OnlineReplaySettings, ReplaySettings
from rollwright.store.replay.replay_table import Transition, TurnTable
from rollwright.store.replay.replay_views import (
    above,
    best_trajectories,
    cap_relative,
    in_perplexity_band,
    keep_trajectories,
    latest_per_task,
    mixed_places,
    top_trajectories,
    valid_turns,
)

__all__ = [
    "OnlineReplaySettings",
    "ReplaySampler",
    "ReplaySettings",
    "Transition",
    "TurnTable",
    "above",
    "best_trajectories",
    "cap_relative",
    "in_perplexity_band",
    "keep_trajectories",
    "latest_per_task",
    "mixed_places",
    "top_trajectories",
    "valid_turns",
]
