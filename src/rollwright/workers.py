"""Threads for calls that block and may never come back: one that hangs is left behind and replaced.

A pool of fixed size is no use here: every call that hangs takes one of its threads for good, until all later calls
wait in its queue; and the interpreter joins the threads of `concurrent.futures` before it ends. These are daemons.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_Answer = Callable[[Any, BaseException | None], None]
_Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, _Answer]


class Workers:
    """Runs blocking calls for an event loop. Threads are made as needed and kept while idle.

    Args:
        name: of the threads, for stack dumps.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._idle: list[_Worker] = []
        self._made = 0
        self._closed = False

    async def call(self, method: Callable[..., T], *args: object, timeout_s: float | None) -> T:
        """The result of `method(*args)`.

        Raises:
            TimeoutError: no answer within `timeout_s`; the thread is left to whatever holds it until that lets go.
            Whatever the method raised.
        """
        worker = self._idle.pop() if self._idle else self._new()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, _expire, future)
        worker.jobs.put((partial(method, *args), loop, partial(self._answered, worker, future, timer)))
        return await future

    def close(self) -> None:
        """Let idle threads end. Abandoned ones end with the process. Idempotent."""
        self._closed = True
        for worker in self._idle:
            worker.jobs.put(None)
        self._idle.clear()

    def _new(self) -> _Worker:
        self._made += 1
        return _Worker(f"{self.name}-{self._made}")

    def _answered(
        self,
        worker: _Worker,
        future: asyncio.Future[Any],
        timer: asyncio.TimerHandle | None,
        result: Any,
        error: BaseException | None,
    ) -> None:
        """In the loop: the thread is free again, even where nobody waits any more."""
        if self._closed:
            worker.jobs.put(None)
        else:
            self._idle.append(worker)
        if timer is not None:
            timer.cancel()
        _settle(future, result, error)


class _Worker:
    """One thread and its queue; `None` in the queue ends it."""

    def __init__(self, name: str) -> None:
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            call, loop, answer = job
            try:
                result, error = call(), None
            except BaseException as raised:
                result, error = None, raised
            try:
                loop.call_soon_threadsafe(answer, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del job, call, answer, result, error  # an idle thread must not keep the last environment alive


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):  # a future cannot carry it
        error = RuntimeError(f"the call raised {error!r}")
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:
        future.set_exception(RuntimeError(f"the call ended its thread: {error!r}"))


async def bounded(running: Any, timeout_s: float, *, grace_s: float = 2.0) -> Any:
    """`asyncio.wait_for` for foreign coroutines: one that does not obey its cancellation is left behind.

    Raises:
        TimeoutError: no answer within `timeout_s`.
        Whatever the coroutine raised.
    """
    task = asyncio.ensure_future(running)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        await _end(task, grace_s)
        raise
    if task.done():
        return task.result()
    await _end(task, grace_s)
    raise TimeoutError


async def _end(task: asyncio.Future[Any], grace_s: float) -> None:
    """Cancel and wait a moment: whoever cleans up after itself may finish."""
    task.cancel()
    task.add_done_callback(_look_at)
    await asyncio.wait({task}, timeout=grace_s)


def _look_at(task: asyncio.Future[Any]) -> None:
    """Whatever comes late is nobody's any more; asyncio would complain that nobody asked."""
    if not task.cancelled():
        task.exception()
