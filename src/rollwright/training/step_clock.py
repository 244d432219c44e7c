"""How long the stages of one step took: what `time/` and `ledger/` of a line of metrics say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rollwright.rollout import Ledger


class StepClock:
    """Adds up seconds by stage, from one `begin` to the next. Made by `Training`, lives for the run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._running: set[str] = set()

    def begin(self) -> None:
        """A step begins."""
        self._began, self._seconds = time.monotonic(), {}
        self._ledger.begin()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """What happens inside belongs to this stage, named as its metric; a stage may be entered several times.

        Inside itself a stage counts once.
        """
        if name in self._running:
            yield
            return
        self._running.add(name)
        before = time.monotonic()
        try:
            yield
        finally:
            self._running.discard(name)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - before

    def metrics(self) -> dict[str, float]:
        """The step's stages, the whole of it, and the ledger's two lanes, in seconds."""
        timings = self._seconds | {"time/step_s": time.monotonic() - self._began}
        return timings | self._ledger.end(timings)
