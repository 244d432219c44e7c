"""Threads for calls that block and may never come back: one that hangs is left behind and replaced.

A pool of fixed size is no use here: every call that hangs takes one of its threads for good, until all later calls
wait in its queue; and the interpreter joins the threads of `concurrent.futures` before it ends. These are daemons.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """Runs blocking calls for event loops. Threads are made as needed and kept while they have nothing to do.

    To wake a thread on another core takes longer than most calls. So of a burst of calls one thread is woken, which
    wakes the next before its own call can block; it takes another as soon as that call is over. Whatever ends in
    the meantime is told to the event loop at one time.

    Args:
        name: of the threads, for stack dumps.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()  # of what follows
        self._asleep: list[threading.Lock] = []  # one of each thread without a call, which it waits for
        self._coming = 0  # threads that will look for a call next: woken, made, or done with one
        self._made = 0
        self._closed = False
        self._mailbox: _Mailbox | None = None

    async def call(self, method: Callable[..., T], *args: object, timeout_s: float | None) -> T:
        """The result of `method(*args)`.

        Raises:
            TimeoutError: no answer within `timeout_s`; the thread is left to whatever holds it until that lets go.
            RuntimeError: the system gives no more threads.
            Whatever the method raised.
        """
        loop = asyncio.get_running_loop()
        # A mailbox can wake one event loop only, and this caller may run in another one than the last.
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = _Mailbox(loop)
        job = _Job(partial(method, *args), self._mailbox, loop.create_future())
        # Before a thread is called, so that one that becomes free in between finds it.
        self._jobs.append(job)
        try:
            self._call_a_thread()
        except RuntimeError:
            # No thread can be made. If a busy one has taken the job meanwhile, its answer still comes.
            if self._take_back(job):
                raise
        if timeout_s is not None:
            job.timer = loop.call_later(timeout_s, _expire, job.future)
        result: T = await job.future
        return result

    def close(self) -> None:
        """Let idle threads end. Abandoned ones end with the process. Idempotent."""
        with self._lock:
            self._closed = True
            asleep, self._asleep = self._asleep, []
            # Each of them subtracts itself once, when it wakes and looks for a call.
            self._coming += len(asleep)
        for sleeper in asleep:
            sleeper.release()

    def _take_back(self, job: _Job) -> bool:
        """Whether it was still waiting; a thread that had become free may have taken it."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def _call_a_thread(self) -> None:
        """Wake or make a thread for the next call, unless one is on its way."""
        with self._lock:
            if self._coming or not self._jobs:
                return
            self._coming = 1
            sleeper = self._asleep.pop() if self._asleep else None
            self._made += sleeper is None
        if sleeper is not None:
            sleeper.release()
            return
        try:
            threading.Thread(target=self._work, name=f"{self.name}-{self._made}", daemon=True).start()
        except BaseException:
            with self._lock:
                self._coming -= 1
            raise

    def _work(self) -> None:
        """One thread: call after call, and sleep where there is none."""
        # The thread sleeps by acquiring this lock a second time; whoever wants it awake releases the lock.
        sleeper = threading.Lock()
        sleeper.acquire()
        while True:
            with self._lock:
                self._coming -= 1
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    if self._closed:
                        return
                    self._asleep.append(sleeper)
            if job is None:
                sleeper.acquire()
                continue
            if self._jobs:
                with suppress(RuntimeError):  # no more threads: the next call waits until one is free
                    self._call_a_thread()  # before this one, which may block
            answer = job.run()
            with self._lock:
                self._coming += 1  # before anyone knows: calls one after the other meet the same thread
            job.mailbox.put(answer)
            del job, answer  # a sleeping thread must not keep the last environment alive


@dataclass(eq=False, slots=True)
class _Job:
    """One call, and who waits for it."""

    call: Callable[[], Any]
    mailbox: _Mailbox
    future: asyncio.Future[Any]
    timer: asyncio.TimerHandle | None = None

    def run(self) -> Callable[[], None]:
        """In a thread. -> what is to be done in the loop."""
        try:
            result, error = self.call(), None
        # Whatever is raised belongs to the caller; it must not end the thread.
        except BaseException as raised:
            result, error = None, raised
        return partial(self._answer, result, error)

    def _answer(self, result: Any, error: BaseException | None) -> None:
        """In the loop."""
        if self.timer is not None:
            self.timer.cancel()
        _settle(self.future, result, error)


@dataclass(eq=False, slots=True)
class _Mailbox:
    """Answers on their way to one event loop, which is woken once for all that it has not fetched yet."""

    loop: asyncio.AbstractEventLoop
    _answers: deque[Callable[[], None]] = field(default_factory=deque)
    _told: bool = False

    def put(self, answer: Callable[[], None]) -> None:
        self._answers.append(answer)
        if not self._told:
            self._told = True
            try:
                self.loop.call_soon_threadsafe(self._fetch)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._answers.clear()

    def _fetch(self) -> None:
        self._told = False  # first: what comes from here on says so again
        while self._answers:
            self._answers.popleft()()


def _expire(future: asyncio.Future[Any]) -> None:
    # The answer, or a cancellation, may have come first.
    if not future.done():
        future.set_exception(TimeoutError())


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    # The caller has had its TimeoutError, or was cancelled.
    if future.done():
        return
    if isinstance(error, StopIteration):  # a future cannot carry it
        error = RuntimeError(f"the call raised {error!r}")
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:
        # asyncio lets SystemExit and KeyboardInterrupt of a task end the whole event loop.
        future.set_exception(RuntimeError(f"the call ended its thread: {error!r}"))


async def bounded(running: Any, timeout_s: float, *, grace_s: float = 2.0) -> Any:
    """`asyncio.wait_for` for foreign coroutines: one that does not obey its cancellation is left behind.

    Raises:
        TimeoutError: no answer within `timeout_s`.
        Whatever the coroutine raised.
    """
    task = asyncio.ensure_future(running)
    try:
        # `wait_for` would wait until the task has obeyed its cancellation; `wait` just returns.
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
