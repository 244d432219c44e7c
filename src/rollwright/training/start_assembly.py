"""From a run's settings to the states where its episodes begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rollwright.contracts import ConfigError, Group, Task, Taught, World, episode_seed
from rollwright.curriculum import StartPool, UniformCurriculum
from rollwright.rollout import Collector, GroupRequest, TeacherActor
from rollwright.training.loop_config import LoopConfig

if TYPE_CHECKING:
    from rollwright.learner import Ranks
    from rollwright.models import ChatCodec


def open_starts(config: LoopConfig, world: World, ranks: Ranks) -> StartPool | None:
    """The waypoints of a run, where groups may begin at some.

    Raises:
        ConfigError: the world can neither restore nor repeat an episode, or has no teacher to leave snapshots.
    """
    settings = config.starts
    if settings.name == "initial":
        return None
    if world.snapshots == "none":
        raise ConfigError(f"starts=snapshots: {world.name} has no snapshots, its episodes can only begin at the start")
    if settings.source == "teacher" and not isinstance(world, Taught):
        raise ConfigError(f"starts.source=teacher: {world.name} has no teachers; use starts.source=own")
    horizon = config.rollout.max_turns or world.max_turns
    return StartPool(settings, seed=config.run.seed, horizon=horizon, writes=ranks.first)


def taught_groups(config: LoopConfig, collector: Collector, codec: ChatCodec, tasks: Sequence[Task]) -> list[Group]:
    """Episodes of the world's teacher whose states the policy may begin at; tasks in shuffled passes, as it has them.

    Raises:
        ConfigError: no training task has a teacher.
    """
    teacher = TeacherActor(collector.world, codec.encode_action)
    taught = [task for task in tasks if teacher.world.teacher(task) is not None]
    if not taught:
        raise ConfigError(f"starts.source=teacher: no training task of {collector.world.name} has a teacher")
    settings, seed = config.starts, config.run.seed
    chosen = UniformCurriculum(taught, seed=seed).next(0, settings.episodes)
    requests = [
        GroupRequest(
            key=f"{seed}/teacher/{index}",
            task=task,
            seed=episode_seed("train", seed, "teacher", index),
            size=1,
            waypoint_every=settings.every,
        )
        for index, task in enumerate(chosen)
    ]
    return collector.collect_by(teacher, requests)
