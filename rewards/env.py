"""The environment's own rewards, taken as they are."""

from __future__ import annotations

from rollwright.contracts import EnvReward


def build() -> EnvReward:
    """Each turn keeps what the environment paid for it."""
    return EnvReward()
