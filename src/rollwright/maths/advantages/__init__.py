"""Advantage estimators: pure functions from rewards (and values) to one number per trajectory, turn or action token.

Statistics are over the tensors that are given: give the global batch, or pass its moments to `whiten`.
"""

from rollwright.maths.advantages.anchors import GigpoAdvantages, gigpo
from rollwright.maths.advantages.groups import dr_grpo, group_mean, grpo, opo, pass_at_k_advantages, remax, rloo
from rollwright.maths.advantages.outcomes import awr_weights, digirl, digirl_released, webrl, webrl_released
from rollwright.maths.advantages.tokens import (
    ValueAdvantages,
    bootstrap_values,
    check_rewards,
    gae,
    gae_padded,
    reinforce,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    returns_to_go,
    returns_to_go_padded,
)
from rollwright.maths.advantages.turns import bilevel_gae_v1, bilevel_gae_v2, turn_gae
from rollwright.maths.advantages.whitening import Moments, combine_moments, moments_of, whiten

__all__ = [
    "GigpoAdvantages",
    "Moments",
    "ValueAdvantages",
    "awr_weights",
    "bilevel_gae_v1",
    "bilevel_gae_v2",
    "bootstrap_values",
    "check_rewards",
    "combine_moments",
    "digirl",
    "digirl_released",
    "dr_grpo",
    "gae",
    "gae_padded",
    "gigpo",
    "group_mean",
    "grpo",
    "moments_of",
    "opo",
    "pass_at_k_advantages",
    "reinforce",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
    "remax",
    "returns_to_go",
    "returns_to_go_padded",
    "rloo",
    "turn_gae",
    "webrl",
    "webrl_released",
    "whiten",
]
