"""Evaluating a policy that searches: each start state gets a tree, and the path that the search decides for is judged.

The search sees no reward and no verdict (`sees_verdict` false); what it cost beside that path is in the row, so that
the cost of a success counts everything that was sampled and every call of the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollwright.contracts import Task, Trajectory
from rollwright.evaluation.evaluation_play import evaluate
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.evaluation.evaluation_settings import EvaluationSettings
from rollwright.evaluation.success_cost import success_cost
from rollwright.rollout import Collector, EpisodeRequest
from rollwright.rollout.trees import SearchSettings, SearchTree, StateValue, TreeRequest, grow_trees
from rollwright.run_io import Progress


def evaluate_search(
    collector: Collector,
    tasks: Sequence[Task],
    settings: EvaluationSettings,
    search: SearchSettings,
    *,
    name: str,
    value: StateValue | None = None,
) -> tuple[Evaluation, list[Trajectory]]:
    """Evaluate the collector's policy with a search on held-out start states, with a progress bar.

    Args:
        value: what judges states, for `search.value` critic and reward_model.

    Raises:
        ConfigError: the search needs the task's own rewards; see `require_search`.
    """
    # The search's own limit is the shorter one where both are set.
    limits = [turns for turns in (settings.max_turns, search.max_depth) if turns]
    search = search.model_copy(update={"max_depth": min(limits, default=0)})
    trees: dict[str, SearchTree] = {}

    def play(requests: Sequence[EpisodeRequest]) -> list[Trajectory]:
        wanted = [TreeRequest(key=request.key, task=request.task, seed=request.seed) for request in requests]
        with Progress(f"evaluation {name}: trees", total=len(wanted)) as bar:
            grown = grow_trees(collector, wanted, search, value, lambda _: bar.advance(), sees_verdict=False)
        trees.update({tree.key: tree for tree in grown})
        # Under the name of the request, so that it is paired with the same start of another evaluation.
        return [replace(tree.trajectory(tree.chosen or 0), id=tree.key) for tree in grown]

    found, played = evaluate(
        play,
        tasks,
        name=name,
        sampling=replace(collector.sampling, temperature=search.temperature),
        split=settings.split,
        seeds_per_task=settings.seeds_per_task,
        attempts=settings.attempts,
    )
    rows = tuple(_with_cost(row, trees[row.trajectory]) for row in found.rows)
    told = {"search": search.rule, "search_value": search.value, "search_simulations": search.simulations}
    return replace(found, rows=rows, sampling={**found.sampling, **told}), played


def _with_cost(row: EpisodeRow, tree: SearchTree) -> EpisodeRow:
    return replace(row, num_tokens=tree.tokens, env_calls=tree.env_calls + tree.replayed_calls)


def search_line(evaluation: Evaluation) -> str:
    """What the search cost per success, in one line; '' where nothing was judged."""
    cost = success_cost(evaluation, evaluation.scored)
    if cost is None:
        return ""
    if not cost.num_successes:
        return "search: no success to divide its cost by"
    tokens = "" if cost.tokens is None else f"{cost.tokens:,.0f} sampled tokens and "
    return f"search: {tokens}{cost.steps:,.0f} calls of the world per success, all that was tried included"
