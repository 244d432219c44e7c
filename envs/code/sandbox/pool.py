"""Warm boxes shared by the environments of a world: so many programs run at a time, the others wait their turn.

A machine that runs a hundred programs at once starts a hundred boxes and gives each a hundredth of its cores: honest
programs run out of time. A few dozen boxes that stay up judge the same hundred sooner.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.trusted import Called, call_trusted
from rollwright.envs.code.sandbox.warm import WarmBox

AT_MOST = 32
"""Programs at a time: few enough for their wall clocks, enough that some that only sleep hold nobody up for long."""


_pools: weakref.WeakSet[BoxPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._free_all()  # a fork has none of the threads that hold its parent's turns: nobody would give them back


os.register_at_fork(after_in_child=_after_fork)


class BoxPool:
    """Boxes that wait for work. Thread-safe.

    Args:
        limits, preload, packages, trusted, unsafe: of every box, as for `WarmBox`.
        at_most: `box` and `pair` wait while so many are under way. All boxes are kept while nothing runs.

    Raises:
        MissingDependency, EnvironmentUnavailable: as `WarmBox`, at the first use.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        preload: Sequence[str] = (),
        packages: Sequence[str] = (),
        trusted: Sequence[str] = (),
        unsafe: bool = False,
        at_most: int = AT_MOST,
    ) -> None:
        self._options = {
            "limits": limits or Limits(),
            "preload": tuple(preload),
            "packages": tuple(packages),
            "trusted": tuple(trusted),
            "unsafe": unsafe,
        }
        self._idle: list[WarmBox] = []
        self._at_most, self._closed = at_most, False
        self._free_all()
        _pools.add(self)

    def _free_all(self) -> None:
        self._lock, self._turns = threading.Lock(), threading.BoundedSemaphore(self._at_most)

    @contextmanager
    def box(self) -> Iterator[WarmBox]:
        """A box for as long as the `with` lasts. Do not wait for anything else in it, least of all for another."""
        with self._turns, self._taken() as box:
            yield box

    @contextmanager
    def pair(self) -> Iterator[tuple[WarmBox, WarmBox]]:
        """Two boxes in one turn: for a program, and for the tests that judge it."""
        with self._turns, self._taken() as one, self._taken() as other:
            yield one, other

    def call(self, module: str, function: str, *args: Any, limits: Limits | None = None) -> Called:
        """Call a function of a trusted module in a box; `call_trusted` says how. From any thread.

        Raises:
            EnvironmentFault: the box was lost, again and again.
        """
        with self.box() as box:
            return call_trusted(box, module, function, args, limits=limits)

    @contextmanager
    def _taken(self) -> Iterator[WarmBox]:
        with self._lock:
            taken = self._idle.pop() if self._idle else None
        taken = taken or WarmBox(**self._options)  # type: ignore[arg-type]
        try:
            yield taken
        except BaseException:
            taken.close()
            raise
        with self._lock:
            closed = self._closed
            if not closed:
                self._idle.append(taken)
        if closed:
            taken.close()

    def close(self) -> None:
        """End all idle boxes; those in use end when they are given back. Idempotent."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for one in idle:
            one.close()
