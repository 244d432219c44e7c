"""Snapshot starts: the sampling law, restored episodes token by token, cuts, faults, what a checkpoint keeps."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rollwright.curriculum import UniformCurriculum
from rollwright.env import episode_seed
from rollwright.envs.text import combination_lock
from rollwright.errors import ConfigError
from rollwright.generation.base import Generation, Sampling
from rollwright.pipeline import Pipeline
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits
from rollwright.rollout.ahead import finished
from rollwright.settings import LoopConfig, RolloutSettings, StartSettings
from rollwright.start_assembly import open_starts, taught_groups
from rollwright.starts import StartPool, Visited, cluster_values, scaled_within
from rollwright.store import TrajectoryStore
from rollwright.tracking import read_metrics
from rollwright.types import Group, Message, Span, Start, StopReason, Timings, Waypoint
from rollwright.waypoints import from_row, to_row, waypoints_of

ROOT = Path(__file__).parents[1]
LOCK = combination_lock.combination(6, 2)


class Words:
    """A context whose ids are characters: the whole history, so that a prompt shows everything that lies behind it."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()

    def observe(self, observation: Any) -> tuple[Message, ...]:
        text = f"<{observation.goal}|{observation.text}>"
        self.ids += tuple(map(ord, text))
        return (Message(role="user", content=text),)

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return self.ids

    def act(self, generation: Generation) -> str:
        self.ids += generation.token_ids
        return "".join(map(chr, generation.token_ids))


class Player:
    """Answers what `choose` says of the prompt's text, one token."""

    name, version, context_length = "player", 0, 10_000

    def __init__(self, choose: Callable[[str], str]) -> None:
        self.choose = choose
        self.prompts: list[str] = []

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str) -> Generation:
        self.prompts.append("".join(map(chr, prompt_ids)))
        ids = (ord(self.choose(self.prompts[-1])),)
        span = Span(start=0, end=1, version=0)
        return Generation(token_ids=ids, logprobs=(-0.5,), finish_reason="stop", spans=(span,))

    def close(self) -> None: ...


def dial_of(prompt: str) -> int:
    return int(prompt.rsplit("dial ", 1)[1].split(".")[0]) - 1


def knows(prompt: str) -> str:
    return str(LOCK[dial_of(prompt)])


def collector(world: Any, choose: Callable[[str], str], **changes: Any) -> Collector:
    return Collector(
        world,
        EngineActor(Player(choose)),
        Words,
        sampling=Sampling(max_tokens=1),
        limits=changes.pop("limits", Limits(max_turns=18)),
        faults=FaultLog(None, max_frac=1.0),
        **changes,
    )


def ask(world: Any, key: str = "g", size: int = 1, **more: Any) -> GroupRequest:
    seed = episode_seed("train", key)
    return GroupRequest(key=key, task=world.tasks("train")[0], seed=seed, size=size, waypoint_every=1, **more)


def begin_at(waypoint: Waypoint, key: str, size: int = 1, **more: Any) -> GroupRequest:
    return GroupRequest(key=key, task=waypoint.task, seed=waypoint.seed, size=size, start=waypoint, **more)


def passed_by(world: Any) -> tuple[Group, tuple[Waypoint, ...]]:
    """An episode that opens the lock, and the states it passed by."""
    made = collector(world, knows)
    group = made.collect([ask(world)])[0]
    made.close()
    trajectory = group.trajectories[0]
    return group, waypoints_of(trajectory, group.ways[trajectory.id])


class Replayed(combination_lock.LockWorld):
    """The same lock, without exact snapshots."""

    snapshots = "replay"


@pytest.fixture(params=["exact", "replay"])
def world(request: pytest.FixtureRequest) -> combination_lock.LockWorld:
    built = combination_lock.build()
    if request.param == "replay":
        built.__class__ = Replayed
    return built


# Where an episode begins


def test_a_waypoint_holds_the_way_and_a_snapshot_where_the_world_has_them(world) -> None:
    _, waypoints = passed_by(world)
    assert [len(w.passed) for w in waypoints] == [1, 2, 3, 4, 5]
    assert [p.action for p in waypoints[-1].passed] == [str(digit) for digit in LOCK[:5]]
    assert waypoints[2].shown.text == "Lock of 6, dial 4."
    assert all((w.snapshot is not None) == (world.snapshots == "exact") for w in waypoints)


def test_a_restored_episode_sees_the_very_prompt_and_its_prefix_is_context_only(world) -> None:
    whole, waypoints = passed_by(world)
    made = collector(world, knows)
    group = made.collect([begin_at(waypoints[2], "later", size=2)])[0]
    made.close()
    original = whole.trajectories[0]
    for trajectory in group.trajectories:
        assert trajectory.start == Start(kind="snapshot", prefix_turns=3, source=original.id)
        assert trajectory.success and trajectory.stop_reason is StopReason.TERMINATED
        # Dials 4 to 6 only: what lies behind is in the prompt, in no turn, and pays nothing.
        assert [t.prompt_ids for t in trajectory.turns] == [t.prompt_ids for t in original.turns[3:]]
        assert [t.state_key for t in trajectory.turns] == [t.state_key for t in original.turns[3:]]
        assert trajectory.total_reward == 1.0 and trajectory.num_action_tokens == 3
    assert group.start == waypoints[2] and not whole.trajectories[0].start.prefix_turns


def test_an_episode_at_a_waypoint_of_the_initial_state_is_the_plain_episode(world) -> None:
    group, waypoints = passed_by(world)
    first = waypoints[0].passed[0]
    digest = waypoints_digest(group)
    origin = replace(waypoints[0], passed=(), shown=first.shown, state_key=first.state_key, prompt_digest=digest)
    origin = replace(origin, snapshot=None)
    made = collector(world, knows)
    again = made.collect([begin_at(origin, "g")])[0].trajectories[0]
    made.close()
    before = group.trajectories[0]
    assert [(t.prompt_ids, t.action_ids, t.rewards) for t in again.turns] == [
        (t.prompt_ids, t.action_ids, t.rewards) for t in before.turns
    ]


def waypoints_digest(group: Group) -> str:
    from rollwright.rollout.restore import prompt_digest

    return prompt_digest(group.trajectories[0].turns[0].prompt_ids)


def test_waypoints_of_a_restored_episode_go_all_the_way_back(world) -> None:
    _, waypoints = passed_by(world)
    made = collector(world, knows)
    request = replace(begin_at(waypoints[1], "later"), waypoint_every=1)
    group = made.collect([request])[0]
    trajectory = group.trajectories[0]
    further = waypoints_of(trajectory, group.ways[trajectory.id], group.start)
    # dial 3 was reached before: it and dials 4 to 6 are left again, with the whole way
    assert [len(w.passed) for w in further] == [2, 3, 4, 5]
    last = made.collect([begin_at(further[-1], "last")])[0].trajectories[0]
    made.close()
    assert len(last.turns) == 1 and last.success and last.start.prefix_turns == 5


def test_a_cut_after_a_snapshot_is_a_truncation_without_a_verdict(world) -> None:
    _, waypoints = passed_by(world)
    made = collector(world, lambda prompt: str(1 - LOCK[dial_of(prompt)]))
    settings = StartSettings(name="snapshots", max_turns=2, frac=1.0, pick="uniform")
    pool = StartPool(settings, seed=0, horizon=18)
    pool.visited = [Visited(earned=1.0, waypoints=waypoints[4:], values=(1.0,))]
    request = pool.place(ask(world), 0, 0)
    trajectory = made.collect([request])[0].trajectories[0]
    made.close()
    # restored after 5 turns, cut after 2 more: turn 7 of the whole episode
    assert trajectory.start.prefix_turns + len(trajectory.turns) == 7
    assert trajectory.stop_reason is StopReason.MAX_TURNS and trajectory.turns[-1].truncated
    assert not trajectory.turns[-1].terminated and trajectory.success is None
    assert trajectory.next_prompt_ids, "a critic bootstraps from what would have come next"


def test_without_a_cut_the_whole_episode_keeps_its_limit(world) -> None:
    _, waypoints = passed_by(world)
    pool = StartPool(StartSettings(name="snapshots", frac=1.0, pick="uniform"), seed=0, horizon=7)
    pool.visited = [Visited(earned=1.0, waypoints=waypoints[4:], values=(1.0,))]
    request = pool.place(ask(world), 0, 0)
    assert request.max_turns == 2 and not request.cut
    made = collector(world, lambda prompt: str(1 - LOCK[dial_of(prompt)]))
    assert made.collect([request])[0].trajectories[0].success is False
    made.close()


def test_a_goal_before_the_cut_terminates(world) -> None:
    _, waypoints = passed_by(world)
    made = collector(world, knows)
    played = made.collect([replace(begin_at(waypoints[4], "k"), max_turns=3, cut=True)])[0].trajectories[0]
    made.close()
    assert played.stop_reason is StopReason.TERMINATED and played.success


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("state", {"state_key": "elsewhere"}),
        ("prompt", {"prompt_digest": "another"}),
    ],
)
def test_a_start_that_is_not_the_recorded_one_is_a_fault_and_no_score(world, what: str, change: dict) -> None:
    _, waypoints = passed_by(world)
    made = collector(world, knows, retries=0)
    group = made.collect([begin_at(replace(waypoints[2], **change), "bad")])[0]
    made.close()
    trajectory = group.trajectories[0]
    assert trajectory.stop_reason is StopReason.ENV_ERROR and not trajectory.learnable
    assert f"the {what} before turn 3" in trajectory.fault


def test_a_world_that_does_not_repeat_itself_is_found_out_on_the_way() -> None:
    world = combination_lock.build()
    world.__class__ = Replayed
    _, waypoints = passed_by(world)
    world.combinations = {6: tuple(1 - digit for digit in LOCK)}
    made = collector(world, knows, retries=0)
    fault = made.collect([begin_at(waypoints[3], "bad")])[0].trajectories[0].fault
    made.close()
    assert "the observation before turn 1" in fault and "Lock of 6, dial 1." in fault


def test_an_episode_leaves_waypoints_only_where_it_is_asked_to(world) -> None:
    made = collector(world, knows)
    group = made.collect([replace(ask(world), waypoint_every=0)])[0]
    assert not group.ways
    every_other = made.collect([replace(ask(world), waypoint_every=2)])[0]
    made.close()
    trajectory = every_other.trajectories[0]
    found = waypoints_of(trajectory, every_other.ways[trajectory.id], every=2)
    assert [len(w.passed) for w in found] == [2, 4]
    assert set(every_other.ways[trajectory.id].snapshots) == ({2, 4} if world.snapshots == "exact" else set())


# The sampling law


def pool_of(values: Sequence[float], **changes: Any) -> StartPool:
    settings = StartSettings(**{"name": "snapshots", "frac": 1.0, **changes})
    _, (one, *_) = passed_by(combination_lock.build())
    waypoints = tuple(replace(one, source=str(index)) for index in range(len(values)))
    pool = StartPool(settings, seed=0, horizon=18)
    pool.visited = [Visited(earned=0.0, waypoints=waypoints, values=tuple(values))]
    return pool


def draws(pool: StartPool, count: int) -> Counter[str]:
    return Counter(w.source for index in range(count) if (w := pool.draw(0, index)) is not None)


def chi_square(counts: Counter[str], shares: dict[str, float], total: int) -> float:
    return sum((counts[name] - total * share) ** 2 / (total * share) for name, share in shares.items())


@pytest.mark.parametrize("sizes", [(6, 3, 1), (8, 3, 1)])
def test_a_cluster_is_drawn_uniformly_then_a_waypoint_in_it(sizes: tuple[int, ...]) -> None:
    values = [v for v, size in zip((0.0, 0.5, 1.0), sizes, strict=True) for _ in range(size)]
    counts = draws(pool_of(values, clusters=6), 10_000)
    owner = [size for size in sizes for _ in range(size)]
    shares = {str(index): 1 / (3 * size) for index, size in enumerate(owner)}
    # 0.99 quantiles of chi-square with 9 and 11 degrees of freedom: 21.67, 24.72
    assert chi_square(counts, shares, 10_000) < {10: 21.67, 12: 24.72}[len(values)]
    assert abs(counts[str(len(values) - 1)] / 10_000 - 1 / 3) < 0.015


def test_drawn_uniformly_every_waypoint_is_as_likely() -> None:
    counts = draws(pool_of([0.0] * 6 + [0.5] * 3 + [1.0], pick="uniform"), 10_000)
    assert chi_square(counts, {str(k): 0.1 for k in range(10)}, 10_000) < 21.67


def test_a_share_of_the_groups_keeps_the_initial_state() -> None:
    drawn = sum(draws(pool_of([0.0, 1.0], frac=0.8), 10_000).values())
    assert 0.78 < drawn / 10_000 < 0.82


def test_no_group_begins_at_a_snapshot_after_the_phase_or_before_there_is_one() -> None:
    pool = pool_of([0.0, 1.0], steps=3)
    assert [pool.draw(step, 0) is not None for step in range(6)] == [True] * 3 + [False] * 3
    plain = ask(combination_lock.build())
    assert pool.place(replace(plain, waypoint_every=0), 3, 0) == replace(plain, waypoint_every=0)
    assert pool_of([]).draw(0, 0) is None


def test_clusters_of_numbers_by_hand() -> None:
    # two tight clumps and one stray; asked for six, three distinct regions of five distinct values
    values = np.array([0.0, 0.01, 5.0, 5.02, 9.0])
    assert cluster_values(values, 3).tolist() == [0, 0, 1, 1, 2]
    assert cluster_values(values, 1).tolist() == [0] * 5
    assert cluster_values(np.array([2.0, 2.0]), 6).tolist() == [0, 0]
    assert cluster_values(np.array([3.0, 1.0, 2.0]), 6).tolist() == [2, 0, 1]
    assert not len(cluster_values(np.zeros(0), 6))


def test_values_are_scaled_within_their_task() -> None:
    scaled = scaled_within(np.array([1.0, 3.0, 2.0, 100.0, 7.0]), ["a", "a", "a", "b", "b"])
    assert scaled.tolist() == [0.0, 1.0, 0.5, 1.0, 0.0]
    assert scaled_within(np.array([4.0, 4.0]), ["a", "a"]).tolist() == [0.5, 0.5]


# What is kept


def played(world: Any, choose: Callable[[str], str], keys: Sequence[str]) -> list[Group]:
    made = collector(world, choose)
    groups = made.collect([ask(world, key) for key in keys])
    made.close()
    return groups


def test_the_best_episodes_are_kept_and_of_equals_the_newest() -> None:
    world = combination_lock.build()
    pool = StartPool(StartSettings(name="snapshots", episodes=2), seed=0, horizon=18)
    pool.learn(played(world, lambda p: str(1 - LOCK[dial_of(p)]), ["lost 1", "lost 2", "lost 3"]))
    assert [one.waypoints[0].source for one in pool.visited] == ["lost 2/0", "lost 3/0"]
    pool.learn(played(world, knows, ["won"]))
    assert [one.waypoints[0].source for one in pool.visited] == ["lost 3/0", "won/0"]
    assert pool.metrics([])["starts/waypoints_count"] == 17 + 5


def test_f_is_the_discounted_return_or_the_turns_left() -> None:
    group = played(combination_lock.build(), knows, ["won"])
    by_return = StartPool(StartSettings(name="snapshots", gamma=0.5), seed=0, horizon=18)
    by_return.learn(group)
    # the reward comes with the sixth turn: 0.5^4 from the second dial, 1 from the last
    assert by_return.visited[0].values == (0.0625, 0.125, 0.25, 0.5, 1.0)
    by_progress = StartPool(StartSettings(name="snapshots", value="progress"), seed=0, horizon=20)
    by_progress.learn(group)
    assert by_progress.visited[0].values == pytest.approx((0.75, 0.8, 0.85, 0.9, 0.95))


def test_no_more_waypoints_than_there_is_room_for() -> None:
    pool = StartPool(StartSettings(name="snapshots", capacity=11), seed=0, horizon=18)
    pool.learn(played(combination_lock.build(), knows, ["a", "b", "c"]))
    assert [one.waypoints[0].source for one in pool.visited] == ["b/0", "c/0"]


def test_both_kinds_of_start_are_counted_apart() -> None:
    world = combination_lock.build()
    _, waypoints = passed_by(world)
    made = collector(world, lambda p: str(LOCK[dial_of(p)]) if p.count("dial") > 3 else "x")
    groups = made.collect([ask(world, "plain"), begin_at(waypoints[4], "restored")])
    made.close()
    metrics = StartPool(StartSettings(name="snapshots"), seed=0, horizon=18).metrics(groups)
    assert metrics["starts/snapshot_frac"] == 0.5 and metrics["starts/prefix_turns_mean"] == 5
    assert metrics["starts/snapshot_success_frac"] == 1.0


def test_a_pool_comes_back_from_a_checkpoint_and_draws_the_same(world, tmp_path: Path) -> None:
    settings = StartSettings(name="snapshots", frac=0.9)
    pool = StartPool(settings, seed=4, horizon=18)
    pool.learn(played(world, knows, ["a", "b"]))
    pool.save_state(tmp_path)
    again = StartPool(settings, seed=4, horizon=18)
    again.load_state(tmp_path)
    assert again.visited == pool.visited
    assert [again.draw(7, k) for k in range(50)] == [pool.draw(7, k) for k in range(50)]
    _, waypoints = passed_by(world)
    assert from_row(to_row(waypoints)) == waypoints and from_row(to_row(())) == ()


def test_keys_of_another_kind_of_start_are_refused() -> None:
    for wrong in ({"frac": 0.5}, {"name": "snapshots", "pick": "uniform", "clusters": 3}):
        with pytest.raises(ValueError, match="without effect"):
            StartSettings.model_validate(wrong)


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
    """Greedy success from the true start, after 12 steps of 24 episodes through the real pipeline."""
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
        pool.learn(taught_groups(config, made, Digits(), tasks))
        assert pool.metrics([])["starts/waypoints_count"] == 2 * (length - 1)
    rollout = RolloutSettings(group_size=1, groups_per_step=24)
    curriculum = UniformCurriculum(tasks, seed=seed)
    pipeline = Pipeline(
        rollout, finished(made.collect), curriculum, version=lambda: 0, seed=seed, steps=12, starts=pool
    )
    for step in range(12):
        groups = pipeline.take(step)
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
    class Alone:
        first = True

    def config(**starts: Any) -> LoopConfig:
        return LoopConfig.model_validate({"world": {"name": "w"}, "starts": {"name": "snapshots", **starts}})

    world = combination_lock.build()
    assert open_starts(config(), world, Alone()) is not None
    assert open_starts(LoopConfig.model_validate({"world": {"name": "w"}}), world, Alone()) is None
    world.snapshots = "none"
    with pytest.raises(ConfigError, match="has no snapshots"):
        open_starts(config(), world, Alone())


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


@pytest.mark.parametrize(
    "options", [{"lengths": ()}, {"lengths": (4, 4)}, {"digits": 1}, {"slip": "x"}, {"max_turns": 5}]
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


def run_grpo(folder: Path, *words: str) -> None:
    command = [sys.executable, "recipes/grpo.py", "recipes/text/maze_grpo.yaml", *SMALL, f"run.folder={folder}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-4000:]


def episodes(folder: Path) -> list[Any]:
    store = TrajectoryStore(folder / "trajectories", mode="read")
    return [
        replace(t, wall_s=0.0, turns=tuple(replace(u, timings=Timings()) for u in t.turns))
        for t in store.iter_trajectories()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["own", "teacher"])
def test_a_stopped_run_with_snapshot_starts_goes_on_with_the_same_bits(source: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_grpo(whole, f"starts.source={source}", "run.steps=3")
    run_grpo(parts, f"starts.source={source}", "run.steps=2")
    run_grpo(parts, f"starts.source={source}", "run.steps=3")
    both = [{t.id: t for t in episodes(folder) if t.task.split == "train"} for folder in (whole, parts)]
    assert both[0] == both[1] and len(both[0]) == 3 * 4 * 2
    kinds = Counter(t.start.kind for t in both[0].values())
    assert kinds["snapshot"] >= 4 and kinds["initial"] >= 1
    assert all(t.start == Start() for t in episodes(whole) if t.task.split != "train")
    one, two = (load_file(folder / "policy" / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [row for row in read_metrics(whole / "metrics.jsonl") if "starts/snapshot_frac" in row]
    assert len(rows) == 3 and rows[-1]["starts/waypoints_count"] > 0
