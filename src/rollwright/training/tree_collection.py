"""Search trees in place of a step's groups: the same tasks, seeds and names, the same gate before the first update."""

from __future__ import annotations

from collections.abc import Sequence

from rollwright.contracts import ConfigError, Group, episode_seed
from rollwright.methods import tree_group
from rollwright.rollout.trees import SearchSettings, SearchTree, StateValue, TreeRequest, grow_trees
from rollwright.run_io import Progress
from rollwright.training.loop import Training


def collect_trees(
    run: Training, step: int, settings: SearchSettings, *, value: StateValue | None = None, count: int = 0
) -> tuple[list[SearchTree], list[Group]]:
    """The trees of one step, and their ended paths as groups without a score; tasks by the curriculum.

    Run seed, step and place fix each tree, so a run that was stopped grows the same ones again.

    Args:
        count: trees; 0 = `rollout.groups_per_step`.
        value: what a state is worth, where `settings.value` asks a model.

    Raises:
        ConfigError: several processes, as one process grows a tree.
    """
    if run.learner.ranks.count > 1:
        raise ConfigError(
            f"search trees are grown by one process, and this run has {run.learner.ranks.count}: start it with one "
            "(accelerate launch --num_processes 1)"
        )
    tasks = run.curriculum.next(step, count or run.config.rollout.groups_per_step)
    seed = run.config.run.seed
    requests = [
        TreeRequest(key=f"{seed}/{step}/{place}", task=task, seed=episode_seed("train", seed, step, place))
        for place, task in enumerate(tasks)
    ]
    bar = Progress(f"step {step + 1} of {run.config.run.steps}: trees", total=len(requests))
    with run.clock.timed("time/collect_s"), bar:
        trees = grow_trees(run.collector, requests, settings, value=value, progress=lambda _: bar.advance())
    groups = [tree_group(tree) for tree in trees]
    run.check_parity(groups)
    return trees, groups


def tree_metrics(trees: Sequence[SearchTree]) -> dict[str, float]:
    """What the trees of a step cost, and how often they held a success."""
    won = [any(node.success for node in tree.leaves()) for tree in trees]
    paths = [turns for tree in trees for node in tree.leaves() if (turns := tree.turns(node.number))]
    plain = [sum(len(turn.action_ids) for turn in turns) for turns in paths]
    tokens = sum(tree.tokens for tree in trees)
    found = {
        "search/success_frac": sum(won) / len(trees),
        "search/paths_count": float(len(paths)),
        "search/tokens_count": float(tokens),
        "search/env_calls_count": float(sum(tree.env_calls for tree in trees)),
        "search/replayed_calls_count": float(sum(tree.replayed_calls for tree in trees)),
        "search/faults_count": float(sum(tree.faults for tree in trees)),
    }
    if plain and sum(plain):
        # How many plain episodes the policy could have sampled for the tokens of one tree.
        found["search/episodes_per_tree"] = tokens / len(trees) / (sum(plain) / len(plain))
    return found
