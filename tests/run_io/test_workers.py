"""Threads for blocking calls: every call gets one in time, a hanging one keeps none of the others, nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from rollwright.run_io.workers import Workers


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.01)


async def together(workers: Workers, calls: list[Callable[[], Any]], timeout_s: float | None = 60.0) -> list[Any]:
    running = (workers.call(call, timeout_s=timeout_s) for call in calls)
    return await asyncio.gather(*running, return_exceptions=True)


def test_calls_that_wait_for_each_other_are_all_under_way() -> None:
    workers, barrier = Workers("meet"), threading.Barrier(40)
    for _ in range(2):  # with new threads, then with those that are there
        assert sorted(asyncio.run(together(workers, [lambda: barrier.wait(30)] * 40))) == list(range(40))
    assert len(threads("meet")) == 40
    workers.close()
    until(lambda: not threads("meet"))
    assert asyncio.run(together(workers, [lambda: 1, lambda: 2])) == [1, 2], "closing worlds are still called"
    until(lambda: not threads("meet"))


def test_calls_one_after_the_other_share_a_thread() -> None:
    async def one_by_one() -> list[str]:
        return [await workers.call(lambda: threading.current_thread().name, timeout_s=30.0) for _ in range(50)]

    workers = Workers("row")
    assert len(set(asyncio.run(one_by_one()))) == 1
    workers.close()


def test_a_call_that_hangs_is_left_behind_and_its_thread_comes_back() -> None:
    workers, let_go = Workers("hang"), threading.Event()

    async def play() -> list[Any]:
        with pytest.raises(TimeoutError):
            await workers.call(let_go.wait, timeout_s=0.05)
        return await together(workers, [lambda k=k: k for k in range(20)])

    assert asyncio.run(play()) == list(range(20))
    let_go.set()
    until(lambda: len(workers._asleep) == len(threads("hang")))
    workers.close()
    until(lambda: not threads("hang"))


def test_what_a_call_raises_comes_back_and_costs_no_thread() -> None:
    def bad(error: BaseException) -> Callable[[], None]:
        def call() -> None:
            raise error

        return call

    workers = Workers("bad")
    raised = [ValueError("v"), StopIteration("s"), SystemExit(3)]
    found = asyncio.run(together(workers, [*map(bad, raised), lambda: "fine"]))
    assert found[0] is raised[0] and found[3] == "fine"
    assert [type(error) for error in found[1:3]] == [RuntimeError, RuntimeError]
    until(lambda: len(workers._asleep) == len(threads("bad")))
    workers.close()


def test_nothing_is_lost_between_two_loops_and_many_threads() -> None:
    workers, results = Workers("mixed"), {}

    def run(number: int) -> None:
        draws = random.Random(number)
        waits = [draws.choice([0.0, 0.0, 0.0, 0.001, 0.01]) for _ in range(400)]
        calls = [lambda k=k, wait=wait: (wait and time.sleep(wait), number, k)[1:] for k, wait in enumerate(waits)]
        results[number] = asyncio.run(together(workers, calls))

    loops = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(120)
    assert results == {number: [(number, k) for k in range(400)] for number in (1, 2)}
    workers.close()
    until(lambda: not threads("mixed"))


def test_a_sleeping_thread_keeps_nothing_alive() -> None:
    class World:
        def step(self) -> None: ...

    workers, world = Workers("free"), World()
    gone = weakref.ref(world)
    asyncio.run(workers.call(world.step, timeout_s=30.0))
    del world
    until(lambda: len(workers._asleep) == 1)
    gc.collect()
    assert gone() is None
    workers.close()


def test_an_answer_after_its_loop_has_gone_ends_in_silence() -> None:
    workers, let_go = Workers("late"), threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await workers.call(let_go.wait, timeout_s=0.05)

    asyncio.run(leave())
    let_go.set()
    until(lambda: len(workers._asleep) == 1)
    assert asyncio.run(workers.call(lambda: 5, timeout_s=30.0)) == 5
    workers.close()


def test_a_system_without_more_threads_is_an_error_of_that_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, start = Workers("few"), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def play() -> list[Any]:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await workers.call(lambda: 1, timeout_s=30.0)
        monkeypatch.setattr(threading.Thread, "start", start)
        await workers.call(lambda: 2, timeout_s=30.0)
        until(lambda: len(workers._asleep) == 1)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        return await together(workers, [lambda k=k: k for k in range(5)])

    found = asyncio.run(play())
    assert found[0] == 0, "the thread that is there takes it"
    assert all(found[k] == k or isinstance(found[k], RuntimeError) for k in range(5))
    assert not workers._jobs
    workers.close()
