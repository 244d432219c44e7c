"""A model and its optimiser: log-probs, one update, weights handed over.

Lives here: the section `learner` and the keys of a policy's loss (`learner_settings`), published methods that set them
(`method_presets`), the learner (`learner`), one optimiser step (`update_step`, `optimisation`), what is minimised
(`objective`, `policy_losses`), a limit on what episodes cost (`multiplier`), many ranks (`ranks`, `zero`), the weights
that an engine is given (`weights`), a critic of tokens beside the policy (`token_critic`), what an update notes of its
tokens (`token_notes`), a policy that stays as it is (`fixed_policy`), a teacher that scores by prompts of its own and
the loss towards its distributions (`frozen_teacher`, `teacher_objective`), the model of a KL over several stages
(`base_model`), supervised fine-tuning (`sft`).
May import: store and what stands above it.
"""

from rollwright.learner.base_model import open_base, require_stage_base
from rollwright.learner.fixed_policy import FixedPolicy
from rollwright.learner.frozen_teacher import (
    FrozenTeacher,
    require_same_vocabulary,
    require_same_width,
)
from rollwright.learner.learner import Learner
from rollwright.learner.learner_settings import LearnerSettings, PolicyLossSettings
from rollwright.learner.method_presets import METHODS, MethodChoice, method_name
from rollwright.learner.multiplier import ConstraintSettings, Multiplier
from rollwright.learner.objective import PolicyObjective, objective_of
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
from rollwright.learner.policy_losses import LOSSES, Ppo, Reinforce, TokenPolicyLoss
from rollwright.learner.ranks import Ranks, Share, go_on_alone, open_accelerator, share
from rollwright.learner.sft import FitSettings, SftSettings, fit, follow, require_trl, trainer_arguments
from rollwright.learner.teacher_objective import TeacherObjective
from rollwright.learner.token_critic import CRITIC_LOSSES, CriticKind, CriticLoss, CriticSettings, Squared, TokenCritic
from rollwright.learner.token_notes import TokenNotes, TokenTap
from rollwright.learner.weights import copied_body, gathered, hand_over
from rollwright.learner.zero import ZeroOptimisation, zero_stage

__all__ = [
    "CRITIC_LOSSES",
    "LOSSES",
    "METHODS",
    "Averages",
    "ConstraintSettings",
    "CriticKind",
    "CriticLoss",
    "CriticSettings",
    "FitSettings",
    "FixedPolicy",
    "FrozenTeacher",
    "Learner",
    "LearnerSettings",
    "MethodChoice",
    "Multiplier",
    "Optimisation",
    "OptimiserSettings",
    "PolicyLossSettings",
    "PolicyObjective",
    "Ppo",
    "Ranks",
    "Reinforce",
    "SftSettings",
    "Share",
    "Squared",
    "TeacherObjective",
    "TokenCritic",
    "TokenNotes",
    "TokenPolicyLoss",
    "TokenTap",
    "WholeOptimisation",
    "ZeroOptimisation",
    "adamw",
    "copied_body",
    "finite_norm",
    "fit",
    "follow",
    "gathered",
    "go_on_alone",
    "hand_over",
    "method_name",
    "objective_of",
    "open_accelerator",
    "open_base",
    "require_finite",
    "require_same_vocabulary",
    "require_same_width",
    "require_stage_base",
    "require_trl",
    "set_training",
    "share",
    "trainer_arguments",
    "zero_stage",
]
