"""What can be known to go wrong before a weight is loaded and before anything is written."""

from __future__ import annotations

from rollwright.config import Config


def preflight(config: Config) -> None:
    """Hold a recipe's settings against this machine."""
