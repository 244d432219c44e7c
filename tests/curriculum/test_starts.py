"""Snapshot starts: the sampling law, restored episodes token by token, cuts, faults, what a checkpoint keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollwright.contracts.environment import episode_seed
from rollwright.contracts.record import Group, Message, Span, Start, StopReason, Waypoint
from rollwright.curriculum.curriculum_settings import StartSettings
from rollwright.curriculum.start_states import SnapshotStates, Visited, cluster_values, scaled_within
from rollwright.curriculum.starts import StartPool
from rollwright.curriculum.waypoints import from_row, to_row, waypoints_of
from rollwright.envs.text import combination_lock
from rollwright.generation.engine import Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits

ROOT = Path(__file__).parents[2]
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


def snapshots_of(pool: StartPool) -> SnapshotStates:
    assert isinstance(pool.states, SnapshotStates)
    return pool.states


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
    from rollwright.rollout.restoring import prompt_digest

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
    snapshots_of(pool).visited = [Visited(earned=1.0, waypoints=waypoints[4:], values=(1.0,))]
    request = pool.place([ask(world)], 0)[0]
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
    snapshots_of(pool).visited = [Visited(earned=1.0, waypoints=waypoints[4:], values=(1.0,))]
    request = pool.place([ask(world)], 0)[0]
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
    snapshots_of(pool).visited = [Visited(earned=0.0, waypoints=waypoints, values=tuple(values))]
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
    assert pool.place([replace(plain, waypoint_every=0)], 3) == [replace(plain, waypoint_every=0)]
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
    assert [one.waypoints[0].source for one in snapshots_of(pool).visited] == ["lost 2/0", "lost 3/0"]
    pool.learn(played(world, knows, ["won"]))
    assert [one.waypoints[0].source for one in snapshots_of(pool).visited] == ["lost 3/0", "won/0"]
    assert pool.metrics([])["starts/waypoints_count"] == 17 + 5


def test_f_is_the_discounted_return_or_the_turns_left() -> None:
    group = played(combination_lock.build(), knows, ["won"])
    by_return = StartPool(StartSettings(name="snapshots", gamma=0.5), seed=0, horizon=18)
    by_return.learn(group)
    # the reward comes with the sixth turn: 0.5^4 from the second dial, 1 from the last
    assert snapshots_of(by_return).visited[0].values == (0.0625, 0.125, 0.25, 0.5, 1.0)
    by_progress = StartPool(StartSettings(name="snapshots", value="progress"), seed=0, horizon=20)
    by_progress.learn(group)
    assert snapshots_of(by_progress).visited[0].values == pytest.approx((0.75, 0.8, 0.85, 0.9, 0.95))


def test_no_more_waypoints_than_there_is_room_for() -> None:
    pool = StartPool(StartSettings(name="snapshots", capacity=11), seed=0, horizon=18)
    pool.learn(played(combination_lock.build(), knows, ["a", "b", "c"]))
    assert [one.waypoints[0].source for one in snapshots_of(pool).visited] == ["b/0", "c/0"]


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
    assert snapshots_of(again).visited == snapshots_of(pool).visited
    assert [again.draw(7, k) for k in range(50)] == [pool.draw(7, k) for k in range(50)]
    _, waypoints = passed_by(world)
    assert from_row(to_row(waypoints)) == waypoints and from_row(to_row(())) == ()


def test_keys_of_another_kind_of_start_are_refused() -> None:
    for wrong in ({"frac": 0.5}, {"name": "snapshots", "pick": "uniform", "clusters": 3}):
        with pytest.raises(ValueError, match="without effect"):
            StartSettings.model_validate(wrong)
