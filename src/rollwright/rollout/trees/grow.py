"""Many trees at once, on the loop on which a collector plays episodes: the engine batches over all of them.

A tree is a function of its key, task and seed, of the settings and of the weights: what is grown beside it changes
nothing (with `rollout.schedule=rounds`, not in the last bit). It takes one of the `parallel_episodes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollwright.contracts import ConfigError, Task, World
from rollwright.rollout.actors import EngineActor
from rollwright.rollout.collector import Collector
from rollwright.rollout.rank_spread import SpreadCollector
from rollwright.rollout.trees.expansion import TreePlay
from rollwright.rollout.trees.grounds import ForkedContext
from rollwright.rollout.trees.rules import decide, grow_by_rule
from rollwright.rollout.trees.tree import SearchTree, StateValue
from rollwright.rollout.trees.tree_settings import SearchSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRequest:
    """One tree to be grown. `key` names it for ever and fixes its random draws."""

    key: str
    task: Task
    seed: int


def grow_trees(
    collector: Collector,
    requests: Sequence[TreeRequest],
    settings: SearchSettings,
    value: StateValue | None = None,
    progress: Callable[[SearchTree], None] | None = None,
    *,
    sees_verdict: bool = True,
) -> list[SearchTree]:
    """One tree per request, in order; where a start state faulted for good, its root is that fault.

    Args:
        value: what judges states, for `search.value` critic and reward_model.
        sees_verdict: false in an evaluation, where no reward and no verdict may reach the search.

    Raises:
        ConfigError: see `require_search`.
        FaultBudgetExceeded: too many paths faulted for good.
        StalledRollout: nothing moved for too long.
    """
    require_search(collector.world, settings, sees_verdict=sees_verdict)
    if (value is None) == (settings.value in ("critic", "reward_model")):
        raise ConfigError(
            f"search.value={settings.value} and the caller gave {'no value model' if value is None else value}: a "
            "model is given with `critic` and `reward_model`, and with nothing else"
        )
    if not isinstance(collector.actor, EngineActor):
        raise ConfigError(
            f"a tree samples several answers in one state, and {collector.actor.name} is no policy: grow trees with "
            "the policy alone (collect.by=policy)"
        )
    if isinstance(collector, SpreadCollector):
        raise ConfigError("trees are grown by one process: start the collection without further ranks")
    if not isinstance(collector.new_context(), ForkedContext):
        raise ConfigError(
            f"search.rule={settings.rule} needs contexts that can be copied, and this one has no `fork()`: add one, or "
            "use rollout.context=append or windowed"
        )
    return collector.together(
        [_grown(collector, request, settings, value, progress, sees_verdict) for request in requests]
    )


def require_search(world: World, settings: SearchSettings, *, sees_verdict: bool = True) -> None:
    """What can be refused before any weight is loaded.

    Raises:
        ConfigError: no rule, a world that cannot go back to a state, or an evaluation that would search with the
            task's own rewards or with nothing to search by.
    """
    if not settings.on:
        raise ConfigError("search.rule=off grows no tree: choose one of uct, puct, beam, best_of_n, lookahead")
    if world.snapshots == "none":
        raise ConfigError(
            f"search.rule={settings.rule} goes back to earlier states, and world {world.name!r} declares "
            "`snapshots = 'none'`: its episodes can only be played from the start. Use search.rule=off, or a world "
            "whose environments have `snapshot` and `restore` (docs/own_environment.md)"
        )
    if sees_verdict:
        return
    if settings.value == "rollouts":
        raise ConfigError(
            "search.value=rollouts plays on to the task's own rewards, which an evaluation must not show to what it "
            "judges: use search.value=critic or reward_model, or value=rollouts to collect data"
        )
    if settings.value == "none" and settings.rule in ("uct", "puct"):
        raise ConfigError(
            f"search.rule={settings.rule} with search.value=none searches by the task's own rewards, which an "
            "evaluation must not show to what it judges: use search.value=critic or reward_model, or search.rule=beam, "
            "best_of_n or lookahead, which can go by the policy's own probabilities"
        )


async def _grown(
    collector: Collector,
    request: TreeRequest,
    settings: SearchSettings,
    value: StateValue | None,
    progress: Callable[[SearchTree], None] | None,
    sees_verdict: bool,
) -> SearchTree:
    async with collector.slot(request.key) as status:
        tree = SearchTree(
            key=request.key,
            task=request.task,
            seed=request.seed,
            policy=collector.actor.name,
            origin=collector.actor.origin,
            world=collector.mark,
            temperature=settings.temperature,
        )
        began, sound = time.monotonic(), False
        play = TreePlay(collector, tree, settings, status, value=value, sees_verdict=sees_verdict)
        try:
            await play.open()
            await grow_by_rule(play)
            await decide(play)
            sound = True
        finally:
            await play.grounds.close(sound=sound)
        tree.wall_s = time.monotonic() - began
    for node in tree.leaves():
        collector.faults.finished(tree.trajectory(node.number))
    if progress is not None:
        progress(tree)
    return tree
