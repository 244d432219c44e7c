"""What the learner is given and when: replacement of equal groups, the bound on staleness, what is dropped, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from rollwright.batching.credit import flatten
from rollwright.config import build
from rollwright.contracts.errors import ConfigError, FaultBudgetExceeded
from rollwright.contracts.record import Group, Span, StopReason, Task, Trajectory, Turn
from rollwright.contracts.reward import EnvReward, score_group
from rollwright.curriculum.samplers import BandCurriculum, Curriculum, UniformCurriculum
from rollwright.recipes.grpo import GrpoConfig
from rollwright.rollout import GroupRequest
from rollwright.rollout.ledger import is_informative
from rollwright.rollout.rollout_settings import RolloutSettings
from rollwright.rollout.run_ahead import Ahead, StaleCount, length_bucket, oldest_version, staleness
from rollwright.training.collection import OnPolicy, Requests, fill_with_informative
from rollwright.training.pipeline import Pipeline, open_collection
from tests import builders

TASKS = [Task(id=name, split="train") for name in ("easy", "hard", "mixed")]


def turn(version: int = 0, reward: float = 0.0, **changes: Any) -> Turn:
    spans = (Span(start=0, end=2, version=version),)
    return builders.turn((1,), (2, 3), reward, logprobs=-0.5, text="go", **({"spans": spans} | changes))


def episode(request: GroupRequest, index: int, turns: Sequence[Turn]) -> Trajectory:
    return builders.episode(f"{request.key}/{index}", *turns, task=request.task, seed=request.seed)


class Scripted:
    """A policy that always solves `easy`, never `hard`, and `mixed` by its even members alone."""

    def __init__(self) -> None:
        self.asked: list[GroupRequest] = []

    def play(self, requests: Sequence[GroupRequest], progress: Callable[[Trajectory], None]) -> list[Group]:
        self.asked += requests
        return [self.group(request) for request in requests]

    def group(self, request: GroupRequest) -> Group:
        earned = {"easy": lambda i: 1.0, "hard": lambda i: 0.0, "mixed": lambda i: float(i % 2 == 0)}[request.task.id]
        members = tuple(episode(request, i, [turn(reward=earned(i))]) for i in range(request.size))
        return Group(id=request.key, task=request.task, seed=request.seed, trajectories=members)


def requests(curriculum: Curriculum, **keys: Any) -> Requests:
    return Requests(RolloutSettings(**({"groups_per_step": 3, "group_size": 2} | keys)), curriculum, seed=5)


def pipeline(start: Any, curriculum: Curriculum, *, version: Callable[[], int] = lambda: 0, **keys: Any) -> Pipeline:
    return Pipeline(requests(curriculum, **keys), start, version=version, steps=10)


# --- dynamic sampling ----------------------------------------------------------------------------------------------


class Heard(UniformCurriculum):
    """A curriculum that writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(TASKS, seed=0)
        self.told: list[str] = []

    def update(self, groups: Sequence[Group]) -> None:
        self.told += [group.id for group in groups]


def fill(max_rounds: int, curriculum: Curriculum, policy: Scripted, step: int = 0) -> list[Group]:
    pipe = OnPolicy(requests(curriculum), policy.play)

    def score(groups: Sequence[Group]) -> list[Group]:
        scored = [score_group(group, EnvReward()) for group in groups]
        curriculum.update(scored)
        return scored

    return fill_with_informative(pipe.take(step), wanted=3, max_rounds=max_rounds, score=score, more=pipe.more)


def test_equal_groups_are_replaced_until_the_batch_is_full() -> None:
    policy, curriculum = Scripted(), Heard()
    groups = fill(20, curriculum, policy)
    assert sum(map(is_informative, groups)) == 3
    assert len(groups) > 3 and [r.key for r in policy.asked] == [g.id for g in groups]


def test_the_rounds_end_at_their_limit_with_what_there_is() -> None:
    only_equal = UniformCurriculum(TASKS[:2], seed=0)
    policy = Scripted()
    assert len(fill(4, only_equal, policy)) == 4 * 3 and not any(map(is_informative, fill(4, only_equal, Scripted())))
    assert len(fill(1, only_equal, Scripted())) == 3


def test_each_round_asks_for_as_many_as_are_missing() -> None:
    policy = Scripted()
    groups = fill(2, Heard(), policy)  # every pass over the three tasks holds `mixed` once
    assert [r.task.id for r in policy.asked[:3]].count("mixed") == 1
    assert len(groups) == 3 + 2


def test_the_curriculum_hears_of_every_group_once_those_without_a_lesson_too() -> None:
    curriculum = Heard()
    groups = fill(20, curriculum, Scripted())
    assert curriculum.told == [group.id for group in groups]
    band = BandCurriculum(TASKS, seed=0, momentum=0.0)
    fill(20, band, Scripted())
    assert band.success == {"easy": 1.0, "hard": 0.0, "mixed": 0.5}


def test_replacements_have_keys_and_starts_of_their_own_and_the_same_ones_in_every_run() -> None:
    first, second = Scripted(), Scripted()
    fill(20, Heard(), first, step=4)
    fill(20, Heard(), second, step=4)
    assert [(r.key, r.seed, r.task.id) for r in first.asked] == [(r.key, r.seed, r.task.id) for r in second.asked]
    keys = [r.key for r in first.asked]
    assert keys[:4] == ["5/4/0", "5/4/1", "5/4/2", "5/4/3"] and len(set(keys)) == len(keys)
    assert len({r.seed for r in first.asked}) == len(keys)


# --- staleness -----------------------------------------------------------------------------------------------------

REQUEST = GroupRequest(key="k", task=TASKS[0], seed=1, size=1)


def test_the_age_of_an_episode_is_that_of_its_oldest_trained_token() -> None:
    mixed = turn(spans=(Span(start=0, end=1, version=6), Span(start=1, end=2, version=8)))
    forced = turn(spans=(Span(start=0, end=2, version=1, producer="guide"),))
    played = episode(REQUEST, 0, [turn(version=9), mixed, forced])
    assert oldest_version(played) == 6 and staleness(played, 10) == 4
    assert oldest_version(episode(REQUEST, 0, [forced])) is None and staleness(episode(REQUEST, 0, [forced]), 10) == 0


def test_what_is_older_than_the_limit_is_dropped_and_counted_by_length() -> None:
    # current 10: ages 0, 2 and 4 of the card's example; the long one is the old one
    ages = {"new": [turn(10)], "middle": [turn(8)] * 3, "old": [turn(6)] * 5}
    members = tuple(episode(REQUEST, i, turns) for i, turns in enumerate(ages.values()))
    group = Group(id="g", task=TASKS[0], seed=1, trajectories=members)
    count = StaleCount(max_staleness=2)
    [kept] = count.keep([group], 10)
    assert [t.id for t in kept.trajectories] == ["k/0", "k/1"]
    assert count.metrics() == {
        "rollout/staleness_mean": 1.0,
        "rollout/staleness_max": 2.0,
        "rollout/stale_frac": pytest.approx(1 / 3),
        "rollout/stale_turns_1_frac": 0.0,
        "rollout/stale_turns_2_frac": 0.0,
        "rollout/stale_turns_4_frac": 1.0,
    }
    assert count.keep([group.with_trajectories(members[2:])], 10) == []


def test_what_is_dropped_is_kept_marked_so_that_nobody_learns_from_it() -> None:
    old, lost = episode(REQUEST, 0, [turn(6)]), episode(REQUEST, 1, [turn(6)])
    lost = replace(lost, stop_reason=StopReason.ENV_ERROR)
    group = Group(id="g", task=TASKS[0], seed=1, trajectories=(old, lost))
    count = StaleCount(max_staleness=2)
    assert count.keep([group], 10) == []
    marked, fault = count.lost
    assert old.learnable and not marked.learnable and marked.turns == old.turns
    assert marked.score is not None and marked.score.value is None and "4 weight updates old" in marked.score.message
    assert fault == lost, "a fault gets no score, not even an undecided one"
    with pytest.raises(ValueError, match="to learn from"):
        flatten([group.with_trajectories([marked])])


def test_lengths_are_counted_in_powers_of_two() -> None:
    assert [length_bucket(n) for n in (0, 1, 2, 3, 4, 7, 8, 40)] == [1, 1, 2, 2, 4, 4, 8, 32]


class Held:
    """A generator whose groups are finished when the test says so, with the version of when they were issued."""

    def __init__(self) -> None:
        self.version = 0
        self.open: dict[str, tuple[GroupRequest, Future[list[Group]], int]] = {}

    def start(self, requests: Sequence[GroupRequest], progress: object) -> Future[list[Group]]:
        [request] = requests
        future: Future[list[Group]] = Future()
        self.open[request.key] = (request, future, self.version)
        return future

    def finish(self, *keys: str, turns: int = 1) -> None:
        for key in keys:
            request, future, version = self.open.pop(key)
            members = tuple(episode(request, i, [turn(version)] * turns) for i in range(request.size))
            future.set_result([Group(id=key, task=request.task, seed=request.seed, trajectories=members)])


def held(**keys: Any) -> tuple[Held, Pipeline]:
    generator = Held()
    return generator, pipeline(generator.start, Heard(), version=lambda: generator.version, **keys)


def test_the_generator_gets_k_batches_ahead_and_no_further() -> None:
    generator, pipe = held(max_staleness=2, groups_per_step=1)
    waiting = threading.Thread(target=lambda: pipe.take(0), daemon=True)
    waiting.start()
    while len(generator.open) < 3:
        time.sleep(0.001)
    assert list(generator.open) == ["5/0/0", "5/1/0", "5/2/0"]
    generator.finish("5/0/0")
    waiting.join(10)
    generator.finish("5/1/0", "5/2/0")
    generator.version = 1
    assert [g.id for g in pipe.take(1)] == ["5/1/0"]
    assert list(generator.open) == ["5/3/0"], "one was taken, so one more may be begun"


def test_nothing_is_played_that_no_step_will_use() -> None:
    generator, pipe = held(max_staleness=4, groups_per_step=1)
    pipe.steps = 2
    threading.Thread(target=lambda: pipe.take(0), daemon=True).start()
    while len(generator.open) < 2:
        time.sleep(0.001)
    time.sleep(0.05)
    assert list(generator.open) == ["5/0/0", "5/1/0"]


def test_what_is_finished_first_is_used_first_and_a_straggler_that_grew_too_old_is_replaced() -> None:
    generator, pipe = held(max_staleness=1, groups_per_step=1)
    taken: list[str] = []

    def learn(step: int) -> threading.Thread:
        thread = threading.Thread(target=lambda: taken.extend(g.id for g in pipe.take(step)), daemon=True)
        thread.start()
        return thread

    first = learn(0)
    while len(generator.open) < 2:
        time.sleep(0.001)
    generator.finish("5/1/0")  # begun later, finished earlier
    first.join(10)
    generator.version = 1
    second = learn(1)
    while "5/2/0" not in generator.open:
        time.sleep(0.001)
    generator.finish("5/2/0")
    second.join(10)
    generator.version = 2
    generator.finish("5/0/0", turns=9)  # version 0 at version 2: too old
    third = learn(2)
    while "5/2/1" not in generator.open:
        time.sleep(0.001)
    generator.finish("5/2/1")
    third.join(10)
    assert taken == ["5/1/0", "5/2/0", "5/2/1"]
    metrics = pipe.metrics()
    assert metrics["rollout/stale_turns_8_frac"] == 1.0 and metrics["rollout/stale_turns_1_frac"] == 0.0
    assert {t.id.rpartition("/")[0] for t in pipe.dropped()} == {"5/0/0"} and pipe.dropped() == []


def test_what_waits_when_the_run_stops_is_handed_out_marked() -> None:
    generator, pipe = held(max_staleness=2, groups_per_step=1)
    waiting = threading.Thread(target=lambda: pipe.take(0), daemon=True)
    waiting.start()
    while len(generator.open) < 3:
        time.sleep(0.001)
    generator.finish("5/0/0")
    waiting.join(10)
    generator.finish("5/2/0")  # finished and never taken; 5/1/0 is in flight
    pipe.close()
    left = pipe.dropped()
    assert {t.id.rpartition("/")[0] for t in left} == {"5/0/0", "5/2/0"}, "taken and not stored, finished and not taken"
    assert not any(t.learnable for t in left) and pipe.dropped() == []
    pipe.close()
    assert pipe.dropped() == []


def test_of_what_is_finished_the_oldest_goes_first_also_when_it_finished_last() -> None:
    generator = Held()
    ahead = Ahead(generator.start)
    ahead.issue([GroupRequest(key=key, task=TASKS[0], seed=1, size=1) for key in "abcd"])
    generator.finish("d", "c")
    assert [g.id for g in ahead.take(1)] == ["c"]
    generator.finish("a")
    assert [g.id for g in ahead.take(1)] == ["a"]
    assert [g.id for g in ahead.take(1)] == ["d"] and ahead.outstanding == 1


def test_on_policy_a_batch_comes_back_whole_and_nothing_is_left_in_flight() -> None:
    policy, heard = Scripted(), []
    source = OnPolicy(requests(Heard()), lambda asked, watch: (heard.append(watch), policy.play(asked, watch))[1])
    with source.watched(print):
        groups = source.take(2)
    assert [g.id for g in groups] == ["5/2/0", "5/2/1", "5/2/2"] == [r.key for r in policy.asked]
    assert [g.id for g in source.more(2)] == ["5/2/3", "5/2/4"] and source.metrics() == {"rollout/rounds_count": 2.0}
    assert heard == [print, None], "episodes are told of while somebody watches"
    source.close()
    assert source.dropped() == []


def test_an_error_of_the_generator_reaches_the_waiting_learner() -> None:
    generator, pipe = held(max_staleness=1, groups_per_step=1)
    caught: list[BaseException] = []

    def learn() -> None:
        try:
            pipe.take(0)
        except FaultBudgetExceeded as error:
            caught.append(error)

    thread = threading.Thread(target=learn, daemon=True)
    thread.start()
    while len(generator.open) < 2:
        time.sleep(0.001)
    generator.open["5/1/0"][1].set_exception(FaultBudgetExceeded("all browsers are gone"))
    thread.join(10)
    assert [str(error) for error in caught] == ["all browsers are gone"]


def test_a_wait_that_could_not_end_is_refused() -> None:
    with pytest.raises(ValueError, match="2 groups are wanted and 0 were issued"):
        Ahead(held()[0].start).take(2)


def test_settings_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"world": {"name": "text.maze"}}
    with pytest.raises(ConfigError, match="correction"):
        build(GrpoConfig, plain | {"rollout": {"max_staleness": 1}, "algorithm": {"correction": "none"}})
    with pytest.raises(ConfigError, match="schedule"):
        build(GrpoConfig, plain | {"rollout": {"max_staleness": 1, "schedule": "rounds"}})
    with pytest.raises(ConfigError, match="no effect"):
        build(GrpoConfig, plain | {"algorithm": {"drop_equal_groups": False, "max_rounds": 3}})
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = build(GrpoConfig, plain | {"rollout": {"max_staleness": 1}})
    with pytest.raises(ConfigError, match="2 were started"):
        open_collection(config, None, None, None)  # type: ignore[arg-type]
