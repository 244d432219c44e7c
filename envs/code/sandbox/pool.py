"""As many warm boxes as are in use at the same time, shared by the environments of a world."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.warm import WarmBox


class BoxPool:
    """Boxes that wait for work. Thread-safe. At most `idle` of them are kept while nothing runs.

    Raises:
        MissingDependency, EnvironmentUnavailable: as `WarmBox`, at the first use.
    """

    def __init__(
        self, *, limits: Limits | None = None, preload: Sequence[str] = (), unsafe: bool = False, idle: int = 4
    ) -> None:
        self._options = {"limits": limits or Limits(), "preload": tuple(preload), "unsafe": unsafe}
        self._idle: list[WarmBox] = []
        self._max_idle, self._lock = idle, threading.Lock()
        self._closed = False

    @contextmanager
    def box(self) -> Iterator[WarmBox]:
        """A box for as long as the `with` lasts. Do not hold one while waiting for anything else."""
        with self._lock:
            taken = self._idle.pop() if self._idle else None
        taken = taken or WarmBox(**self._options)  # type: ignore[arg-type]
        try:
            yield taken
        except BaseException:
            taken.close()
            raise
        with self._lock:
            keep = not self._closed and len(self._idle) < self._max_idle
            if keep:
                self._idle.append(taken)
        if not keep:
            taken.close()

    def close(self) -> None:
        """End all idle boxes; those in use end when they are given back. Idempotent."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for one in idle:
            one.close()
