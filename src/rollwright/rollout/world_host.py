"""Environments as the scheduler sees them: one asynchronous call, with a deadline, whatever the world's own style."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from rollwright.contracts import Environment, EnvironmentFault, World
from rollwright.run_io import Workers, bounded

log = logging.getLogger(__name__)


class EnvHost:
    """Hands out the environments of one world, calls them, and replaces what broke.

    Made by the `Collector` and alive as long as it. An environment that faulted or missed a deadline is closed and
    dropped, never handed out again. A blocking call cannot be interrupted in its thread: the thread is left to end
    by itself, its environment is abandoned, and another thread takes its place.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.made = 0
        self._idle: list[Environment] = []
        self._workers = Workers(f"env-{world.name}")

    async def acquire(self, timeout_s: float) -> Environment:
        """An idle environment, or a new one."""
        if self._idle:
            return self._idle.pop()
        self.made += 1
        return await self.call(self.world.make, timeout_s=timeout_s)

    def release(self, env: Environment) -> None:
        """Give back an environment that is fit for another episode."""
        self._idle.append(env)

    async def discard(self, env: Environment, timeout_s: float = 10.0) -> None:
        """Close an environment that is not to be used again; a failing close is logged, it cannot do more harm."""
        try:
            await self.call(env.close, timeout_s=timeout_s)
        except EnvironmentFault as error:
            log.warning("closing a broken environment of %s failed: %s", self.world.name, error)

    async def call(self, method: Callable[..., Any], *args: object, timeout_s: float) -> Any:
        """Run one method of the world or of an environment in the style the world declares.

        Raises:
            EnvironmentFault: the call raised, or gave no answer within `timeout_s` seconds.
        """
        name = getattr(method, "__name__", str(method))
        try:
            if self.world.execution == "thread":
                return await self._workers.call(method, *args, timeout_s=timeout_s)
            result = method(*args)
            if inspect.isawaitable(result):
                return await bounded(result, timeout_s)
            return result
        except EnvironmentFault:
            raise
        except TimeoutError as error:
            raise EnvironmentFault(f"{self.world.name}: {name} gave no answer within {timeout_s:.1f} s") from error
        except Exception as error:
            raise EnvironmentFault(f"{self.world.name}: {name} raised {error!r}") from error

    async def call_then(
        self,
        method: Callable[..., Any],
        *args: object,
        then: Callable[[], Any],
        unless: Callable[[Any], bool],
        timeout_s: float,
    ) -> tuple[Any, Any]:
        """`method(*args)` and, unless its result says so, `then()`: one hand-over to a thread, not two.

        Returns:
            Both results; None for `then` where it was not called.

        Raises:
            EnvironmentFault: as `call`; the deadline is for both together.
        """

        def both() -> tuple[Any, Any]:
            result = method(*args)
            return result, None if unless(result) else then()

        async def both_async() -> tuple[Any, Any]:
            result = await method(*args)
            return result, None if unless(result) else await then()

        chosen = both_async if self.world.execution == "async" else both
        chosen.__name__ = f"{method.__name__} (or {then.__name__} after it)"
        result: tuple[Any, Any] = await self.call(chosen, timeout_s=timeout_s)
        return result

    async def close(self) -> None:
        """Close every idle environment, then the world."""
        idle, self._idle = self._idle, []
        for env in idle:
            await self.discard(env)
        await self.call(self.world.close, timeout_s=30.0)
        self._workers.close()
