"""The mathematics: pure functions on tensors and numbers, with the paper named in each.

Lives here: sums and scans over the sequences of a flat batch (`sequences`), targets of critics (`value_targets`),
mixtures of Gaussians (`mixtures`), reward against cost (`constraints`), what losses see of guided episodes (`guided`),
rewards of restarted episodes (`restart_rewards`),
credit of repeated attempts (`attempts`), selection
and back-up in search trees (`tree_search`), values of a search's steps
(`step_values`), and three folders: `advantages`, `losses`, `statistics`.
May import: contracts and config. A function here takes values and gives values; it reads no configuration.
"""

from rollwright.maths.attempts import (
    attempt_metrics,
    attempt_returns,
    edit_ratio,
    kl_to_go,
    leave_one_out_by_attempt,
    progress_rewards,
)
from rollwright.maths.constraints import constrained_advantages, linear_dual_step, log_dual_step
from rollwright.maths.guided import GuidedMethod, GuidedMode, guided_masks, guided_mode
from rollwright.maths.mixtures import Criterion, GaussianMixture, best_mixture
from rollwright.maths.restart_rewards import margin_ranking_loss, reflection_bonus
from rollwright.maths.sequences import (
    next_in_segment,
    require_length,
    reverse_discounted_sum,
    segment_count,
    segment_mean,
    segment_sum,
)
from rollwright.maths.step_values import TerminalShare, ranking_accuracy, signed_value, terminal_shares
from rollwright.maths.tree_search import (
    best_choice,
    discounted_average,
    followed_path,
    judged_state,
    normalised_value,
    puct_scores,
    uct_scores,
    widened,
)
from rollwright.maths.value_targets import (
    Divergence,
    dual_value_loss,
    dual_weights,
    expectile_loss,
    hybrid_weights,
    lambda_returns,
    outcome_loss,
    polyak_update,
    td_target,
)

__all__ = [
    "Criterion",
    "Divergence",
    "GaussianMixture",
    "GuidedMethod",
    "GuidedMode",
    "TerminalShare",
    "attempt_metrics",
    "attempt_returns",
    "best_choice",
    "best_mixture",
    "constrained_advantages",
    "discounted_average",
    "dual_value_loss",
    "dual_weights",
    "edit_ratio",
    "expectile_loss",
    "followed_path",
    "guided_masks",
    "guided_mode",
    "hybrid_weights",
    "judged_state",
    "kl_to_go",
    "lambda_returns",
    "leave_one_out_by_attempt",
    "linear_dual_step",
    "log_dual_step",
    "margin_ranking_loss",
    "next_in_segment",
    "normalised_value",
    "outcome_loss",
    "polyak_update",
    "progress_rewards",
    "puct_scores",
    "ranking_accuracy",
    "reflection_bonus",
    "require_length",
    "reverse_discounted_sum",
    "segment_count",
    "segment_mean",
    "segment_sum",
    "signed_value",
    "td_target",
    "terminal_shares",
    "uct_scores",
    "widened",
]
