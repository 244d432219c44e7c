"""Where a tree's environments stand: a state is reached by its snapshot, or by doing again what led there.

A snapshot is taken when an environment leaves a state that will be acted in again, and dropped with the state: a tree
holds one per open state at most. A world that can only replay repeats the recorded actions, and every state and every
observation on the way must be the recorded one (`restoring`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rollwright.contracts import Environment, Message, Observation, Passed, StepResult, Waypoint
from rollwright.rollout.collector import Collector
from rollwright.rollout.contexts import Context
from rollwright.rollout.episode import Status
from rollwright.rollout.restoring import bring_to, prompt_digest, shown_of
from rollwright.rollout.trees.tree import SearchTree
from rollwright.rollout.world_host import checked, checked_observation


@runtime_checkable
class ForkedContext(Context, Protocol):
    """A context that can be copied in the middle of an episode."""

    def fork(self) -> ForkedContext:
        """A copy that goes its own way from here."""
        ...


@dataclass(slots=True, kw_only=True)
class Place:
    """A state that may still be acted in, as the policy sees it, and the way to it.

    `verdict` is what the world has said of the task so far. `prompt` is kept once it was made.
    """

    context: ForkedContext
    observation: Observation
    observed: tuple[Message, ...]
    state: str
    passed: tuple[Passed, ...] = ()
    verdict: bool | None = None
    snapshot: bytes | None = None
    prompt: tuple[int, ...] | None = None


class SpentBudget(Exception):
    """The tree's own budget is used up: no error, the search ends with what it has."""


class Grounds:
    """The environments of one tree.

    Args:
        most: environments held at once; a world that replays comes back to a state cheaper where one still stands.
        max_calls: budget of `reset` and `step`, repeated ones included; 0 = no limit.
    """

    def __init__(
        self, collector: Collector, tree: SearchTree, status: Status, *, most: int = 1, max_calls: int = 0
    ) -> None:
        self.collector, self.tree, self.status = collector, tree, status
        self.most, self.max_calls = most, max_calls
        self.places: dict[int, Place] = {}
        self._standing: dict[int, Environment] = {}
        self._free: list[Environment] = []
        self._exact = collector.world.snapshots == "exact"

    async def reset(self) -> tuple[Observation, str]:
        """The start state, at which an environment stands from now on."""
        self.require_calls(1)
        env = await self._any()
        self.tree.env_calls += 1
        try:
            shown, state = await self._sure(env)("env.reset", env.reset, self.tree.task, self.tree.seed)
            observation = checked_observation(shown)
        except BaseException:
            await self._drop(env)
            raise
        self._standing[0] = env
        return observation, str(state)

    async def step(self, number: int, action: str, *, again: bool, last: bool) -> tuple[StepResult, str, Environment]:
        """Act once in the state of this node. The environment is free afterwards, unless `stands` is told otherwise.

        Args:
            again: the state will be acted in once more.
            last: no fingerprint is asked for behind a step that ends the path.

        Raises:
            EnvironmentFault: the world failed; its environment is closed.
            SpentBudget: the tree may not call it any more; nothing was called.
        """
        env = await self.stand_at(number)
        self.require_calls(1)
        if again:
            await self._keep(number, env)
        del self._standing[number]
        return (*await self.act(env, action, last=last), env)

    async def act(self, env: Environment, action: str, *, last: bool) -> tuple[StepResult, str]:
        """One step of an environment that the caller has taken, and the fingerprint of the state it led to."""
        limit_s = self.collector.limits.env_call_s
        self.tree.env_calls += 1
        self.status.now("env.step")
        try:
            answer, state = await self.collector.host.call_then(
                env.step, action, then=env.fingerprint, unless=lambda found: last or _is_over(found), timeout_s=limit_s
            )
            return checked(answer), str(state)
        except BaseException:
            await self._drop(env)
            raise

    def stands(self, number: int, env: Environment) -> None:
        """The environment stands at this node, until another node needs it."""
        self._standing[number] = env

    def give_back(self, env: Environment) -> None:
        """The environment is sound and stands nowhere that matters."""
        self._free.append(env)

    async def stand_at(self, number: int) -> Environment:
        """An environment in the state of this node.

        Raises:
            EnvironmentFault: the way leads elsewhere now, or the world failed.
            SpentBudget: the way may not be done again.
        """
        if (env := self._standing.get(number)) is not None:
            return env
        place = self.places[number]
        again = 0 if place.snapshot is not None else 1 + len(place.passed)
        # One more: nobody goes to a state without acting there.
        self.require_calls(again + 1)
        env = await self._any()
        self.tree.replayed_calls += again
        try:
            await bring_to(self._waypoint(place), env, self._sure(env))
        except BaseException:
            await self._drop(env)
            raise
        self._standing[number] = env
        return env

    async def borrow(self, number: int) -> Environment:
        """An environment in the state of this node for the caller alone, who gives it back; the place stays."""
        env = await self.stand_at(number)
        await self._keep(number, env)
        del self._standing[number]
        return env

    def require_calls(self, count: int) -> None:
        """Raises SpentBudget where so many calls of the world are more than the tree may still make."""
        if self.max_calls and self.tree.env_calls + self.tree.replayed_calls + count > self.max_calls:
            raise SpentBudget(f"{self.max_calls} calls of the world are used up (search.max_env_calls)")

    def forget(self, number: int) -> None:
        """Nobody acts in this state any more: its snapshot and its context go."""
        self.places.pop(number, None)
        if (env := self._standing.pop(number, None)) is not None:
            self._free.append(env)

    async def close(self, *, sound: bool) -> None:
        """Give all environments back; where a play was torn off (`sound` false) they may be amid a call and go."""
        held = [*self._standing.values(), *self._free]
        self._standing, self._free, self.places = {}, [], {}
        for env in held:
            if sound:
                self.collector.host.release(env)
            else:
                await self.collector.host.discard(env)

    async def _any(self) -> Environment:
        """A free environment; a new one below the limit; else the one whose state is least needed."""
        if self._free:
            return self._free.pop()
        if len(self._standing) < self.most:
            self.status.now("world.make")
            return await self.collector.host.acquire(self.collector.limits.env_call_s)
        number = next((at for at in self._standing if at not in self.places), next(iter(self._standing)))
        await self._keep(number, self._standing[number])
        return self._standing.pop(number)

    async def _keep(self, number: int, env: Any) -> None:
        """Take the snapshot of a state that an environment is about to leave."""
        place = self.places.get(number)
        if place is None or place.snapshot is not None or not self._exact:
            return
        self.status.now("env.snapshot")
        try:
            place.snapshot = await self.collector.host.call(env.snapshot, timeout_s=self.collector.limits.env_call_s)
        except BaseException:
            self._standing.pop(number, None)
            await self._drop(env)
            raise

    async def _drop(self, env: Environment) -> None:
        await self.collector.host.discard(env)

    def _waypoint(self, place: Place) -> Waypoint:
        return Waypoint(
            source=self.tree.key,
            task=self.tree.task,
            seed=self.tree.seed,
            passed=place.passed,
            shown=shown_of(place.observation),
            state_key=place.state,
            # `bring_to` compares no prompt: the place keeps the context itself.
            prompt_digest=prompt_digest(()),
            snapshot=place.snapshot,
        )

    def _sure(self, env: Environment) -> Callable[..., Any]:
        """Calls of `bring_to`: a method of the environment, and the fingerprint of the state it led to."""

        async def call(name: str, method: Callable[..., Any], *args: object) -> tuple[Any, Any]:
            self.status.now(name)
            return await self.collector.host.call_then(
                method,
                *args,
                then=env.fingerprint,
                unless=lambda _: False,
                timeout_s=self.collector.limits.env_call_s,
            )

        return call


def _is_over(found: object) -> bool:
    return isinstance(found, StepResult) and (found.terminated or found.truncated)
