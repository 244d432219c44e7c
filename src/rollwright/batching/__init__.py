"""From trajectories to the tokens that a learner forwards, and back.

Lives here: what each action earned and what its tokens are credited with (`credit`), shared prefixes (`prefix_tree`),
packed rows (`packing`), attention along a tree (`tree_attention`), one column per property of a token
(`token_record`).
May import: contracts, config, run_io and maths.
"""

from rollwright.batching.credit import (
    NEEDS_SIBLINGS,
    FlatBatch,
    GroupEstimator,
    ValueEstimator,
    can_whiten,
    flat_tokens,
    flatten,
    group_advantages,
    members_to_learn_from,
    policy_return,
    policy_turns,
    states_after_cuts,
    to_segments,
    value_advantages,
    with_kl,
    with_members,
)
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

__all__ = [
    "NEEDS_SIBLINGS",
    "TREE_ATTENTION",
    "CostModel",
    "FilteringObjective",
    "FlatBatch",
    "FlatTokens",
    "GroupEstimator",
    "Layout",
    "PackedBatch",
    "Segment",
    "TokenLoss",
    "TokenObjective",
    "TokenRecord",
    "ValueEstimator",
    "can_whiten",
    "flat_tokens",
    "flatten",
    "group_advantages",
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
    "value_advantages",
    "with_kl",
    "with_members",
]
