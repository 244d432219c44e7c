"""Play any world from plain blocking code, whatever its own style: what the adapters to other libraries stand on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rollwright.contracts import Environment, Observation, StepResult, Task, World, as_observation, whole


class BlockingEnvironment:
    """One environment of a world, every method an ordinary function. Not for use inside a running event loop.

    Actions and observations are text that UTF-8 can hold: half a surrogate pair, which JSON can spell, becomes U+FFFD.

    Coroutines run on a loop of its own; so an environment that shares a browser or connection with others through its
    world cannot be driven this way.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        # Made when a coroutine first comes: most worlds have none.
        self._runner: asyncio.Runner | None = None
        self.env: Environment = self._call(world.make)

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode and wait for its first observation."""
        return _shown(as_observation(self._call(self.env.reset, task, seed)))

    def step(self, action: str) -> StepResult:
        """Take an action and wait for what follows."""
        # Made whole on both ways: neither side of a bridge can be relied on to take half a surrogate pair.
        result: StepResult = self._call(self.env.step, whole(action))
        seen = result.observation
        return replace(result, observation=whole(seen) if isinstance(seen, str) else _shown(seen))

    def fingerprint(self) -> str:
        """As the environment's own."""
        return str(self._call(self.env.fingerprint))

    def close(self) -> None:
        """Close the environment and the loop. Idempotent."""
        # Before the loop is closed, on which an async environment has to close itself.
        self._call(self.env.close)
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _call(self, method: Callable[..., Any], *args: object) -> Any:
        result = method(*args)
        if not inspect.isawaitable(result):
            return result
        if self._runner is None:
            self._runner = asyncio.Runner()

        # `Runner.run` takes coroutines only, and an awaitable may be anything else.
        async def wait() -> Any:
            return await result

        # One loop for all calls: connections belong to the loop that they were opened on.
        return self._runner.run(wait())


def _shown(observation: Observation) -> Observation:
    return replace(observation, text=whole(observation.text), goal=whole(observation.goal))
