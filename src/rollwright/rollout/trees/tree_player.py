"""Trees in place of episodes, for whoever collects: every path that ended becomes an episode of the ordinary store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollwright.contracts import Trajectory
from rollwright.rollout.collector import Collector
from rollwright.rollout.episode import EpisodeRequest
from rollwright.rollout.trees.grow import TreeRequest, grow_trees
from rollwright.rollout.trees.tree import StateValue
from rollwright.rollout.trees.tree_settings import SearchSettings
from rollwright.run_io import RunFacts


class TreePlayer:
    """Plays a tree for every request of a collection; each of its ended paths is an episode with a parent.

    Args:
        value: what judges states, where `settings.value` asks a model.
    """

    def __init__(
        self, collector: Collector, settings: SearchSettings, facts: RunFacts, value: StateValue | None = None
    ) -> None:
        self.collector, self.settings, self.facts, self.value = collector, settings, facts, value
        self.trees = self.tokens = self.calls = self.solved = 0

    def __call__(self, requests: Sequence[EpisodeRequest], progress: Callable[[object], None]) -> list[Trajectory]:
        """The episodes of all trees, those of one tree beside each other, its first path under the request's name."""
        wanted = [TreeRequest(key=request.key, task=request.task, seed=request.seed) for request in requests]
        found: list[Trajectory] = []
        for tree in grow_trees(self.collector, wanted, self.settings, self.value, progress):
            found += tree.trajectories()
            self.trees += 1
            self.tokens += tree.tokens
            self.calls += tree.env_calls + tree.replayed_calls
            self.solved += any(node.success for node in tree.leaves())
            # What was sampled and is on no stored path: duplicates, simulations, states that were left.
            kept = sum(len(node.turn.action_ids) for node in tree.on_ended_paths() if node.turn)
            self.facts.add(tokens_sampled=tree.tokens - kept)
        return found

    def cost(self) -> str:
        """One line: what the trees of this start cost."""
        if not self.trees:
            return ""
        spent = f"{self.trees} trees, {self.tokens:,} sampled tokens, {self.calls:,} calls of the world"
        if not self.solved:
            return f"{spent}; solved none"
        each = f"{self.tokens / self.solved:,.0f} tokens and {self.calls / self.solved:,.0f} calls per solved tree"
        return f"{spent}; solved {self.solved}: {each}"
