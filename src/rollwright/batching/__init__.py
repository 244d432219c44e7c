"""From trajectories to the tokens that a learner forwards, and back.

Lives here: the tokens of an update in columns (`token_batch`), what each action earned (`credit`), episodes of a
policy and a guide (`guided_batch`), what its tokens are
credited with (`estimators`, `value_estimators`, and `estimator_trials` for those of a user), shared prefixes and
attention along them (`prefix_tree`), packed rows (`packing`), what a
step saw of the attempts in its episodes (`attempt_metrics`).
May import: contracts, config, run_io and maths.
"""

from rollwright.batching.attempt_metrics import (
    attempt_kl_metrics,
    attempt_numbers,
    observed_attempts,
    require_reward_per_attempt,
)
from rollwright.batching.credit import (
    can_whiten,
    cost_batch,
    flatten,
    members_to_learn_from,
    policy_return,
    policy_turns,
    states_after_cuts,
    with_kl,
    with_members,
)
from rollwright.batching.estimators import ADVANTAGES, Advantage, estimator_needs, estimators_that_need
from rollwright.batching.guided_batch import GuidedBatch, flatten_guided
from rollwright.batching.packing import Layout, PackedBatch, Segment, pack, segment_of
from rollwright.batching.prefix_tree import TREE_ATTENTION, CostModel, pays_on, plan_rows
from rollwright.batching.token_batch import (
    FilteringObjective,
    TokenBatch,
    TokenLoss,
    TokenObjective,
    VocabularyObjective,
    join_batches,
)
from rollwright.batching.value_estimators import VALUE_ADVANTAGES, ValueAdvantage

__all__ = [
    "ADVANTAGES",
    "TREE_ATTENTION",
    "VALUE_ADVANTAGES",
    "Advantage",
    "CostModel",
    "FilteringObjective",
    "GuidedBatch",
    "Layout",
    "PackedBatch",
    "Segment",
    "TokenBatch",
    "TokenLoss",
    "TokenObjective",
    "ValueAdvantage",
    "VocabularyObjective",
    "attempt_kl_metrics",
    "attempt_numbers",
    "can_whiten",
    "cost_batch",
    "estimator_needs",
    "estimators_that_need",
    "flatten",
    "flatten_guided",
    "join_batches",
    "members_to_learn_from",
    "observed_attempts",
    "pack",
    "pays_on",
    "plan_rows",
    "policy_return",
    "policy_turns",
    "require_reward_per_attempt",
    "segment_of",
    "states_after_cuts",
    "with_kl",
    "with_members",
]
