"""Proofs that a world or a reward keeps its contract, and the audit of what the reward means.

Lives here: `check_env` with the player that it uses (`env_check`, `env_player`), `check_reward` (`reward_check`), and
the audit of worlds (`audit`).
May import: methods and what stands above it.
"""

from rollwright.checks.audit.identity import async_behaviour_digest, behaviour_digest
from rollwright.checks.env_check import check_env
from rollwright.checks.reward_check import check_reward

__all__ = [
    "async_behaviour_digest",
    "behaviour_digest",
    "check_env",
    "check_reward",
]
