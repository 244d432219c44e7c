"""The loop of methods on stored turns: the order of its verbs, when it learns and syncs, which draws a step has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rollwright.contracts.record import Group
from rollwright.rollout.ledger import StepClock
from rollwright.training.loop import Training
from rollwright.training.replay_loop import Metrics, ReplayMethod, replay_loop


class Run:
    """Two steps that write down what is asked of them."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.finished: list[tuple[int, int, Metrics]] = []
        self.config = SimpleNamespace(run=SimpleNamespace(seed=7))

    def steps(self) -> Iterator[int]:
        yield from (0, 1)

    def collect(self, step: int) -> list[str]:
        self.said.append("collect")
        return ["group"]

    def score(self, groups: list[str]) -> list[str]:
        self.said.append("score")
        return groups

    def remember(self, step: int, groups: Sequence[str]) -> None:
        self.said.append(f"remember {len(groups)}")

    @contextmanager
    def learning(self) -> Iterator[None]:
        self.said.append("learning")
        yield

    def sync(self) -> None:
        self.said.append("sync")

    def finish(self, step: int, groups: Sequence[str], metrics: Metrics) -> None:
        self.finished.append((step, len(groups), metrics))


class Method(ReplayMethod):
    """Step 0 is offline; both critics and policy say what they drew."""

    def __init__(self, run: Run, *, learns: bool = True) -> None:
        self.run, self.learns = run, learns

    def begin(self, step: int) -> bool:
        return step > 0

    def may_learn(self, groups: Sequence[Group]) -> bool:
        return self.learns

    def draw(self, step: int, groups: Sequence[Group]) -> None:
        self.run.said.append("draw")

    def fit(self) -> Metrics:
        self.run.said.append("fit")
        return {"critic/drawn": float(self.draws.random())}

    def update(self) -> Metrics:
        self.run.said.append("update")
        return {"policy/drawn": float(self.draws.random())}

    def metrics(self) -> Metrics:
        return {"buffer": 1.0}


LEARNED = ["learning", "draw", "fit", "update"]


def played(method: ReplayMethod, run: Run) -> Run:
    replay_loop(cast(Training, run), method)
    return run


def test_a_step_collects_remembers_draws_fits_updates_and_syncs_in_this_order() -> None:
    run = Run()
    played(Method(run), run)
    assert run.said == ["remember 0", *LEARNED, "sync", "collect", "score", "remember 1", *LEARNED, "sync"]
    assert [(step, groups) for step, groups, _ in run.finished] == [(0, 0), (1, 1)]
    assert all(metrics.keys() == {"critic/drawn", "policy/drawn", "buffer"} for _, _, metrics in run.finished)


def test_a_step_that_may_not_learn_changes_nothing_and_still_says_what_there_is() -> None:
    run = Run()
    played(Method(run, learns=False), run)
    assert run.said == ["remember 0", "collect", "score", "remember 1"]
    assert [metrics for _, _, metrics in run.finished] == [{"buffer": 1.0}] * 2


def test_a_policy_that_stands_still_is_not_handed_to_the_engine() -> None:
    class Still(Method):
        policy_moves = False

    run = Run()
    played(Still(run), run)
    assert "sync" not in run.said and run.said.count("update") == 2


def test_draws_are_those_of_seed_and_step() -> None:
    one, two = Run(), Run()
    for run in (one, two):
        played(Method(run), run)
    assert one.finished == two.finished
    first, second = (metrics for _, _, metrics in one.finished)
    assert len({*first.values(), *second.values()} - {1.0}) == 4, "each draw of each step differs"
    other = Run()
    other.config.run.seed = 8
    assert played(Method(other), other).finished != one.finished


def test_a_stage_inside_itself_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that is made while the loop is learning: 1 s, and not 1 s and another one."""
    now = [0.0]
    monkeypatch.setattr("rollwright.rollout.ledger.time.monotonic", lambda: now[0])
    ledger: Any = SimpleNamespace(begin=lambda: None, end=lambda timings: {})
    clock = StepClock(ledger)
    clock.begin()
    with clock.timed("time/update_s"), clock.timed("time/update_s"):
        now[0] += 1.0
    assert clock.metrics()["time/update_s"] == 1.0
    with clock.timed("time/update_s"):
        now[0] += 0.5
    assert clock.metrics()["time/update_s"] == 1.5
