"""Environments as the scheduler sees them: one asynchronous call, with a deadline, whatever the world's own style.

What a world gave back, checked before any of it becomes part of a record.

One event loop in a thread of its own: environments such as browsers live on it for the whole run.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from typing import Any, TypeVar

from rollwright.contracts import (
    MAX_REWARD,
    Attachment,
    Environment,
    EnvironmentFault,
    Observation,
    StalledRollout,
    StepResult,
    World,
    as_observation,
    whole,
)
from rollwright.run_io import Workers, bounded

T = TypeVar("T")
log = logging.getLogger(__name__)
_BEAT_S = 0.25


class LoopThread:
    """An asyncio loop that outlives single calls. `run` blocks the caller and re-raises what the coroutine raised.

    Args:
        blocked_s: how long a single callback may block the loop (an environment that runs inline and hangs). Beyond it
            everything that waits for the loop fails with `StalledRollout`, which shows where the loop stands.
    """

    def __init__(self, name: str = "rollout-loop", *, blocked_s: float = 60.0) -> None:
        self.blocked_s = blocked_s
        self._loop = asyncio.new_event_loop()
        self._beats = 0
        self._waiting: set[Future[Any]] = set()
        self._stalled: StalledRollout | None = None
        self._closed = False
        # No thread-safe call is needed: the loop does not run yet.
        self._loop.call_soon(self._beat)
        # A daemon: a loop that is blocked for good must not keep the process from ending.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result.

        Raises:
            StalledRollout: something blocks the loop.
        """
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt in the caller must not leave episodes running behind it
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it without waiting; cancelling the future cancels the coroutine."""
        if self._stalled:
            # A coroutine that is dropped unawaited makes Python warn.
            coroutine.close()
            raise self._stalled
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def close(self) -> None:
        """Stop the loop and end its thread; one that is blocked is left to the process's end. Idempotent."""
        if self._loop.is_closed() or (self._closed and self._stalled):
            return
        self._closed = True
        patience_s = 1.0 if self._stalled else 10.0
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result(timeout=patience_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=patience_s)
        # A loop that still runs cannot be closed: `close` would raise.
        if not self._thread.is_alive():
            self._loop.close()

    def _beat(self) -> None:
        self._beats += 1
        self._loop.call_later(_BEAT_S, self._beat)

    def _watch(self) -> None:
        """Counts its own short sleeps, not the clock: a machine that was suspended is no hang."""
        seen, still = -1, 0
        while not self._closed:
            time.sleep(_BEAT_S)
            still = 0 if self._beats != seen else still + 1
            seen = self._beats
            if still * _BEAT_S > self.blocked_s and self._stalled is None:
                self._fail()
                return

    def _fail(self) -> None:
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)[-6:]) if frame else ""
        self._stalled = StalledRollout(
            f"the event loop of the rollouts has been blocked for {self.blocked_s:.0f} s: an environment that declares "
            f'execution "inline" hangs, or an "async" one blocks. It stands at:\n{stack}Declare execution "thread", '
            "where a call that hangs is abandoned and its episode retried"
        )
        log.error("%s", self._stalled)
        # A copy: each future that is settled leaves the set.
        for future in list(self._waiting):
            try:
                future.set_exception(self._stalled)
            # The future was answered in the meantime.
            except InvalidStateError:
                continue


async def _end_others() -> None:
    """Cancel what still runs and let it clean up: a loop that is closed over it would leave it half done."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        # Unlike `wait_for`, this ends at its timeout even where a task ignores its cancellation.
        await asyncio.wait(others, timeout=5.0)


def checked(answer: object) -> StepResult:
    """What `step` gave, if it is what the contract says: nothing else may become a turn, let alone a reward.

    Its observation is text that a tokenizer takes, as with `checked_observation`.

    Raises:
        EnvironmentFault: it is no StepResult, its observation is no text, or a reward is not a finite number.
    """
    if not isinstance(answer, StepResult):
        raise EnvironmentFault(f"step() gave {_short(answer)}, expected a StepResult")
    seen = checked_observation(answer.observation)
    try:
        bad = {name: value for name, value in answer.rewards.items() if not math.isfinite(value)}
    except (TypeError, ValueError, OverflowError):  # the last: a whole number beyond every float
        raise EnvironmentFault(f"step() gave the reward {_short(answer.reward)}, expected numbers") from None
    # Finite is not enough: float32 sums of the learner overflow beyond MAX_REWARD.
    if bad or any(abs(value) > MAX_REWARD for value in answer.rewards.values()):
        raise EnvironmentFault(f"step() gave the reward {_short(answer.reward)}, expected finite numbers")
    if not _are_costs(answer.costs):
        raise EnvironmentFault(f"step() gave the costs {_short(answer.costs)}, expected named finite numbers")
    return answer if seen == as_observation(answer.observation) else replace(answer, observation=seen)


def _are_costs(costs: object) -> bool:
    """Whether these are named numbers, bounded as rewards are."""
    try:
        return isinstance(costs, Mapping) and all(
            isinstance(name, str) and math.isfinite(value) and abs(value) <= MAX_REWARD for name, value in costs.items()
        )
    except (TypeError, ValueError, OverflowError):
        return False


def checked_observation(answer: object) -> Observation:
    """What the policy is to be shown, made whole (see `whole`).

    Raises:
        EnvironmentFault: it is neither text nor an Observation.
    """
    if isinstance(answer, str) or (isinstance(answer, Observation) and isinstance(answer.text, str)):
        seen = as_observation(answer)
        if not isinstance(seen.attachments, tuple) or not all(isinstance(a, Attachment) for a in seen.attachments):
            raise EnvironmentFault(f"the world attached {_short(seen.attachments)}, expected a tuple of Attachment")
        return replace(seen, text=whole(seen.text), goal=whole(seen.goal))
    raise EnvironmentFault(f"the world showed {_short(answer)}, expected text or an Observation")


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # an object of the world, or a number of more digits than Python prints
        text = f"{type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= 100 else f"{text[:90]}..."


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
            # Threads can be left behind when they hang; see `Workers`.
            if self.world.execution == "thread":
                return await self._workers.call(method, *args, timeout_s=timeout_s)
            result = method(*args)
            if inspect.isawaitable(result):
                # `asyncio.wait_for` would wait for a coroutine that ignores its cancellation.
                return await bounded(result, timeout_s)
            return result
        # The world said itself what broke: its message stays as it is.
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
        # `call` names the method in its faults, and `both` would tell nobody what hung.
        chosen.__name__ = f"{method.__name__} (or {then.__name__} after it)"
        result: tuple[Any, Any] = await self.call(chosen, timeout_s=timeout_s)
        return result

    async def close(self) -> None:
        """Close every idle environment, then the world."""
        # Environments in use are not here: whoever plays gives them back or discards them.
        idle, self._idle = self._idle, []
        for env in idle:
            await self.discard(env)
        await self.call(self.world.close, timeout_s=30.0)
        self._workers.close()
