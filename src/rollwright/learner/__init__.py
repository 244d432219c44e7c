"""A model and its optimiser: log-probs, one update, weights handed over.

Lives here: the learner (`learner`), one optimiser step (`update_step`, `optimisation`, `objective`), many ranks
(`ranks`, `zero`), the weights that an engine is given (`weights`), a critic of tokens beside the policy
(`token_critic`), a policy that stays as it is (`fixed_policy`), supervised fine-tuning (`sft`).
May import: store and what stands above it.
"""

from rollwright.learner.fixed_policy import FixedPolicy
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.optimisation import (
    Averages,
    Optimisation,
    OptimiserSettings,
    WholeOptimisation,
    adamw,
    finite_norm,
    require_finite,
    set_training,
)
from rollwright.learner.ranks import Ranks, Share, go_on_alone, open_accelerator, share
from rollwright.learner.sft import FitSettings, SftSettings, fit, require_trl, stop_after, trainer_arguments
from rollwright.learner.token_critic import CriticSettings
from rollwright.learner.weights import copied_body, gathered, hand_over
from rollwright.learner.zero import ZeroOptimisation, zero_stage

__all__ = [
    "Averages",
    "CriticSettings",
    "FitSettings",
    "FixedPolicy",
    "Learner",
    "Optimisation",
    "OptimiserSettings",
    "PolicyObjective",
    "Ranks",
    "SftSettings",
    "Share",
    "WholeOptimisation",
    "ZeroOptimisation",
    "adamw",
    "copied_body",
    "finite_norm",
    "fit",
    "gathered",
    "go_on_alone",
    "hand_over",
    "open_accelerator",
    "require_finite",
    "require_trl",
    "set_training",
    "share",
    "stop_after",
    "trainer_arguments",
    "zero_stage",
]
