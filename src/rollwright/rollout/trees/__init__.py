"""Search trees over snapshots: many episodes that share their beginnings.

`tree` is the structure and hands its paths on as trajectories with parents; `tree_settings` is the section `search`;
`grow` grows many trees at once by one of the `rules`; `expansion`, `asking`, `grounds` and `valuing` are the parts of
one tree that is being grown; `open_value` opens what judges its states, and
`tree_player` plays trees in place of episodes.
"""

from rollwright.rollout.trees.grow import TreeRequest, grow_trees, require_search
from rollwright.rollout.trees.open_value import RewardValue, ValuedSearch, open_state_value
from rollwright.rollout.trees.tree import BatchedStateValue, SearchTree, StateAsk, StateValue, TreeNode
from rollwright.rollout.trees.tree_player import TreePlayer
from rollwright.rollout.trees.tree_settings import SearchRule, SearchSettings, ValueSource

__all__ = [
    "BatchedStateValue",
    "RewardValue",
    "SearchRule",
    "SearchSettings",
    "SearchTree",
    "StateAsk",
    "StateValue",
    "TreeNode",
    "TreePlayer",
    "TreeRequest",
    "ValueSource",
    "ValuedSearch",
    "grow_trees",
    "open_state_value",
    "require_search",
]
