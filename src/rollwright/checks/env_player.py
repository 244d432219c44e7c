"""Plays an environment for `env_check`, whatever its `execution` is: calls, records what came back, notes breaches."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rollwright.contracts import MAX_REWARD, Environment, Observation, StepResult, Task, World, as_observation
from rollwright.run_io import Workers, bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the policy was shown after one action, in a form that can be compared."""

    text: str
    state: str
    # A sorted tuple and no dict: moments are frozen and compared, and the order of parts means nothing.
    rewards: tuple[tuple[str, float], ...] = ()
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None

    @property
    def is_end(self) -> bool:
        """Whether the episode ended here, by the task or by a limit."""
        return self.terminated or self.truncated


class Abandon(Exception):
    """This episode cannot go on; the reason is noted already."""


class Player:
    """Calls the methods of one world and its environments. Made by `async_check_env`, which reads `found`.

    Args:
        call_s: longest time of a single call.
    """

    def __init__(self, world: World, *, call_s: float) -> None:
        # Problem -> the places where it was seen, in the order of discovery.
        self.found: dict[str, list[str]] = {}
        self._world = world
        self._call_s = call_s
        # One call at a time, so one thread, until a call hangs in it: what blocks (a browser, say) often may be used
        # by one thread only.
        self._workers = Workers("check-env")

    def report(self, problem: str, where: str) -> None:
        """Note a breach. The same problem in many places is one problem."""
        self.found.setdefault(problem, []).append(where)

    def shut_down(self) -> None:
        """End the threads that calls were made on."""
        self._workers.close()

    async def play(self, env: Environment, task: Task, seed: int, script: list[str], where: str) -> list[Moment]:
        """The moments of an episode, from the first observation on."""
        first, _ = await self.begin(env, task, seed, where)
        return [first, *await self.go_on(env, script, where)]

    async def go_on(self, env: Environment, script: Sequence[str], where: str) -> list[Moment]:
        """The moments that follow the given actions in an episode that has begun."""
        moments: list[Moment] = []
        for action in script:
            moments.append((await self.step(env, action, where))[0])
            if moments[-1].is_end:
                break
        return moments

    async def begin(self, env: Environment, task: Task, seed: int, where: str) -> tuple[Moment, Observation]:
        """A new episode: its environment and the first moment."""
        observation = self._text(await self.call("reset", env.reset, task, seed, where=where), "reset", where)
        return Moment(text=observation.text, state=await self._fingerprint(env, where)), observation

    async def step(self, env: Environment, action: str, where: str) -> tuple[Moment, Observation]:
        """One action; the moment after it, and the step's result."""
        result = await self.call("step", env.step, action, where=where)
        if not isinstance(result, StepResult):
            self.report(f"step() must give a StepResult, got {type(result).__name__}", where)
            raise Abandon
        rewards = self._rewards(result, where)
        observation = self._text(result.observation, "step", where)
        moment = Moment(
            text=observation.text,
            state=await self._fingerprint(env, where),
            rewards=tuple(sorted(rewards.items())),
            terminated=result.terminated,
            truncated=result.truncated,
            success=result.success,
        )
        return moment, observation

    def _rewards(self, result: StepResult, where: str) -> dict[str, float]:
        try:
            # `float` accepts numpy scalars and booleans, which worlds give often and which do no harm.
            rewards = {str(name): float(value) for name, value in result.rewards.items()}
        except (TypeError, ValueError):
            self.report("a reward is no number: give a float, or floats by name", f"{where}: {short(result.reward)}")
            raise Abandon from None
        # Before the bound: a comparison with NaN is always false, so NaN would pass it.
        bad = {name: value for name, value in rewards.items() if not math.isfinite(value)}
        if bad:
            self.report("a reward is not finite: leave out what cannot be computed", f"{where}: {bad}")
        # What the check lets pass must not stop a training run later, so both use one bound.
        elif any(abs(value) > MAX_REWARD for value in rewards.values()):
            self.report(f"a reward is larger than {MAX_REWARD:g}: runs refuse it", f"{where}: {short(rewards)}")
        return rewards

    def _text(self, value: Any, method: str, where: str) -> Observation:
        # The text inside is looked at too: an Observation that holds bytes would fail only far from its cause.
        if isinstance(value, str | Observation) and isinstance(as_observation(value).text, str):
            return as_observation(value)
        self.report(f"{method}() must give an Observation or text, got {type(value).__name__}", where)
        raise Abandon

    async def _fingerprint(self, env: Environment, where: str) -> str:
        # Twice, with nothing in between: a clock or a draw of chance in it shows at once.
        first = await self.call("fingerprint", env.fingerprint, where=where)
        second = await self.call("fingerprint", env.fingerprint, where=where)
        if not isinstance(first, str) or not first:
            self.report(f"fingerprint() must give text that is not empty, got {short(first)}", where)
            raise Abandon
        if first != second:
            self.report("fingerprint() changes while nothing happens: leave clocks and chance out of it", where)
        return first

    @asynccontextmanager
    async def environment(self, where: str) -> AsyncIterator[Environment]:
        """A fresh environment, closed twice at the end."""
        env: Environment = await self.call("make", self._world.make, where=where)
        try:
            yield env
        finally:
            # Each call is suppressed by itself, so that the second one is tried even where the first one failed.
            for attempt in ("first", "second"):
                with suppress(Abandon):
                    await self.call("close", env.close, where=f"{where}, {attempt} call")

    async def call(self, name: str, method: Callable[..., Any], *args: Any, where: str) -> Any:
        """Call a method of an environment; an error or a missing answer is noted and ends the episode (`Abandon`)."""
        try:
            return await self.attempt(method, *args, name=name)
        except TimeoutError as error:
            self.report(f"{name}() gave no answer within {self._call_s:g} s: bound every wait of the world", where)
            raise Abandon from error
        except Exception as error:
            # The message often holds the action, so it goes to the place: one problem in many places stays one problem.
            advice = "answer with an observation that says so" if name == "step" else "see its contract"
            self.report(f"{name}() raised {type(error).__name__}: {advice}", f"{where}: {short(error)}")
            raise Abandon from error

    async def attempt(self, method: Callable[..., Any], *args: Any, name: str = "") -> Any:
        """The call itself, bounded in time; a breach of the world's `execution` is noted."""
        execution = self._world.execution
        if execution == "async":
            result = method(*args)
        else:  # an inline world would be played on the event loop; here it must not be able to block it
            result = await self._workers.call(method, *args, timeout_s=self._call_s)
        # The result is looked at and not the function: wrappers and partials hide whether a function is `async def`.
        is_coroutine = inspect.isawaitable(result)
        if is_coroutine and execution != "async":
            self.report(f"{name}() is a coroutine but execution is {execution!r}: declare 'async'", name)
        # Only these four must be coroutines; `make`, teachers and the like may be plain functions in an async world.
        if not is_coroutine and execution == "async" and name in ("reset", "step", "fingerprint", "close"):
            self.report(f"{name}() is no coroutine but execution is 'async': write `async def`", name)
        return await bounded(result, self._call_s) if is_coroutine else result


def short(value: object) -> str:
    """The text in one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:70]}... ({len(text)} characters)"
