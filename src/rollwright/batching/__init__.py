"""From trajectories to the tokens that a learner forwards, and back.

Lives here: what each action earned (`credit`), what its tokens are credited with (`estimators`, `value_estimators`, and
`estimator_trials` for those of a user), shared prefixes (`prefix_tree`), packed rows (`packing`), attention along a
tree (`tree_attention`), one column per property of a token (`token_record`).
May import: contracts, config, run_io and maths.
"""

from rollwright.batching.credit import (
    FlatBatch,
    can_whiten,
    flat_tokens,
    flatten,
    members_to_learn_from,
    policy_return,
    policy_turns,
    states_after_cuts,
    to_segments,
    with_kl,
    with_members,
)
from rollwright.batching.estimators import ADVANTAGES, Advantage, estimator_needs, estimators_that_need
from rollwright.batching.packing import Layout, PackedBatch, Segment, pack, segment_of
from rollwright.batching.prefix_tree import CostModel
from rollwright.batching.token_record import (
    FilteringObjective,
    FlatTokens,
    TokenLoss,
    TokenObjective,
    TokenRecord,
    token_columns,
)
from rollwright.batching.tree_attention import TREE_ATTENTION, pays_on, plan_rows
from rollwright.batching.value_estimators import VALUE_ADVANTAGES, ValueAdvantage

__all__ = [
    "ADVANTAGES",
    "TREE_ATTENTION",
    "VALUE_ADVANTAGES",
    "Advantage",
    "CostModel",
    "FilteringObjective",
    "FlatBatch",
    "FlatTokens",
    "Layout",
    "PackedBatch",
    "Segment",
    "TokenLoss",
    "TokenObjective",
    "TokenRecord",
    "ValueAdvantage",
    "can_whiten",
    "estimator_needs",
    "estimators_that_need",
    "flat_tokens",
    "flatten",
    "members_to_learn_from",
    "pack",
    "pays_on",
    "plan_rows",
    "policy_return",
    "policy_turns",
    "segment_of",
    "states_after_cuts",
    "to_segments",
    "token_columns",
    "with_kl",
    "with_members",
]
