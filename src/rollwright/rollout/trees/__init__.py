"""Search trees over snapshots: many episodes that share their beginnings.

`tree` is the structure and hands its paths on as trajectories with parents; `tree_settings` is the section `search`;
`grow` grows many trees at once by one of the `rules`; `expansion`, `asking`, `grounds` and `valuing` are the parts of
one tree that is being grown.
"""

from rollwright.rollout.trees.grow import TreeRequest, grow_trees, require_search
from rollwright.rollout.trees.tree import BatchedStateValue, SearchTree, StateAsk, StateValue, TreeNode
from rollwright.rollout.trees.tree_settings import SearchRule, SearchSettings, ValueSource

__all__ = [
    "BatchedStateValue",
    "SearchRule",
    "SearchSettings",
    "SearchTree",
    "StateAsk",
    "StateValue",
    "TreeNode",
    "TreeRequest",
    "ValueSource",
    "grow_trees",
    "require_search",
]
