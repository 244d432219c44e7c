"""Guide prefixes, failures and restarts: where they lead, what they force, what they keep, what is refused."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import (
    Group,
    Message,
    Observation,
    RunFolderError,
    Span,
    Start,
    Trajectory,
    World,
    WorldMark,
    episode_seed,
)
from rollwright.curriculum import StartPool, StartSettings, has_teacher
from rollwright.curriculum.start_states import FAILED, SOLVED, FailureStates, RestartStates
from rollwright.envs.text import combination_lock
from rollwright.generation import Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits, TeacherActor

LOCK = combination_lock.combination(6, 2)
MARK = WorldMark(name="text.combination_lock", version="1", fingerprint="aa")


class Characters:
    """A context whose ids are characters: the whole history."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        self.ids += tuple(map(ord, f"<{observation.text}>"))
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return self.ids

    def act(self, generation: Generation) -> str:
        self.ids += generation.token_ids
        return "".join(map(chr, generation.token_ids)).split()[-1]


class Player:
    """Answers with the digit that `choose` says of the dial and the episode, one token."""

    name, version, context_length = "player", 0, 10_000

    def __init__(self, choose: Callable[[int, str], str]) -> None:
        self.choose = choose

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str) -> Generation:
        dial = int("".join(map(chr, prompt_ids)).rsplit("dial ", 1)[1].split(".")[0]) - 1
        ids = (ord(self.choose(dial, request_id)),)
        return Generation(
            token_ids=ids, logprobs=(-0.5,), finish_reason="stop", spans=(Span(start=0, end=1, version=0),)
        )

    def load_weights(self, weights: Any, *, version: int) -> None: ...

    def close(self) -> None: ...


def until(last: int) -> Callable[[int, str], str]:
    """Right up to this dial, wrong there: with `slip=over` an episode of `last + 1` turns."""
    return lambda dial, _: str(LOCK[dial] if dial < last else 1 - LOCK[dial])


def one_of_two(dial: int, request_id: str) -> str:
    """Even members of a group open the lock, odd ones fail at the fourth dial."""
    even = int(request_id.split("/")[-2]) % 2 == 0
    return str(LOCK[dial] if even or dial < 3 else 1 - LOCK[dial])


class Replayed(combination_lock.LockWorld):
    """The same lock, without exact snapshots."""

    snapshots = "replay"


@pytest.fixture(params=["exact", "replay"])
def world(request: pytest.FixtureRequest) -> combination_lock.LockWorld:
    built = combination_lock.build(slip="over")
    if request.param == "replay":
        built.__class__ = Replayed
    return built


def collector(world: World, choose: Callable[[int, str], str]) -> Collector:
    return Collector(
        world,
        EngineActor(Player(choose)),
        Characters,
        sampling=Sampling(max_tokens=1),
        limits=Limits(max_turns=18),
        faults=FaultLog(None, max_frac=1.0),
    )


def ask(world: World, key: str, size: int = 1) -> GroupRequest:
    return GroupRequest(key=key, task=world.tasks("train")[0], seed=episode_seed("train", key), size=size)


def played(world: World, choose: Callable[[int, str], str], requests: Sequence[GroupRequest]) -> list[Group]:
    made = collector(world, choose)
    groups = made.collect(requests)
    made.close()
    return groups


def only(groups: Sequence[Group]) -> Trajectory:
    return groups[0].trajectories[0]


# Failures


def failures(**changes: Any) -> StartPool:
    return StartPool(StartSettings(name="failures", frac=1.0, **changes), seed=0, horizon=18)


def test_a_failure_is_replayed_from_some_turns_before_its_end(world: combination_lock.LockWorld) -> None:
    pool = failures(back=2)
    first = pool.place([ask(world, "first")], 0)
    assert first[0].start is None and first[0].waypoint_every == 1
    pool.learn(played(world, until(4), first))
    again = pool.place([ask(world, "again")], 1)
    # Five turns and two back: it stands before the fourth dial, with all turns but three left.
    assert again[0].max_turns == 18 - 3 and again[0].start is not None and again[0].start.status == FAILED
    episode = only(played(world, lambda dial, _: str(LOCK[dial]), again))
    assert episode.start == Start(kind="failure", prefix_turns=3, source="first/0")
    assert episode.success and len(episode.turns) == 3


def test_a_short_failure_is_replayed_from_its_second_turn_and_one_of_one_turn_not_at_all(
    world: combination_lock.LockWorld,
) -> None:
    pool = failures(back=4)
    pool.learn(played(world, until(0), pool.place([ask(world, "at once")], 0)))
    assert pool.states is not None and pool.states.count == 0
    pool.learn(played(world, until(2), pool.place([ask(world, "short")], 0)))
    assert isinstance(pool.states, FailureStates)
    assert [len(one.passed) for one in pool.states.waypoints] == [1]


def test_what_fails_behind_a_failure_moves_the_start_on(world: combination_lock.LockWorld) -> None:
    pool = failures(back=1)
    pool.learn(played(world, until(2), pool.place([ask(world, "a")], 0)))
    pool.learn(played(world, until(4), pool.place([ask(world, "b")], 1)))
    assert isinstance(pool.states, FailureStates)
    assert [(one.source, len(one.passed)) for one in pool.states.waypoints] == [("a/0", 2), ("b/0", 4)]


def test_solved_and_cut_episodes_are_no_failures(world: combination_lock.LockWorld) -> None:
    pool = failures(max_turns=2)
    pool.learn(played(world, lambda dial, _: str(LOCK[dial]), pool.place([ask(world, "solved")], 0)))
    cut = replace(pool.place([ask(world, "cut")], 0)[0], max_turns=2, cut=True)
    pool.learn(played(world, lambda dial, _: str(LOCK[dial]), [cut]))
    assert pool.states is not None and pool.states.count == 0
    # Nothing to begin at yet: a run of successes goes on from the initial state.
    assert pool.draw(3, 0) is None


def test_the_newest_failures_are_kept(world: combination_lock.LockWorld) -> None:
    pool = failures(capacity=2)
    pool.learn(played(world, until(3), pool.place([ask(world, key) for key in "abc"], 0)))
    assert isinstance(pool.states, FailureStates)
    assert [one.source for one in pool.states.waypoints] == ["b/0", "c/0"]


# Restarts


def restarts(**changes: Any) -> StartPool:
    return StartPool(StartSettings(name="restarts", frac=1.0, **changes), seed=0, horizon=18)


def test_a_task_takes_part_once_it_was_solved_and_failed(world: combination_lock.LockWorld) -> None:
    """Satori: with p(correct) = 0 or 1 a problem gives no entry."""
    pool = restarts()
    pool.learn(played(world, until(3), pool.place([ask(world, "failed", size=4)], 0)))
    assert pool.draw(1, 0) is None
    pool.learn(played(world, lambda dial, _: str(LOCK[dial]), pool.place([ask(world, "solved")], 1)))
    assert pool.draw(1, 0) is not None
    only_solved = restarts()
    only_solved.learn(played(world, lambda dial, _: str(LOCK[dial]), only_solved.place([ask(world, "s")], 0)))
    assert only_solved.draw(1, 0) is None


def test_both_outcomes_are_drawn_as_often_however_many_there_are(world: combination_lock.LockWorld) -> None:
    pool = restarts()
    pool.learn(played(world, until(3), pool.place([ask(world, "failed", size=7)], 0)))
    pool.learn(played(world, lambda dial, _: str(LOCK[dial]), pool.place([ask(world, "solved")], 0)))
    counts = Counter(start.status for index in range(2000) if (start := pool.draw(1, index)))
    assert abs(counts[SOLVED] - 1000) < 100 and counts[SOLVED] + counts[FAILED] == 2000


def test_at_most_so_many_turns_are_taken_back_and_each_number_is_as_likely(
    world: combination_lock.LockWorld,
) -> None:
    pool = restarts(back=2)
    pool.learn(played(world, one_of_two, pool.place([ask(world, "g", size=2)], 0)))
    found = Counter((start.status, len(start.passed)) for i in range(2000) if (start := pool.draw(1, i)))
    # Six turns when solved, four when failed; one or two are taken back.
    assert set(found) == {(SOLVED, 5), (SOLVED, 4), (FAILED, 3), (FAILED, 2)}
    assert all(abs(count - 500) < 80 for count in found.values())
    wide = restarts(back=9)
    wide.learn(played(world, one_of_two, wide.place([ask(world, "g", size=2)], 0)))
    lengths = {len(start.passed) for i in range(500) if (start := wide.draw(1, i))}
    assert lengths == {1, 2, 3, 4, 5}, "the first turn is never taken back"


def test_a_restart_begins_with_the_reflection_and_keeps_the_ids_of_its_source(
    world: combination_lock.LockWorld,
) -> None:
    pool = restarts(back=1)
    reflections = [tuple(map(ord, "hm ")), tuple(map(ord, "wait "))]
    pool.reflect_by(reflections)
    before = played(world, one_of_two, pool.place([ask(world, "g", size=2)], 0))
    pool.learn(before)
    groups = played(
        world, lambda dial, _: str(LOCK[dial]), pool.place([ask(world, f"r{i}", size=2) for i in range(24)], 1)
    )
    sources = {t.id: t for t in before[0].trajectories}
    seen = set()
    for group in groups:
        assert group.start is not None and group.start.forced_ids in reflections
        seen.add((group.start.status, group.start.forced_ids))
        passed = sources[group.start.source].turns[: len(group.start.passed)]
        # No text is encoded again: the prefix is the very ids that were sampled.
        assert [p.action_ids for p in group.start.passed] == [turn.action_ids for turn in passed]
        for trajectory in group.trajectories:
            first = trajectory.turns[0]
            count = len(group.start.forced_ids)
            assert first.action_ids[:count] == group.start.forced_ids and trajectory.success
            assert first.policy_mask == (False,) * count + (True,)
            assert trajectory.start.kind == "restart" and trajectory.start.prefix_tokens == count
    assert len(seen) == 4
    # Restarted episodes leave nothing: the prefixes are those of whole episodes.
    assert isinstance(pool.states, RestartStates)
    pool.learn(groups)
    assert {ends[0].source for side in pool.states.ends[groups[0].task.id].values() for ends in side} == set(sources)


def test_restarts_keep_the_newest_episodes_and_drop_the_task_not_played_for_longest() -> None:
    world = combination_lock.build(lengths=(5, 6), slip="over")
    states = RestartStates(StartSettings(name="restarts", episodes=1, back=1, capacity=3))

    def learn(length: int, key: str, solved: bool) -> None:
        right = combination_lock.combination(length, 2)
        task = next(task for task in world.tasks("train") if task.params["length"] == length)
        request = replace(ask(world, key), task=task, waypoint_every=1)

        def choose(dial: int, _: str) -> str:
            return str(right[dial] if solved or dial < 2 else 1 - right[dial])

        states.learn(played(world, choose, [request]))

    learn(5, "a", True)
    learn(5, "b", True)
    learn(5, "c", False)
    assert [ends[0].source for ends in states.ends["train/lock5"][SOLVED]] == ["b/0"]
    learn(6, "d", True)
    learn(6, "e", False)
    assert list(states.ends) == ["train/lock6"]


# Guide prefixes


def guided(world: World, made: Collector, frac: float = 1.0, **changes: Any) -> StartPool:
    pool = StartPool(StartSettings(name="guide_prefix", frac=frac, **changes), seed=0, horizon=18)
    guide = TeacherActor(world, lambda text: tuple(map(ord, text)))
    pool.guided_by(lambda requests: made.collect_by(guide, requests), knows=lambda task: has_teacher(world, task))
    return pool


def test_a_group_begins_after_some_turns_of_a_guide_in_its_own_task_and_seed(
    world: combination_lock.LockWorld,
) -> None:
    made = collector(world, until(6))
    pool = guided(world, made)
    asked = [ask(world, f"g{i}", size=2) for i in range(40)]
    placed = pool.place(asked, 3)
    told = pool.metrics(groups := made.collect(placed))
    made.close()
    lengths = Counter(len(group.start.passed) for group in groups if group.start)
    # The guide opens the lock in six turns: k is uniform in 1 to 5.
    assert set(lengths) == {1, 2, 3, 4, 5} and sum(lengths.values()) == 40
    for request, group in zip(asked, groups, strict=True):
        assert (group.task, group.seed) == (request.task, request.seed) and group.start is not None
        assert group.start.kind == "guide_prefix" and group.start.source == f"{request.key} guide/0"
        for trajectory in group.trajectories:
            assert trajectory.success and len(trajectory.turns) == 6 - len(group.start.passed)
            assert trajectory.start.kind == "guide_prefix" and all(all(t.policy_mask) for t in trajectory.turns)
    assert told["starts/guide_turns_count"] == 240 and told["starts/guide_prefix_frac"] == 1.0
    assert pool.metrics([])["starts/guide_turns_count"] == 0


def test_the_prefixes_are_the_same_for_whoever_asks_again(world: combination_lock.LockWorld) -> None:
    made = collector(world, until(6))
    asked = [ask(world, f"g{i}") for i in range(12)]
    both = [guided(world, made, frac=0.6).place(asked, 2) for _ in range(2)]
    # As a further round of the same step: the numbers of the groups go on.
    tail = guided(world, made, frac=0.6).place(asked[5:], 2, 5)
    made.close()
    assert both[0] == both[1] and both[0][5:] == tail
    begun = [request.start is not None for request in both[0]]
    assert any(begun) and not all(begun)


def test_a_guide_that_fails_or_does_not_know_the_task_leaves_the_initial_state() -> None:
    world = combination_lock.build()

    class Lost:
        def act(self, env: Any, observation: Observation) -> str:
            raise ValueError("lost its way")

    world.teacher = lambda task: Lost()  # type: ignore[method-assign, assignment, return-value]
    made = collector(world, until(6))
    pool = guided(world, made)
    assert pool.place([ask(world, "g")], 0)[0].start is None
    assert pool.metrics([])["starts/guide_lost_count"] == 1
    world.teacher = lambda task: None  # type: ignore[method-assign, assignment, return-value]
    assert pool.place([ask(world, "g")], 0)[0].start is None
    assert pool.metrics([])["starts/guide_lost_count"] == 0
    made.close()


def test_no_guide_plays_after_the_phase() -> None:
    world = combination_lock.build()
    made = collector(world, until(6))
    pool = guided(world, made, steps=2)
    assert [pool.place([ask(world, "g")], step)[0].start is not None for step in range(4)] == [True, True, False, False]
    assert pool.metrics([])["starts/guide_turns_count"] == 12
    made.close()


# All kinds


@pytest.mark.parametrize("name", ["snapshots", "failures", "restarts"])
def test_every_kind_comes_back_from_a_checkpoint_and_draws_the_same(
    name: Any, world: combination_lock.LockWorld, tmp_path: Path
) -> None:
    settings = StartSettings(name=name, frac=0.9)
    pool = StartPool(settings, seed=4, horizon=18, mark=MARK)
    pool.learn(played(world, one_of_two, pool.place([ask(world, key, size=4) for key in "ab"], 0)))
    pool.save_state(tmp_path)
    again = StartPool(settings, seed=4, horizon=18, mark=MARK)
    again.load_state(tmp_path)
    for one in (pool, again):
        one.reflect_by([(1, 2), (3,)])
    drawn = [pool.draw(7, index) for index in range(60)]
    assert drawn == [again.draw(7, index) for index in range(60)]
    assert sum(start is not None for start in drawn) > 40
    # And both learn on alike.
    more = played(world, one_of_two, pool.place([ask(world, "c", size=4)], 8))
    for one in (pool, again):
        one.learn(more)
    assert [pool.draw(9, index) for index in range(60)] == [again.draw(9, index) for index in range(60)]


def test_states_of_another_world_version_are_refused(world: combination_lock.LockWorld, tmp_path: Path) -> None:
    pool = StartPool(StartSettings(name="failures"), seed=0, horizon=18, mark=MARK)
    pool.learn(played(world, until(3), pool.place([ask(world, "a")], 0)))
    pool.save_state(tmp_path)
    other = StartPool(StartSettings(name="failures"), seed=0, horizon=18, mark=replace(MARK, version="2"))
    with pytest.raises(RunFolderError, match=r"version 1 \(aa\).*version 2 \(aa\).*run\.folder"):
        other.load_state(tmp_path)


def test_the_figures_tell_the_kinds_and_the_outcomes_apart(world: combination_lock.LockWorld) -> None:
    pool = restarts(back=1)
    pool.learn(played(world, one_of_two, pool.place([ask(world, "g", size=2)], 0)))
    # Behind a solved episode it fails at the last dial; behind a failed one it opens the lock from the fourth.
    groups = played(world, until(5), pool.place([ask(world, f"r{i}", size=2) for i in range(12)], 1))
    told = pool.metrics([*groups, *played(world, until(6), [ask(world, "plain")])])
    assert told["starts/restart_frac"] == pytest.approx(12 / 13) and told["starts/initial_success_frac"] == 1.0
    assert told["starts/restart_solved_success_frac"] == 0.0 and told["starts/restart_failed_success_frac"] == 0.0
    assert told["starts/restart_success_frac"] == 0.0 and told["starts/waypoints_count"] == 2


def test_a_share_of_the_groups_keeps_the_initial_state(world: combination_lock.LockWorld) -> None:
    pool = StartPool(StartSettings(name="failures", frac=0.75), seed=0, horizon=18)
    pool.learn(played(world, until(3), pool.place([ask(world, "a")], 0)))
    drawn = sum(pool.draw(1, index) is not None for index in range(4000))
    assert abs(drawn / 4000 - 0.75) < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "failures", "frac": 1.2},
        {"name": "guide_prefix", "frac": -0.1},
        {"name": "failures", "back": 0},
        {"name": "restarts", "capacity": 0},
        {"name": "elsewhere"},
        {"name": "guide_prefix", "back": 1},
        {"name": "failures", "reflections": ["hm"]},
        {"name": "restarts", "pick": "uniform"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"starts|frac|back|capacity|name|without effect"):
        StartSettings.model_validate(wrong)


def test_draws_depend_on_the_generator_alone() -> None:
    world = combination_lock.build(slip="over")
    states = RestartStates(StartSettings(name="restarts"), reflections=[(1,), (2,)])
    asked = [replace(ask(world, "g", size=4), waypoint_every=1)]
    states.learn(played(world, one_of_two, asked))
    one, two = ([states.draw(random.Random(seed)) for seed in range(20)] for _ in range(2))
    assert one == two


def test_backward_to_forward_gives_all_but_one_turn_at_first(world: combination_lock.LockWorld) -> None:
    """TCOD's B2F: L - 1 - floor(step / every) turns of a guide that opens the lock in six."""
    made = collector(world, until(6))
    pool = guided(world, made, backward_every=5)
    placed = [pool.place([ask(world, f"g{step}")], step)[0].start for step in (0, 4, 5, 24, 25, 90)]
    made.close()
    assert [0 if start is None else len(start.passed) for start in placed] == [5, 5, 4, 1, 0, 0]
