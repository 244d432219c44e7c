"""Snapshot starts at work: a lock that opens because of them, the world of locks, a run that is stopped and resumed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Group, Message, Span, Start, Timings
from rollwright.curriculum.curriculum_settings import StartSettings
from rollwright.curriculum.open_starts import open_starts, taught_groups
from rollwright.curriculum.samplers import UniformCurriculum
from rollwright.curriculum.starts import StartPool
from rollwright.envs.text import combination_lock
from rollwright.generation.engine import Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits
from rollwright.rollout.rollout_settings import RolloutSettings
from rollwright.run_io.tracking import read_metrics
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.collection import OnPolicy, Requests
from rollwright.training.loop_config import LoopConfig

LOCK = combination_lock.combination(6, 2)


def dial_of(prompt: str) -> int:
    return int(prompt.rsplit("dial ", 1)[1].split(".")[0]) - 1


# It helps


class Latest:
    """A context of the latest observation alone, as numbers of characters."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()

    def observe(self, observation: Any) -> tuple[Message, ...]:
        self.ids = tuple(map(ord, observation.text))
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return self.ids

    def act(self, generation: Generation) -> str:
        return "".join(map(chr, generation.token_ids[:1]))


class Table:
    """Tabular Q-learning behind the engine's contract: a number for every dial and digit, epsilon-greedy."""

    name, version, context_length = "table", 0, 10_000

    def __init__(self, length: int, epsilon: float = 0.2) -> None:
        self.q, self.epsilon, self.greedy = np.zeros((length, 2)), epsilon, False

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str) -> Generation:
        q, rng = self.q[dial_of("".join(map(chr, prompt_ids)))], random.Random(request_id)
        explores = not self.greedy and rng.random() < self.epsilon
        digit = rng.randrange(2) if explores or q[0] == q[1] else int(q.argmax())
        span = Span(start=0, end=1, version=0)
        return Generation(token_ids=(ord(str(digit)),), logprobs=(-0.5,), finish_reason="stop", spans=(span,))

    def learn(self, groups: Sequence[Group]) -> None:
        for turns in (t.turns for g in groups for t in g.trajectories):
            dials = [dial_of("".join(map(chr, turn.prompt_ids))) for turn in turns]
            for turn, dial, after in reversed(list(zip(turns, dials, [*dials[1:], None], strict=True))):
                if after is None and not turn.terminated:
                    continue  # cut: the table does not know what came next
                target = turn.reward + (0.95 * self.q[after].max() if after is not None else 0.0)
                self.q[dial, int(turn.text)] += 0.5 * (target - self.q[dial, int(turn.text)])

    def close(self) -> None: ...


class Digits:
    def encode_action(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))


def solved_after_training(length: int, *, seed: int, snapshots: bool) -> bool:
    """Greedy success from the true start, after 12 steps of 24 episodes through the real collection."""
    world, table = combination_lock.build(lengths=[length], max_turns=2 * length), Table(length)
    starts = {"name": "snapshots", "source": "teacher", "steps": 8, "max_turns": 8, "episodes": 2}
    settings = {"world": {"name": "text.combination_lock"}, "run": {"seed": seed}} | (
        {"starts": starts} if snapshots else {}
    )
    config = LoopConfig.model_validate(settings)
    made = Collector(
        world,
        EngineActor(table),
        Latest,
        sampling=Sampling(max_tokens=1),
        limits=Limits(max_turns=world.max_turns),
        faults=FaultLog(None),
    )
    pool = StartPool(config.starts, seed=seed, horizon=world.max_turns) if snapshots else None
    tasks = world.tasks("train")
    if pool is not None:
        pool.learn(taught_groups(config.starts, made, Digits(), tasks, seed=seed))
        assert pool.metrics([])["starts/waypoints_count"] == 2 * (length - 1)
    rollout = RolloutSettings(group_size=1, groups_per_step=24)
    curriculum = UniformCurriculum(tasks, seed=seed)
    source = OnPolicy(Requests(rollout, curriculum, seed=seed, starts=pool), made.collect)
    for step in range(12):
        groups = source.take(step)
        begun = [group.start is not None for group in groups]
        assert any(begun) == (snapshots and step < 8)
        table.learn(groups)
    table.greedy = True
    judged = made.play([made.request(f"{seed}/judge", world.tasks("test")[0], episode_seed("test", seed))])[0]
    made.close()
    assert judged.start == Start()
    return bool(judged.success)


@pytest.mark.slow
def test_snapshot_starts_open_a_lock_that_stays_closed_without_them() -> None:
    """A guess opens 14 dials once in 2^15 - 2 turns: of runs of 8,000 one in five is lucky."""
    with_them = [solved_after_training(14, seed=seed, snapshots=True) for seed in range(4)]
    without = [solved_after_training(14, seed=seed, snapshots=False) for seed in range(4)]
    assert all(with_them) and sum(without) <= 1


def test_a_world_without_snapshots_or_teachers_refuses_them() -> None:
    def opened(world: Any, *, staleness: int = 0, **starts: Any) -> StartPool | None:
        return open_starts(StartSettings(**starts), world, RolloutSettings(max_staleness=staleness), seed=0)

    world = combination_lock.build()
    for name in ("snapshots", "guide_prefix", "failures", "restarts"):
        assert opened(world, name=name) is not None
    assert opened(world, name="initial") is None
    with pytest.raises(ConfigError, match="max_staleness=0"):
        opened(world, name="guide_prefix", staleness=1)
    world.snapshots = "none"
    for name in ("snapshots", "guide_prefix", "failures", "restarts"):
        with pytest.raises(ConfigError, match=f"starts={name}: .* has no snapshots"):
            opened(world, name=name)

    class Untaught(combination_lock.LockWorld):
        teacher = None

    world = combination_lock.build()
    world.__class__ = Untaught
    for starts in ({"name": "guide_prefix"}, {"name": "snapshots", "source": "teacher"}):
        with pytest.raises(ConfigError, match="has no"):
            opened(world, **starts)


# The world


def test_the_lock_opens_by_its_digits_alone() -> None:
    for slip in ("back", "over"):
        world = combination_lock.build(lengths=(3, 6), slip=slip)
        env = world.make()
        env.reset(world.tasks("train")[1], 0)
        answers = [env.step(str(digit)) for digit in LOCK]
        assert [a.terminated for a in answers] == [False] * 5 + [True]
        assert answers[-1].success and sum(a.reward for a in answers) == 1.0
        env.reset(world.tasks("train")[1], 0)
        env.step(str(LOCK[0]))
        wrong = env.step(str(1 - LOCK[1]))
        assert wrong.terminated == (slip == "over") and wrong.reward == 0
        assert slip == "over" or wrong.observation == "Lock of 6, dial 1."


def test_a_compact_lock_says_one_word() -> None:
    world = combination_lock.build(wording="compact")
    env = world.make()
    first = env.reset(world.tasks("train")[0], 0)
    assert world.instructions == first.goal == "" and first.text == "lock6dial1"
    assert env.step("no digit").observation == "lock6dial1"
    assert env.step(str(LOCK[0])).observation == "lock6dial2"
    assert {"lock6dial1", "lock6dial6"} <= set(world.texts())


@pytest.mark.parametrize(
    "options", [{"lengths": ()}, {"lengths": (4, 4)}, {"digits": 1}, {"slip": "x"}, {"max_turns": 5}, {"wording": "y"}]
)
def test_locks_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"text\.combination_lock|max_turns"):
        combination_lock.build(**options)


# With a model, through a recipe

SMALL = (
    "world.name=text.combination_lock",
    "~world.options.wording",
    "world.options={lengths: [4], max_turns: 12}",
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "rollout.max_turns=12",
    "rollout.max_action_tokens=4",
    "rollout.groups_per_step=4",
    "rollout.group_size=2",
    "rollout.parallel_episodes=8",
    "rollout.schedule=rounds",
    "starts=snapshots",
    "starts.frac=0.5",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=2",
    "run.checkpoint_every=1",
)


def episodes(folder: Path) -> list[Any]:
    store = TrajectoryStore(folder / "trajectories", mode="read")
    return [
        replace(t, wall_s=0.0, turns=tuple(replace(u, timings=Timings()) for u in t.turns))
        for t in store.iter_trajectories()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["own", "teacher"])
def test_a_stopped_run_with_snapshot_starts_goes_on_with_the_same_bits(
    run_recipe: Callable[..., None], source: str, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, steps in ((whole, 3), (parts, 2), (parts, 3)):
        words = [*SMALL, f"run.folder={folder}", f"starts.source={source}", f"run.steps={steps}"]
        run_recipe("grpo.py", "text/maze_grpo.yaml", *words)
    both = [{t.id: t for t in episodes(folder) if t.task.split == "train"} for folder in (whole, parts)]
    assert both[0] == both[1] and len(both[0]) == 3 * 4 * 2
    kinds = Counter(t.start.kind for t in both[0].values())
    assert kinds["snapshot"] >= 4 and kinds["initial"] >= 1
    assert all(t.start == Start() for t in episodes(whole) if t.task.split != "train")
    one, two = (load_file(folder / "policy" / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [row for row in read_metrics(whole / "metrics.jsonl") if "starts/snapshot_frac" in row]
    assert len(rows) == 3 and rows[-1]["starts/waypoints_count"] > 0
