"""Start states of a run: what is refused before any weight is loaded, and what is filled before the first step."""

from __future__ import annotations

from collections.abc import Sequence

from rollwright.contracts import ConfigError, Group, Task, Taught, World, WorldMark, episode_seed
from rollwright.curriculum.curriculum_settings import StartSettings
from rollwright.curriculum.samplers import UniformCurriculum
from rollwright.curriculum.starts import StartPool
from rollwright.models import ChatCodec
from rollwright.rollout import Collector, GroupRequest, RolloutSettings, TeacherActor


def open_starts(
    settings: StartSettings,
    world: World,
    rollout: RolloutSettings,
    *,
    seed: int,
    writes: bool = True,
    mark: WorldMark | None = None,
) -> StartPool | None:
    """The start states of a run, where groups may begin elsewhere than at their task's initial state.

    Raises:
        ConfigError: the world can neither restore nor repeat an episode, nobody can guide in it, or the guide would
            have to play while the policy's own episodes are under way.
    """
    if settings.name == "initial":
        return None
    if world.snapshots == "none":
        raise ConfigError(
            f"starts={settings.name}: {world.name} has no snapshots, its episodes can only begin at the start"
        )
    if settings.name == "snapshots" and settings.source == "teacher" and not isinstance(world, Taught):
        raise ConfigError(f"starts.source=teacher: {world.name} has no teachers; use starts.source=own")
    if settings.name == "guide_prefix":
        _require_guide(world, rollout)
    # 0 leaves the limit to the world.
    horizon = rollout.max_turns or world.max_turns
    return StartPool(settings, seed=seed, horizon=horizon, writes=writes, mark=mark)


def _require_guide(world: World, rollout: RolloutSettings) -> None:
    if not isinstance(world, Taught):
        raise ConfigError(
            f"starts=guide_prefix: the guide is the world's teacher, and {world.name} has none: use starts=snapshots "
            "with starts.source=own, or give the world `teacher(task)`"
        )
    if not any(has_teacher(world, task) for task in world.tasks("train")):
        raise ConfigError(f"starts=guide_prefix: no training task of {world.name} has a teacher: use starts=snapshots")
    if rollout.max_staleness:
        raise ConfigError(
            f"starts=guide_prefix: the guide plays before each step's episodes, and rollout.max_staleness="
            f"{rollout.max_staleness} keeps episodes under way all the time: use rollout.max_staleness=0"
        )


def has_teacher(world: World, task: Task) -> bool:
    """Whether somebody in this world can play the task."""
    return isinstance(world, Taught) and world.teacher(task) is not None


def taught_groups(
    settings: StartSettings, collector: Collector, codec: ChatCodec, tasks: Sequence[Task], *, seed: int
) -> list[Group]:
    """Episodes of the world's teacher whose states the policy may begin at; tasks in shuffled passes, as it has them.

    Raises:
        ConfigError: no training task has a teacher.
    """
    teacher = TeacherActor(collector.world, codec.encode_action)
    taught = [task for task in tasks if has_teacher(collector.world, task)]
    if not taught:
        raise ConfigError(f"starts.source=teacher: no training task of {collector.world.name} has a teacher")
    chosen = UniformCurriculum(taught, seed=seed).next(0, settings.episodes)
    requests = [
        GroupRequest(
            key=f"{seed}/teacher/{index}",
            task=task,
            # The word keeps these start states apart from those of the training steps.
            seed=episode_seed("train", seed, "teacher", index),
            size=1,
            waypoint_every=settings.every,
        )
        for index, task in enumerate(chosen)
    ]
    return collector.collect_by(teacher, requests)


def reflection_ids(settings: StartSettings, codec: ChatCodec) -> list[tuple[int, ...]]:
    """`starts.reflections` as token ids; none where the run's kind of start forces nothing.

    Raises:
        ConfigError: a text has no token, or one that ends the action before it began.
    """
    if settings.name != "restarts":
        return []
    found = []
    for text in settings.reflections:
        # Not `encode_text`, which breaks up control tokens: a token such as <|reflect|> is meant here, as a whole.
        ids = tuple(codec.tokenizer.encode(text, add_special_tokens=False))
        if not ids:
            raise ConfigError(
                f"starts.reflections names {text!r}, which this model's tokenizer turns into no token, so that nothing "
                "would be forced: write a word, or starts.reflections=[] to restart without one"
            )
        if ended := [one for one in ids if one in codec.stop_token_ids]:
            raise ConfigError(
                f"starts.reflections names {text!r}, which holds the token {ended[0]} that ends an action: the policy "
                "would have nothing left to say. Leave that token out"
            )
        found.append(ids)
    return found
