"""Agent-R: search the training tasks, turn bad paths into revisions, imitate them, and search again.

    for each round:
        search    one tree per task, by the policy as it stands
        pair      two leaves of a tree, the better one good enough (alpha) and better by more than beta
        cut       the worse leaf after its first bad action
        splice    what it did up to there, a revision message, and what the better leaf did since they parted
        update    -log pi of the message and of the better leaf's actions, and of good leaves as a whole
        sync      the engine to the new weights; alpha rises from round to round

A step of the run is a round. The bad actions are context: they are read and never learned. The records and the trees
lie in the run's store. A round without a pair imitates good leaves alone: filtered behaviour cloning on
searched episodes. Source: arXiv:2501.11425; see docs/methods/agent_r.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/agent_r.py recipes/text/household_agent.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from rollwright.config import Unread
from rollwright.contracts import DataError, Group, Trajectory, episode_seed
from rollwright.learner import go_on_alone
from rollwright.methods import (
    RevisionSettings,
    general_lessons,
    imitate_lessons,
    nothing_to_imitate,
    open_builder,
    require_disjoint,
    require_revisable,
    round_alpha,
)
from rollwright.rollout.trees import SearchRule, SearchSettings, SearchTree, TreeRequest, grow_trees, require_search
from rollwright.store import data_checks
from rollwright.store.replay import ReplaySettings, TurnTable
from rollwright.training import (
    OWN_UPDATES,
    LoopConfig,
    Training,
    close_play,
    open_world,
    plan_text,
    recipe_config,
    run_recipe,
)

log = logging.getLogger(__name__)


class AlgorithmSettings(RevisionSettings):
    """The data of a round, and how they are imitated."""

    good_leaves: bool = Field(True, description="Imitate good leaves as a whole, besides the revisions.")
    general_frac: float = Field(
        0.0, ge=0, lt=1, description="Share of turns drawn from `replay.stores`, so that other abilities stay."
    )
    epochs: int = Field(3, ge=1, description="Passes over a round's turns.")
    batch_size: int = Field(64, ge=1, description="Number of turns per optimiser step.")


class TreeSettings(SearchSettings):
    """How a round searches: by Agent-R's own rule, where no other is named."""

    rule: SearchRule = Field("uct", description="How a tree is grown; see docs/search.md. Agent-R: uct.")


class AgentRConfig(LoopConfig):
    """Everything an Agent-R run reads."""

    search: TreeSettings = TreeSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    replay: ReplaySettings = ReplaySettings()

    unread: ClassVar[Unread] = {
        **OWN_UPDATES,
        "rollout.group_size": "search.children says how often one state is acted from",
        "rollout.max_staleness": "a search waits for its tree",
        "starts": "every tree begins at its task's own start",
        "run.parity_checks": "imitation takes no ratio to what was sampled",
    }

    @model_validator(mode="after")
    def _stores_are_mixed_in(self) -> AgentRConfig:
        if bool(self.algorithm.general_frac) != bool(self.replay.stores):
            raise ValueError(
                f"`algorithm.general_frac={self.algorithm.general_frac:g}` is the share of turns from `replay.stores`, "
                f"which are {self.replay.stores}: set both, or none"
            )
        return self


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(AgentRConfig, argv, plan=plan_text)
    # A search is grown by one process.
    if not go_on_alone("Agent-R"):
        return
    require_world(config)
    algorithm, seed = config.algorithm, config.run.seed
    with Training.start(config) as run:
        require_disjoint(run.tasks)
        builder = open_builder(
            algorithm, config.rollout, run.collector, engine=run.engine, codec=run.codec, reward=run.reward
        )
        general = general_turns(run, config)
        for step in run.steps():
            alpha = round_alpha(algorithm.alphas, step)
            trees = search(run, config, step)
            groups = run.score([family_of(tree) for tree in trees])
            found = builder.build(groups, alpha=alpha, key=f"{seed}/{step}")
            # The trees first: a record names the leaf of a tree that it left.
            run.remember(step, [*groups, *map(alone, found.records)])
            told = found.metrics | search_metrics(trees)
            lessons = found.lessons(good=algorithm.good_leaves)
            if not lessons:
                refuse_or_warn(step, nothing_to_imitate(found, alpha=alpha, trees=len(trees)))
                run.finish(step, groups, told | {"optim/skipped_count": 1.0})
                continue
            with run.learning():
                draws = np.random.default_rng([seed, step])
                lessons += general_lessons(general, algorithm.general_frac, len(lessons), draws)
                epochs, size = algorithm.epochs, algorithm.batch_size
                metrics = imitate_lessons(run.learner, lessons, epochs=epochs, batch_size=size, draws=draws)
            run.sync()
            run.finish(step, groups, told | {"revisions/lessons_count": float(len(lessons))} | metrics)


def search(run: Training, config: AgentRConfig, step: int) -> list[SearchTree]:
    """One tree for each task that the curriculum chooses for this round."""
    seed = config.run.seed
    tasks = run.curriculum.next(step, config.rollout.groups_per_step)
    requests = [
        TreeRequest(key=f"{seed}/{step}/{index}", task=task, seed=episode_seed("train", seed, step, index))
        for index, task in enumerate(tasks)
    ]
    with run.clock.timed("time/collect_s"):
        return grow_trees(run.collector, requests, config.search)


def family_of(tree: SearchTree) -> Group:
    """The ended paths of a tree, which began in one state."""
    return Group(id=tree.key, task=tree.task, seed=tree.seed, trajectories=tuple(tree.trajectories()))


def alone(record: Trajectory) -> Group:
    """A record as a group of its own."""
    return Group(id=record.id, task=record.task, seed=record.seed, trajectories=(record,))


def search_metrics(trees: Sequence[SearchTree]) -> dict[str, float]:
    """What the trees of a round have cost."""
    return {
        "revisions/search_calls_count": float(sum(tree.env_calls + tree.replayed_calls for tree in trees)),
        "revisions/search_tokens_count": float(sum(tree.tokens for tree in trees)),
    }


def general_turns(run: Training, config: AgentRConfig) -> TurnTable | None:
    """The stored turns that are mixed in; None without stores."""
    if not config.replay.stores:
        return None
    table = TurnTable(*config.replay.stores)
    data_checks.require_own_tokens(config.replay.stores, table, run.codec, run.learner.policy)
    return table


def refuse_or_warn(step: int, told: str) -> None:
    """Nothing can be learned in this round. Raises DataError in the first one: the run has learned nothing yet."""
    if step == 0:
        raise DataError(f"round 1: {told}")
    log.warning("round %d is left out: %s", step + 1, told)


def require_world(config: AgentRConfig) -> None:
    """Raises ConfigError, before any weight is loaded, where the world or the context cannot do what is asked."""
    world = open_world(config.world)
    try:
        require_search(world, config.search)
        require_revisable(config.algorithm, world, config.rollout)
    finally:
        close_play(world, None, None)


if __name__ == "__main__":
    run_recipe(main)
