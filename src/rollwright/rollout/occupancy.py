"""Who waits for whom: of every moment, whether the episodes wait for the engine, for the world, or for the learner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal

Place = Literal["engine", "environment"]
State = Literal["engine", "environment", "queue"]


class Occupancy:
    """Where the episodes of a collector are, and for how long each state of the whole held. Safe to use from threads.

    The whole is in state "engine" while any episode waits for the engine, else "environment" while any waits for the
    world, else "queue": nothing is in flight, and what comes next waits for the learner. So the three times add up to
    the time that has passed, however many episodes there are.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at: dict[Place, int] = {"engine": 0, "environment": 0}
        self._seconds: dict[State, float] = {"engine": 0.0, "environment": 0.0, "queue": 0.0}
        self._since = clock()

    def move(self, left: Place | None, entered: Place | None) -> None:
        """An episode changes what it waits for; None before its first and after its last."""
        with self._lock:
            self._account()
            if left is not None:
                self._at[left] -= 1
            if entered is not None:
                self._at[entered] += 1

    def seconds(self) -> Mapping[State, float]:
        """Seconds in each state since this was made."""
        with self._lock:
            self._account()
            return dict(self._seconds)

    def _account(self) -> None:
        now = self._clock()
        state: State = "engine" if self._at["engine"] else "environment" if self._at["environment"] else "queue"
        self._seconds[state] += now - self._since
        self._since = now
