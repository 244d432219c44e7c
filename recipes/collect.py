"""Collect episodes once, train on them many times: by a policy, by the world's scripted teachers, or by chance.

    play      episodes of every task of the train split
    score     them by the reward
    append    to a store, shard by shard, with a tag that says where they come from

Started again with the same settings it plays the episodes that the store lacks: those after a stop, those of a shard
that was damaged. An episode that the reward cannot score is kept, undecided, and counted at the end. Stores are what
`replay.stores` and `data.stores` of the other recipes take.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/collect.py recipes/text/maze_collect.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Readers, Unread, dump
from rollwright.contracts import (
    FaultBudgetExceeded,
    Group,
    Reward,
    Score,
    Task,
    Trajectory,
    World,
    episode_seed,
    tasks_of,
)
from rollwright.generation import Engine, EngineSettings
from rollwright.models import ChatCodec, ModelSettings
from rollwright.rollout import (
    Actor,
    Collector,
    EngineActor,
    EpisodeRequest,
    FaultLog,
    RandomActor,
    RolloutSettings,
    TeacherActor,
    rollout_metrics,
    score_or_note,
)
from rollwright.run_io import Progress, RunFacts, RunFolder, StepReport
from rollwright.store import TrajectoryStore, unpack_text
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

log = logging.getLogger(__name__)


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
        opened(config, folder) as (collector, tasks),
    ):
        announce(config, plays=config.collect.by == "policy")
        store = TrajectoryStore(folder.trajectories)
        fill(store, episodes(config, collector, tasks), config.collect, collector, reward, folder.facts)
    print(summary(store))
    warn_of_undecided(store, reward)
    announce_next(Path(config.run.folder))


def episodes(config: CollectConfig, collector: Collector, tasks: Sequence[Task]) -> list[EpisodeRequest]:
    """All episodes of the collection, the first of every task, then the second, and so on."""
    # Round by round over all tasks, so that a collection that was stopped holds about as much of each.
    return [
        # `fill` looks for this name in the store, so it is the same at every start.
        collector.request(f"{config.run.seed}/{task.id}/{index}", task, start_seed(config, task, index))
        for index in range(config.collect.per_task)
        for task in tasks
    ]


def fill(
    store: TrajectoryStore,
    wanted: Sequence[EpisodeRequest],
    settings: CollectSettings,
    collector: Collector,
    reward: Reward,
    facts: RunFacts,
) -> None:
    """Play, score and append what the store lacks. By name, not by number: a damaged shard leaves a gap anywhere.

    Raises:
        FaultBudgetExceeded: too many episodes faulted, or could not be scored (then the shard is stored first).
    """
    # A damaged shard is not among the headers, so its episodes are played again.
    there = {unpack_text(row["id"]) for _, row in store.headers()}
    lacking = [request for request in wanted if request.key not in there]
    report = StepReport(len(wanted), unit="episode")
    # What an earlier start has played is no work of this one.
    report.begin(len(wanted) - len(lacking))
    for start in range(0, len(lacking), settings.shard):
        part = lacking[start : start + settings.shard]
        done = len(wanted) - len(lacking) + start
        with Progress(f"episodes from {done} of {len(wanted)}", total=len(part)) as bar:
            played = collector.play(part, progress=lambda _, bar=bar: bar.advance())  # type: ignore[misc]
        scored, error = scored_all(played, reward, collector.faults)
        store.append(scored, tag=settings.tag or settings.by)
        facts.played(scored)
        facts.set_clocks(collector.occupancy.seconds())
        # With every shard, so that a kill costs the record no more than the episodes.
        facts.save()
        report.step(done + len(part), rollout_metrics([alone(t) for t in scored]) | {"time/step_s": report.elapsed()})
        # Only now, as what was played is stored by now.
        if error is not None:
            raise error


def start_seed(config: CollectConfig, task: Task, index: int) -> int:
    """The seed of an episode's start, fixed by the run's seed and the episode's place."""
    return episode_seed("train", "collect", config.run.seed, task.id, index)


@contextmanager
def opened(config: CollectConfig, folder: RunFolder) -> Iterator[tuple[Collector, list[Task]]]:
    """The collector of the named source and the training tasks; closed at the end."""
    with open_stage(config.world, config.model, folder.path) as stage:
        if config.collect.by == "policy":
            stage.open_engine(config.engine, seed=config.run.seed)
        actor = actor_of(config.collect, stage.world, stage.codec, stage.engine)
        # Teachers and chance read no context, so the limit is the one that the settings give a policy.
        length = config.engine.max_context if stage.engine is None else stage.engine.context_length
        collector = stage.open_collector(config.rollout, actor, context_length=length)
        yield collector, list(tasks_of(stage.world, "train"))


def actor_of(settings: CollectSettings, world: World, codec: ChatCodec, engine: Engine | None) -> Actor:
    """Who plays: the policy where there is an engine, else chance or a teacher."""
    if engine is not None:
        return EngineActor(engine)
    if settings.by == "random":
        return RandomActor(world, codec.encode_action)
    return TeacherActor(world, codec.encode_action, random_frac=settings.random_frac)


def scored_all(
    played: Sequence[Trajectory], reward: Reward, faults: FaultLog
) -> tuple[list[Trajectory], FaultBudgetExceeded | None]:
    """The episodes with their rewards laid on the turns; undecided where the reward failed, which is noted.

    Where it failed too often the rest is undecided too, and the error comes second: what was played is stored first.
    """
    done: list[Trajectory] = []
    for trajectory in played:
        try:
            done.append(scored(trajectory, reward, faults))
        except FaultBudgetExceeded as error:
            left = Score(value=None, verifier=reward.name, message="no score: the reward had failed too often")
            rest = played[len(done) :]
            # An episode that faulted has nothing to be scored.
            return done + [replace(t, score=left) if t.learnable else t for t in rest], error
    return done, None


def scored(trajectory: Trajectory, reward: Reward, faults: FaultLog) -> Trajectory:
    """The episode with what the reward says of it."""
    return score_or_note(alone(trajectory), reward, faults).trajectories[0]


def alone(trajectory: Trajectory) -> Group:
    """The episode as a group of its own, as nothing here compares siblings."""
    return Group(id=trajectory.id, task=trajectory.task, seed=trajectory.seed, trajectories=(trajectory,))


def summary(store: TrajectoryStore) -> str:
    """One line: how many, how good, how many without a score. Those have no part in the mean."""
    rows = [row for _, row in store.headers()]
    verdicts = [row["success"] for row in rows if row["success"] is not None]
    returns = [row["total_reward"] for row in rows if row["score"] is not None and row["score"]["value"] is not None]
    doubts, unjudged = len(undecided(store)), sum(row["score"] is None for row in rows)
    said = [f"{len(rows)} episodes", f"{store.turn_count} turns"]
    said.append(f"mean return {sum(returns) / len(returns):.3f}" if returns else "no return known")
    said += [f"success {sum(verdicts) / len(verdicts):.3f}"] if verdicts else []
    said += [f"{doubts} UNDECIDED"] if doubts else []
    said += [f"{unjudged} faulted or empty"] if unjudged else []
    return f"{', '.join(said)}: {Path(store.folder)}"


def undecided(store: TrajectoryStore) -> list[str]:
    """For each episode that the reward could not score: why."""
    scores = [row["score"] for _, row in store.headers()]
    return [unpack_text(score["message"]) for score in scores if score is not None and score["value"] is None]


def warn_of_undecided(store: TrajectoryStore, reward: Reward) -> None:
    """Say how much of the store nobody will learn from, why, and how it can be scored after all."""
    reasons = undecided(store)
    judged = sum(row["score"] is not None for _, row in store.headers())
    if not reasons:
        return
    none = len(reasons) == judged
    log.log(
        logging.ERROR if none else logging.WARNING,
        "%s: the reward %r could not tell of %d of %d episodes. Nobody learns from %s. The first: %s. "
        "To score them anew once it can: rollwright score %s --into FOLDER --reward NAME key=value ...",
        "NOTHING HERE IS SCORED" if none else "Some episodes are undecided",
        reward.name,
        len(reasons),
        judged,
        "this store" if none else "those",
        reasons[0] or "no reason given",
        store.folder,
    )


if __name__ == "__main__":
    run_recipe(main)
