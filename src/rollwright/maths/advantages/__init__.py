"""Advantage estimators: pure functions from rewards (and values) to one number per trajectory, turn or action token.

Statistics are over the tensors that are given: give the global batch.
"""

from rollwright.maths.advantages.anchors import GigpoAdvantages, gigpo
from rollwright.maths.advantages.groups import dr_grpo, group_mean, grpo, opo, pass_at_k_advantages, remax, rloo
from rollwright.maths.advantages.outcomes import awr_weights, digirl, digirl_released, webrl, webrl_released
from rollwright.maths.advantages.tokens import (
    ValueAdvantages,
    bootstrap_values,
    gae,
    reinforce,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    returns_to_go,
)
from rollwright.maths.advantages.turns import bilevel_gae_v1, bilevel_gae_v2, turn_gae
from rollwright.maths.advantages.whitening import whiten

__all__ = [
    "GigpoAdvantages",
    "ValueAdvantages",
    "awr_weights",
    "bilevel_gae_v1",
    "bilevel_gae_v2",
    "bootstrap_values",
    "digirl",
    "digirl_released",
    "dr_grpo",
    "gae",
    "gigpo",
    "group_mean",
    "grpo",
    "opo",
    "pass_at_k_advantages",
    "reinforce",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
    "remax",
    "returns_to_go",
    "rloo",
    "turn_gae",
    "webrl",
    "webrl_released",
    "whiten",
]
