"""Proofs that a world or a reward keeps its contract.

Lives here: `check_env` with the player that it uses (`env_check`, `env_player`), and `check_reward` (`reward_check`).
May import: methods and what stands above it.
"""

from rollwright.checks.env_check import check_env
from rollwright.checks.reward_check import check_reward

__all__ = [
    "check_env",
    "check_reward",
]
