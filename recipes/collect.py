"""Collect episodes once, train on them many times: by a policy, by the world's scripted teachers, or by chance.

    play      episodes of every task of the train split
    score     them by the reward
    append    to a store, shard by shard, with a tag that says where they come from

Started again with the same settings it goes on where it stopped. Stores are what `replay.stores` and `data.stores` of
the other recipes take.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/collect.py recipes/text/maze_collect.yaml
"""

from __future__ import annotations

from rollwright.generation.launch_env import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import ClassVar, Literal  # noqa: E402

from pydantic import Field  # noqa: E402

from rollwright.assembly import (  # noqa: E402
    close_play,
    open_codec,
    open_collector,
    open_engine,
    open_reward,
    open_world,
    policy_folder,
)
from rollwright.codec import ChatCodec  # noqa: E402
from rollwright.config import Config, Readers, dump, load_config  # noqa: E402
from rollwright.env import World, episode_seed  # noqa: E402
from rollwright.generation.base import Engine  # noqa: E402
from rollwright.progress import Progress  # noqa: E402
from rollwright.reward import score_group  # noqa: E402
from rollwright.rollout import Actor, Collector, EngineActor, FaultLog, RandomActor, TeacherActor  # noqa: E402
from rollwright.settings import EngineSettings, ModelSettings, RewardSettings, RolloutSettings, WorldSettings  # noqa: E402
from rollwright.store import TrajectoryStore  # noqa: E402
from rollwright.tracking import RunFolder  # noqa: E402
from rollwright.types import Group, Task, Trajectory  # noqa: E402


class CollectSettings(Config):
    """Who plays, and how much."""

    by: Literal["policy", "teacher", "random"] = Field(
        "policy", description="The model, the world's scripted teachers, or its well-formed actions by chance."
    )
    random_frac: float = Field(0.0, ge=0, le=1, description="teacher: share of the actions drawn at random instead.")
    per_task: int = Field(10, ge=1, description="Episodes of every task of the train split.")
    shard: int = Field(512, ge=1, description="Episodes that are written together; a stop loses at most these.")
    tag: str = Field("", description="Name of the source in the store; empty = the value of `by`.")

    only_for: ClassVar[Readers] = {"random_frac": {"by": ("teacher",)}}


class CollectRun(Config):
    """Where the store lies and from which seed it is filled."""

    folder: str = Field("runs/collect", description="Run folder; the store is its `trajectories`.")
    seed: int = Field(0, ge=0, description="Fixes start states and every sampled token.")


class CollectConfig(Config):
    """Everything a collection reads."""

    run: CollectRun = CollectRun()
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    reward: RewardSettings = RewardSettings()
    engine: EngineSettings = EngineSettings()
    rollout: RolloutSettings = RolloutSettings()
    collect: CollectSettings = CollectSettings()


def main(argv: list[str] | None = None) -> None:
    config = load_config(CollectConfig, sys.argv[1:] if argv is None else argv)
    RunFolder.refuse_other_settings(
        config.run.folder,
        config=config,
        why="one store holds one kind of episode. Name another run.folder; several stores can be learned from together",
    )
    settings, reward = config.collect, open_reward(config.reward)
    with opened(config) as (collector, tasks, folder):
        store = TrajectoryStore(folder.trajectories)
        wanted = [(task, index) for index in range(settings.per_task) for task in tasks]
        for start in range(len(store), len(wanted), settings.shard):
            part = wanted[start : start + settings.shard]
            requests = [
                collector.request(f"{config.run.seed}/{task.id}/{index}", task, start_seed(config, task, index))
                for task, index in part
            ]
            with Progress(f"episodes from {start} of {len(wanted)}", total=len(requests)) as bar:
                played = collector.play(requests, progress=lambda _, bar=bar: bar.advance())  # type: ignore[misc]
            store.append([scored(t, reward) for t in played], tag=settings.tag or settings.by)
        print(summary(store))


def start_seed(config: CollectConfig, task: Task, index: int) -> int:
    return episode_seed("train", "collect", config.run.seed, task.id, index)


@contextmanager
def opened(config: CollectConfig) -> Iterator[tuple[Collector, list[Task], RunFolder]]:
    """The collector of the named source, the training tasks, and the run folder; closed at the end."""
    folder = RunFolder.create(config.run.folder, config_yaml=dump(config))
    world = open_world(config.world)
    collector = engine = None
    try:
        model_folder = policy_folder(config.model, world, folder.path)
        codec = open_codec(model_folder)
        if config.collect.by == "policy":
            engine = open_engine(config.engine, model_folder, codec, seed=config.run.seed, run_folder=folder.path)
        actor = actor_of(config.collect, world, codec, engine)
        faults = FaultLog(folder.faults, max_frac=config.rollout.max_fault_frac)
        faults.watch(engine)
        collector = open_collector(
            config.rollout,
            world,
            actor,
            codec,
            context_length=config.engine.max_context if engine is None else engine.context_length,
            faults=faults,
        )
        yield collector, list(world.tasks("train")), folder
    finally:
        close_play(world, collector, engine)


def actor_of(settings: CollectSettings, world: World, codec: ChatCodec, engine: Engine | None) -> Actor:
    """Who plays: the policy where there is an engine, else chance or a teacher."""
    if engine is not None:
        return EngineActor(engine)
    if settings.by == "random":
        return RandomActor(world, codec.encode_action)
    return TeacherActor(world, codec.encode_action, random_frac=settings.random_frac)


def scored(trajectory: Trajectory, reward: object) -> Trajectory:
    """The episode with its reward laid on the turns; a group of its own, as nothing here compares siblings."""
    group = Group(id=trajectory.id, task=trajectory.task, seed=trajectory.seed, trajectories=(trajectory,))
    return score_group(group, reward).trajectories[0]  # type: ignore[arg-type]


def summary(store: TrajectoryStore) -> str:
    """One line: how many, how good."""
    rows = [row for _, row in store.headers()]
    judged = [row["success"] for row in rows if row["success"] is not None]
    mean = sum(row["total_reward"] for row in rows) / max(1, len(rows))
    success = f", success {sum(judged) / len(judged):.3f}" if judged else ""
    return f"{len(rows)} episodes, {store.turn_count} turns, mean return {mean:.3f}{success}: {Path(store.folder)}"


if __name__ == "__main__":
    main()
