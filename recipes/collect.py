"""Collect episodes once, train on them many times: by a policy, by the world's scripted teachers, or by chance.

    play      episodes of every task of the train split
    score     them by the reward
    append    to a store, shard by shard, with a tag that says where they come from

With `search.rule` each episode becomes a tree, whose paths are stored as episodes with parents (docs/search.md).
Started again with the same settings it plays the episodes that the store lacks: those after a stop, those of a shard
that was damaged. An episode that the reward cannot score is kept, undecided, and counted at the end. Stores are what
`replay.stores` and `data.stores` of the other recipes take.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/collect.py recipes/text/maze_collect.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Readers, Unread, dump
from rollwright.contracts import Task, World, episode_seed, tasks_of
from rollwright.generation import Engine, EngineSettings
from rollwright.methods import fill_store, warn_of_undecided, worth_of_store
from rollwright.models import ChatCodec, ModelSettings
from rollwright.rollout import (
    Actor,
    Collector,
    EngineActor,
    EpisodeRequest,
    RandomActor,
    RolloutSettings,
    TeacherActor,
)
from rollwright.rollout.trees import TreePlayer, ValuedSearch, open_state_value, require_search
from rollwright.run_io import RunFolder
from rollwright.store import TrajectoryStore
from rollwright.training import (
    NO_GROUPS,
    RewardSettings,
    WorldSettings,
    announce,
    announce_next,
    open_reward,
    open_stage,
    recipe_config,
    run_recipe,
)


class CollectSettings(Config):
    """Who plays, and how much."""

    by: Literal["policy", "teacher", "random"] = Field(
        "policy", description="Who acts: the model, the world's scripted teachers, or random well-formed actions."
    )
    random_frac: float = Field(
        0.0, ge=0, le=1, description="teacher: share of actions that are replaced by random ones."
    )
    per_task: int = Field(10, ge=1, description="Number of episodes per task of the train split.")
    shard: int = Field(512, ge=1, description="Number of episodes written together; stopping loses at most these.")
    tag: str = Field("", description="Name of the source in the store; empty = the value of `by`.")

    only_for: ClassVar[Readers] = {"random_frac": {"by": ("teacher",)}}


class CollectRun(Config):
    """Where the store lies and from which seed it is filled."""

    folder: str = Field("runs/collect", description="Run folder; the store is its `trajectories`.")
    seed: int = Field(0, ge=0, description="Seed of the start states and of every sampled token.")


class CollectConfig(Config):
    """Everything a collection reads."""

    run: CollectRun = CollectRun()
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    reward: RewardSettings = RewardSettings()
    engine: EngineSettings = EngineSettings()
    rollout: RolloutSettings = RolloutSettings()
    collect: CollectSettings = CollectSettings()
    search: ValuedSearch = ValuedSearch()

    only_for: ClassVar[Readers] = {
        "search.rule": {"collect.by": ("policy",)},
        "rollout.temperature": {"search.rule": ("off",)},
    }
    unread: ClassVar[Unread] = NO_GROUPS


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(CollectConfig, argv)
    RunFolder.refuse_other_settings(
        config.run.folder,
        config=config,
        why="one store holds one kind of episode. Name another run.folder; several stores can be learned from together",
    )
    # Before the folder is opened, so that a wrong reward leaves nothing behind.
    reward = open_reward(config.reward)
    with (
        RunFolder.opened(config.run.folder, config_yaml=dump(config)) as folder,
        opened(config, folder) as (collector, codec, tasks),
    ):
        announce(config, plays=config.collect.by == "policy")
        store = TrajectoryStore(folder.trajectories)
        wanted, tag = episodes(config, collector, tasks), config.collect.tag or config.collect.by
        trees = None
        if config.search.on:
            value = open_state_value(config.search, codec, reward)
            trees = TreePlayer(collector, config.search, folder.facts, value)
        fill_store(store, wanted, collector, reward, folder.facts, shard=config.collect.shard, tag=tag, play=trees)
    if trees and (cost := trees.cost()):
        print(cost)
    print(worth_of_store(store))
    warn_of_undecided(store, reward)
    announce_next(Path(config.run.folder))


def episodes(config: CollectConfig, collector: Collector, tasks: Sequence[Task]) -> list[EpisodeRequest]:
    """All episodes of the collection, the first of every task, then the second, and so on."""
    # Round by round over all tasks, so that a collection that was stopped holds about as much of each.
    return [
        # `fill_store` looks for this name in the store, so it is the same at every start.
        collector.request(f"{config.run.seed}/{task.id}/{index}", task, start_seed(config, task, index))
        for index in range(config.collect.per_task)
        for task in tasks
    ]


def start_seed(config: CollectConfig, task: Task, index: int) -> int:
    """The seed of an episode's start, fixed by the run's seed and the episode's place."""
    return episode_seed("train", "collect", config.run.seed, task.id, index)


@contextmanager
def opened(config: CollectConfig, folder: RunFolder) -> Iterator[tuple[Collector, ChatCodec, list[Task]]]:
    """The collector of the named source, its words and the training tasks; closed at the end."""
    with open_stage(config.world, config.model, folder.path) as stage:
        if config.search.on:
            # Before the engine loads any weight.
            require_search(stage.world, config.search)
        if config.collect.by == "policy":
            stage.open_engine(config.engine, seed=config.run.seed)
        actor = actor_of(config.collect, stage.world, stage.codec, stage.engine)
        # Teachers and chance read no context, so the limit is the one that the settings give a policy.
        length = config.engine.max_context if stage.engine is None else stage.engine.context_length
        collector = stage.open_collector(config.rollout, actor, context_length=length)
        yield collector, stage.codec, list(tasks_of(stage.world, "train"))


def actor_of(settings: CollectSettings, world: World, codec: ChatCodec, engine: Engine | None) -> Actor:
    """Who plays: the policy where there is an engine, else chance or a teacher."""
    if engine is not None:
        return EngineActor(engine)
    if settings.by == "random":
        return RandomActor(world, codec.encode_action)
    return TeacherActor(world, codec.encode_action, random_frac=settings.random_frac)


if __name__ == "__main__":
    run_recipe(main)
