"""Environments placed by Ray on two nodes of one machine: the same episodes, deaths are faults, nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.environment import Observation, StepResult
from rollwright.contracts.errors import MissingDependency
from rollwright.contracts.record import Group, Span, Split, Task, Trajectory
from rollwright.envs.text.maze import MazeEnvironment
from rollwright.envs.text.maze import build as build_maze
from rollwright.generation.engine import Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits
from rollwright.training.open_world import WorldSettings

PATIENT = Limits(max_turns=5, episode_s=900.0, env_call_s=300.0, engine_call_s=300.0)
MOVES = ("move right", "move down", "sing", "move up", "move left")


class Walk(MazeEnvironment):
    """Breaks where it is told to, in its own process."""

    def step(self, action: str) -> StepResult:
        if action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "raise":
            raise ValueError("the floor gave way")
        return super().step(action)


class Mazes:
    """The small maze, with environments that can break."""

    execution, instructions, max_turns, name, snapshots = "inline", "", 100, "broken maze", "exact"

    def __init__(self) -> None:
        self.inner = build_maze(maze="umaze")

    def tasks(self, split: Split) -> list[Task]:
        return self.inner.tasks(split)

    def make(self) -> Walk:
        return Walk(self.inner)

    def close(self) -> None: ...


def build() -> Mazes:
    return Mazes()


class Speaker:
    """Says the moves in turn; on its first try of an episode named in `breaks`, something else in the second turn."""

    name, version, context_length = "speaker", 0, 4096

    def __init__(self, breaks: dict[str, str] | None = None) -> None:
        self.breaks = breaks or {}

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        span = Span(start=0, end=1, version=0)
        return Generation(token_ids=(len(prompt_ids),), logprobs=(-0.5,), finish_reason="stop", spans=(span,))

    def close(self) -> None: ...


class Told:
    """A context whose prompt holds one id per character that was shown, so that two can be compared byte for byte."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker, self.shown, self.turn = speaker, "", 0

    def observe(self, observation: Observation) -> tuple[()]:
        self.shown += f"{observation.goal}\n{observation.text}\n"
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return tuple(map(ord, self.shown))

    def act(self, generation: Generation) -> str:
        self.turn += 1
        key = str(self.turn)
        return self.speaker.breaks.pop(key, MOVES[(self.turn - 1) % len(MOVES)])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with two CPUs each, on loopback."""
    from ray.cluster_utils import Cluster

    here, before = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([here, before])  # for the actors, which import this file's world
    sys.path.insert(0, here)
    small = {"num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False}
    small["_system_config"] = {"worker_niceness": 0}  # else a busy machine starves the actors for minutes
    made = Cluster(initialize_head=True, head_node_args=small)
    made.add_node(num_cpus=2, object_store_memory=80 << 20)
    yield made
    made.shutdown()
    sys.path.remove(here)
    os.environ["PYTHONPATH"] = before


def settings(address: str = "", **more: Any) -> WorldSettings:
    return WorldSettings(name="test_ray_world:build", placement="ray", ray_address=address, **more)


def opened(settings: WorldSettings) -> Any:
    from rollwright.training.open_world import (
        open_world,  # here, for the actors import this file, and this brings torch
    )

    return open_world(settings)


def play(world: Any, speaker: Speaker, faults: FaultLog) -> list[Trajectory]:
    """Eight episodes, four at a time."""
    tasks = build().tasks("train")
    collector = Collector(
        world,
        EngineActor(speaker),
        lambda: Told(speaker),
        sampling=Sampling(max_tokens=4),
        limits=PATIENT,
        faults=faults,
        parallel_episodes=4,
        retries=2,
    )
    try:
        requests = [GroupRequest(key=f"k/{i}", task=tasks[i % len(tasks)], seed=i, size=2) for i in range(4)]
        groups: list[Group] = collector.collect(requests)
        return [t for group in groups for t in group.trajectories]
    finally:
        collector.close()


def bare(trajectory: Trajectory) -> Trajectory:
    """Without its times."""
    turns = [replace(turn, timings=type(turn.timings)()) for turn in trajectory.turns]
    return replace(trajectory, turns=tuple(turns), wall_s=0.0, retries=0)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_episodes_on_two_nodes_are_those_of_this_process_byte_for_byte(cluster: Any) -> None:
    import ray

    alone = play(build(), Speaker(), FaultLog(None))
    world: Any = opened(settings(cluster.address))
    spread = play(world, Speaker(), FaultLog(None))
    assert [bare(t) for t in spread] == [bare(t) for t in alone]
    assert len({turn.prompt_ids for t in alone for turn in t.turns}) > 10, (
        "the episodes must differ to compare anything"
    )
    assert len(world.nodes) == 2 and not world._actors
    assert not ray.is_initialized(), "it joined the cluster, so it has to leave it"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_actor_that_dies_is_an_environment_fault_and_the_episode_is_played_again(
    cluster: Any, tmp_path: Path
) -> None:
    log = tmp_path / "faults.jsonl"
    world = opened(settings(cluster.address))
    speaker = Speaker({"2": "die", "3": "raise"})
    played = play(world, speaker, FaultLog(log))
    assert not speaker.breaks
    assert [bare(t) for t in played] == [bare(t) for t in play(build(), Speaker(), FaultLog(None))]
    assert sum(t.retries for t in played) == 2
    text = log.read_text()
    assert text.count('"environment"') == 2 and "is gone" in text and "the floor gave way" in text


@pytest.mark.ray
def test_without_ray_the_message_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(MissingDependency, match=r"rollwright\[ray\]"):
        opened(settings())
