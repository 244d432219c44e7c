"""Starts from snapshots (arXiv:2403.00673, SnapshotRL): what a cut turn is worth, and none is the plain run.

A restored episode that is cut bootstraps from the state after its last turn, one that arrives does not. A run without
snapshots to begin at is the plain run, bit by bit: whole runs of PPO, with a tiny policy in the small maze.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rollwright.contracts.environment import Observation, episode_seed
from rollwright.contracts.record import Group, Message, Span, StopReason, Trajectory, Waypoint
from rollwright.curriculum.curriculum_settings import StartSettings
from rollwright.curriculum.start_states import SnapshotStates, Visited
from rollwright.curriculum.starts import StartPool
from rollwright.curriculum.waypoints import waypoints_of
from rollwright.envs.text import combination_lock
from rollwright.generation.engine import Generation, Sampling
from rollwright.models.tiny_model import tiny_llama
from rollwright.recipes import archer, ppo
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits
from rollwright.run_io.tracking import read_metrics
from rollwright.store.replay import valid_turns
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.loop import Training

pytestmark = pytest.mark.usefixtures("at_root")

SMALL = [
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "world.options.maze=umaze",
    "run.checkpoint_every=1",
    "run.keep_checkpoints=9",
    "run.transcripts_every=0",
    "rollout.schedule=rounds",
    "rollout.groups_per_step=3",
    "rollout.max_turns=5",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=2",
]
CRITIC_STEPS, ACTOR_STEPS, BATCH = 3, 2, 6


def states(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the checkpoints hold of a learner, step by step."""
    return [torch.load(step / name, weights_only=True) for step in sorted((folder / "checkpoints").glob("step_*"))]


def same(one: Any, two: Any) -> bool:
    """Equal to the bit, however deep."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics, less what is measured in time."""
    left_out = ("time/", "ledger/", "engine/", "starts/")
    return [
        {k: v for k, v in row.items() if not k.startswith(left_out)} for row in read_metrics(folder / "metrics.jsonl")
    ]


# Snapshots: a cut turn


class Latest:
    """A context of the latest observation alone, as numbers of characters."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        self.ids = tuple(map(ord, observation.text))
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return self.ids

    def act(self, generation: Generation) -> str:
        return "".join(map(chr, generation.token_ids))


class Opener:
    """Turns every dial to its digit."""

    name, version, context_length = "opener", 0, 10_000

    def __init__(self, length: int) -> None:
        self.digits = combination_lock.combination(length, 2)

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        dial = int("".join(map(chr, prompt_ids)).rsplit("dial ", 1)[1].split(".")[0]) - 1
        ids, span = (ord(str(self.digits[dial])),), Span(start=0, end=1, version=0)
        return Generation(token_ids=ids, logprobs=(-0.5,), finish_reason="stop", spans=(span,))

    def close(self) -> None: ...


def played(length: int, *, elapsed: int = 0, cut: int = 0) -> tuple[Group, Trajectory]:
    """An episode of the opener: from the beginning, or restored after so many turns and cut after `cut` more."""
    world = combination_lock.build(lengths=[length], max_turns=60)
    made = Collector(
        world,
        EngineActor(cast(Any, Opener(length))),
        cast(Any, Latest),
        sampling=Sampling(max_tokens=1),
        limits=Limits(max_turns=world.max_turns),
        faults=FaultLog(None),
    )
    task = world.tasks("train")[0]
    request = GroupRequest(key="g", task=task, seed=episode_seed("train", "g"), size=1, waypoint_every=1)
    if elapsed:
        whole, first = played(length)
        waypoints: tuple[Waypoint, ...] = waypoints_of(first, whole.ways[first.id])
        (there,) = (w for w in waypoints if len(w.passed) == elapsed)
        settings = StartSettings(name="snapshots", frac=1.0, pick="uniform", max_turns=cut)
        pool = StartPool(settings, seed=0, horizon=world.max_turns)
        cast(SnapshotStates, pool.states).visited = [Visited(earned=1.0, waypoints=(there,), values=(1.0,))]
        request = pool.place([request], 0)[0]
    group = made.collect([request])[0]
    made.close()
    return group, group.trajectories[0]


class Lengths:
    """A critic that says of every sequence the sum of its ids, in hundredths; the second head the double."""

    @staticmethod
    def of(ids: Sequence[int]) -> float:
        return sum(ids) / 100

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        said = torch.tensor([self.of(ids) for ids in sequences])
        rows = torch.stack([said, 2 * said])
        return {"v": rows if slow else rows * 1e6, "q": -rows}


def targets_of(trajectory: Trajectory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """[2, n] what ArCHer regresses Q of its turns on."""
    store = TrajectoryStore(folder)
    store.append([trajectory])
    monkeypatch.setattr(archer, "open_turn_critic", lambda *args, **more: Lengths())
    config = archer.ArcherConfig.model_validate({"world": {"name": "lock"}, "algorithm": {"gamma": 0.9}})
    collector = SimpleNamespace(sampling=Sampling(max_tokens=1))
    learner = SimpleNamespace(policy=tiny_llama(128, hidden=32, layers=1))
    parts = SimpleNamespace(
        store=store, learner=learner, codec=None, engine=None, collector=collector, attach=lambda part: None
    )
    made = archer.Archer(cast(Training, parts), config)
    batch = made.table.transitions(valid_turns(made.table))
    return made.targets(batch, [t.prompt_ids + t.action_ids for t in batch])["q"]


def test_the_target_of_a_cut_turn_bootstraps_from_the_state_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restored after 37 turns and cut after 5: turn 42 has y = r + gamma V(s'), and s' is dial 43."""
    _, trajectory = played(50, elapsed=37, cut=5)
    assert trajectory.start.prefix_turns == 37 and len(trajectory.turns) == 5
    assert trajectory.turns[-1].truncated and not trajectory.turns[-1].terminated
    assert trajectory.stop_reason is StopReason.MAX_TURNS and trajectory.success is None
    after = tuple(map(ord, "Lock of 50, dial 43."))
    assert trajectory.next_prompt_ids == after
    targets = targets_of(trajectory, tmp_path / "s", monkeypatch)
    follows = [*(turn.prompt_ids for turn in trajectory.turns[1:]), after]
    wanted = torch.tensor([0.9 * Lengths.of(ids) for ids in follows])
    torch.testing.assert_close(targets, torch.stack([wanted, 2 * wanted]))


def test_a_goal_before_the_cut_ends_the_task_and_its_target_is_the_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trajectory = played(40, elapsed=37, cut=5)
    assert len(trajectory.turns) == 3 and trajectory.success
    assert trajectory.stop_reason is StopReason.TERMINATED and not trajectory.turns[-1].truncated
    targets = targets_of(trajectory, tmp_path / "s", monkeypatch)
    assert targets[:, -1].tolist() == [1.0, 1.0] and bool((targets[:, :-1] > 10).all())


# Snapshots: without any


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, at_root: None) -> Callable[..., tuple[list[dict[str, Any]], Any]]:
    """PPO, which learns from every episode: (*words) -> its learning curve and all that its learner holds."""

    def run(*words: str) -> tuple[list[dict[str, Any]], Any]:
        folder = tmp_path_factory.mktemp("ppo")
        ppo.main(["recipes/text/maze_ppo.yaml", *SMALL, "run.steps=3", f"run.folder={folder}", *words])
        return curve(folder), states(folder, "learner.pt")

    return run


@pytest.fixture(scope="module")
def initial(learned: Callable[..., Any]) -> tuple[list[dict[str, Any]], Any]:
    rows, held = learned("starts=initial")
    assert not same(held[0], held[1]) and not same(held[1], held[2])
    return rows, held


@pytest.mark.parametrize("words", [["starts.frac=0"], ["starts.every=6"]], ids=["no share", "nothing left to begin at"])
def test_without_snapshots_a_run_is_the_run_from_initial_states(
    initial: tuple[Any, Any], learned: Callable[..., Any], words: list[str]
) -> None:
    """Episodes of five turns leave nothing at a sixth."""
    rows, held = learned("starts=snapshots", *words)
    assert rows == initial[0] and len(rows) >= 3
    assert same(held, initial[1])


def test_with_snapshots_it_is_another_run(initial: tuple[Any, Any], learned: Callable[..., Any]) -> None:
    """From the second step on, when there are some to begin at."""
    _, held = learned("starts=snapshots", "starts.frac=1")
    assert same(held[0], initial[1][0]) and not same(held[1], initial[1][1])
