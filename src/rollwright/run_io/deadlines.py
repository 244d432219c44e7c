"""Deadlines for what runs on the main thread: scoring, weight sync, checkpoints. What does not obey is ended.

At the deadline the stage is interrupted as Ctrl-C would do it, and becomes a `StageTimeout`. Code that does not react
to that (a collective call in C that waits for a rank that is gone) is ended with the whole process, after the stacks of
all threads have been written out: a run that stops loudly can be resumed, one that waits for ever cannot.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from rollwright.contracts import StageTimeout

log = logging.getLogger(__name__)

EXIT_STALLED = 70
"""Exit status of a process that had to be ended: EX_SOFTWARE of sysexits.h."""


@contextlib.contextmanager
def deadline(
    stage: str,
    limit_s: float,
    *,
    setting: str,
    grace_s: float = 20.0,
    report: Callable[[StageTimeout], None] = lambda error: None,
) -> Iterator[None]:
    """Run the block for at most `limit_s` seconds. 0 is no limit; elsewhere than on the main thread there is none.

    Args:
        setting: names the key that holds the limit, for the message.
        grace_s: after the interrupt, how long until the process is ended.
        report: told of the timeout at once, from another thread, while the stage may still hang.

    Raises:
        StageTimeout: the block took longer and could be interrupted.
    """
    # Python delivers signals to the main thread alone, so a stage on another thread could not be interrupted.
    if limit_s <= 0 or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _interruptible():
        # `yield from` passes errors of the block into the inner generator, which turns the interrupt into a timeout.
        yield from _watched(_Watch(stage, limit_s, setting=setting, grace_s=grace_s, report=report))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A shell starts what runs in the background with interrupts ignored; inside a stage they must be heard."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _watched(watch: _Watch) -> Iterator[None]:
    """The block under its watch; a plain generator, so that errors of the block come in here."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        # The deadline had not passed: a person pressed Ctrl-C.
        if watch.error is None:
            raise
        raise watch.error from interrupt
    finally:
        watch.done()
    if watch.error is not None:  # it ended by itself in the very moment of its deadline: the work is done
        log.warning("%s", watch.error)


class _Watch:
    """One thread that waits for the stage to end."""

    def __init__(
        self, stage: str, limit_s: float, *, setting: str, grace_s: float, report: Callable[[StageTimeout], None]
    ) -> None:
        self.error: StageTimeout | None = None
        self._stage, self._limit_s, self._setting = stage, limit_s, setting
        self._grace_s, self._report = grace_s, report
        self._lock, self._over, self._interrupted = threading.Lock(), threading.Event(), False
        self._thread = threading.Thread(target=self._watch, name=f"deadline-{stage}", daemon=True)
        self._thread.start()

    def done(self) -> None:
        """The stage is over; an interrupt that is on its way is taken here and goes no further."""
        try:
            with self._lock:
                # `_watch` holds the lock from its last look until its interrupt is sent, so none can come after this.
                self._over.set()
        # It arrived while this thread waited for the lock. The block has ended, so there is nothing left to stop.
        except KeyboardInterrupt:
            self._over.set()

    def _watch(self) -> None:
        if self._over.wait(self._limit_s):
            return
        error = StageTimeout(
            f"{self._stage} has taken longer than {self._limit_s:g} s ({self._setting}) and was stopped. The last "
            "checkpoint is usable: start the same command again to resume; raise the limit if the stage is only slow"
        )
        with contextlib.suppress(Exception):  # a full disk must not keep the deadline from ending the stage
            self._report(error)
        # Under the lock `done` cannot return between this look and the interrupt, which would then hit the next stage.
        with self._lock:
            if self._over.is_set():
                return
            self.error = error
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)  # wakes it from sleeps and locks too
        if not self._over.wait(self._grace_s):
            self._end_process()

    def _end_process(self) -> None:
        """The last resort: whoever launched us sees the status and the stacks."""
        print(f"\n{self.error}\nIt does not react; ending the process. All threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        # `sys.exit` would end this thread alone, and the main thread is stuck in C and runs no Python any more.
        os._exit(EXIT_STALLED)
