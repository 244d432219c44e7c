"""Search trees over snapshots: many episodes that share their beginnings.

`tree` is the structure and hands its paths on as trajectories with parents; `tree_settings` is the section `search`.
"""

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
    "ValueSource",
]
