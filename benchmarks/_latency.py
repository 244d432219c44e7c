"""A world whose answers are late, with a heavy tail: most within milliseconds, a few after seconds. For `async.py`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import Any

from rollwright.contracts import (
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    split_of_seed,
)
from rollwright.envs.text.maze import build as build_maze

TAIL, SHORTEST_S, LONGEST_S = 0.8, 0.01, 2.0


def latency(*key: object, scale: float = 1.0) -> float:
    """Seconds of one call: Pareto with exponent 0.8 from 10 ms on, cut at 2 s; fixed by `key`, so equal in every run.

    The median is 24 ms, the mean 0.1 s, and one call in 70 takes the full two seconds.
    """
    uniform = 1.0 - random.Random("/".join(map(str, key))).random()  # in (0, 1]
    return scale * min(LONGEST_S, SHORTEST_S * uniform ** (-1.0 / TAIL))


class LateEnvironment:
    """The maze, every move of a training episode answered late; held-out ones are judged at once."""

    def __init__(self, inner: Environment, scale: float) -> None:
        self._inner: Any = inner
        self._scale = scale

    async def reset(self, task: Task, seed: int) -> Observation | str:
        self._turn, self._seed = 0, seed
        self._late = split_of_seed(seed) == "train"
        return self._inner.reset(task, seed)  # type: ignore[no-any-return]

    async def step(self, action: str) -> StepResult:
        self._turn += 1
        if self._late:
            # Members of a group start alike: where they have gone since makes their delays differ.
            await asyncio.sleep(latency(self._seed, self._turn, self._inner.fingerprint(), scale=self._scale))
        return self._inner.step(action)  # type: ignore[no-any-return]

    async def fingerprint(self) -> str:
        return self._inner.fingerprint()  # type: ignore[no-any-return]

    async def close(self) -> None:
        self._inner.close()


class LateWorld:
    """The maze of `rollwright.envs.text.maze` on the event loop, with delays."""

    execution: Execution = "async"
    snapshots: SnapshotKind = "none"
    name = "late_maze"

    def __init__(self, scale: float, options: dict[str, Any]) -> None:
        self._inner = build_maze(**options)
        self._scale = scale
        self.instructions, self.max_turns = self._inner.instructions, self._inner.max_turns

    def tasks(self, split: Split) -> Sequence[Task]:
        return self._inner.tasks(split)

    def texts(self) -> Iterable[str]:
        return self._inner.texts()

    def make(self) -> LateEnvironment:
        return LateEnvironment(self._inner.make(), self._scale)

    def close(self) -> None:
        self._inner.close()


def build(*, scale: float = 1.0, **options: Any) -> LateWorld:
    """The maze with its own options, and delays times `scale`."""
    return LateWorld(scale, options)
