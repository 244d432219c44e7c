"""Environments on other machines: each is played in a Ray actor, on whichever node has room (`world.placement=ray`).

Tasks, instructions and texts stay with the world of this process. What crosses the network is the contract alone:
task, seed and actions there, observations and rewards back. Ray places the actors and notices when one is gone; who
plays what, deadlines and retries stay where they are for every other world.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rollwright.config import load
from rollwright.contracts import (
    EnvironmentFault,
    Execution,
    MissingDependency,
    Observation,
    SmallLanguage,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    World,
    fingerprint_kind,
    version_of,
)

log = logging.getLogger(__name__)
# Seconds that an actor may take to close: one that is busy answers nothing before its call is over.
CLOSE_S = 3.0


class Seat:
    """What runs in an actor: one world and one of its environments, called in the process's main thread."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.world: World = load("envs", name)(**options)
        self.env: Any = None

    def make(self) -> str:
        """Make the environment; says on which node."""
        self.env = self.world.make()
        return node_id()

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the environment in the actor."""
        return getattr(self.env, method)(*args)

    def close(self) -> None:
        """Close the environment and end the actor."""
        if self.env is not None:
            self.env.close()
        self.world.close()


class AsyncSeat(Seat):
    """The same for a world with execution "async", whose methods are awaited on the actor's own event loop."""

    async def make(self) -> str:  # type: ignore[override]
        """Build the environment in the actor."""
        self.env = await _settled(self.world.make())
        return node_id()

    async def call(self, method: str, *args: Any) -> Any:
        """Call an async method of the environment in the actor."""
        return await _settled(getattr(self.env, method)(*args))

    async def close(self) -> None:  # type: ignore[override]
        """Close the environment and end the actor."""
        if self.env is not None:
            await _settled(self.env.close())
        await _settled(self.world.close())


class RayEnvironment:
    """An environment that is played somewhere else. Every call is a coroutine.

    A call that fails, or whose actor is gone, is an `EnvironmentFault`: the episode is played again in a new actor.
    """

    def __init__(self, world: RayWorld, actor: Any, node: str) -> None:
        self.world, self.actor, self.node = world, actor, node

    async def reset(self, task: Task, seed: int) -> Observation | str:
        """As the environment's own, in its actor."""
        return await self._call("reset", task, seed)  # type: ignore[no-any-return]

    async def step(self, action: str) -> StepResult:
        """As the environment's own, in its actor."""
        return await self._call("step", action)  # type: ignore[no-any-return]

    async def fingerprint(self) -> str:
        """As the environment's own, in its actor."""
        return await self._call("fingerprint")  # type: ignore[no-any-return]

    async def close(self) -> None:
        """End the actor; one that is busy, or hangs, is killed. Idempotent."""
        await self.world.end(self.actor)

    async def _call(self, method: str, *args: Any) -> Any:
        return await answer(self.actor.call.remote(method, *args), f"{self.world.name}: {method}", self.node)


class RaySnapshotEnvironment(RayEnvironment):
    """The same where the world can save and restore its states."""

    async def snapshot(self) -> bytes:
        """As the environment's own, in its actor."""
        return await self._call("snapshot")  # type: ignore[no-any-return]

    async def restore(self, state: bytes) -> None:
        """As the environment's own, in its actor."""
        await self._call("restore", state)


class RayWorld:
    """A world whose environments Ray places. Joins a cluster, or starts one on this machine.

    Args:
        inner: the world as this process would play it.
        name, options: how an actor builds it; the module must be importable on every node.
        address: of a running cluster, or "auto"; empty starts one here, which ends with the world.
        cpus: CPUs that each environment asks of its node. Environments beyond what the cluster has wait for one to end.

    Raises:
        MissingDependency: Ray is not installed.
    """

    execution: Execution = "async"

    def __init__(self, inner: World, name: str, options: dict[str, Any], *, address: str = "", cpus: float = 1.0):
        self._ray = import_ray()
        self.inner, self.name, self.instructions = inner, inner.name, inner.instructions
        self.snapshots: SnapshotKind = inner.snapshots
        self.max_turns = inner.max_turns
        self.fingerprint_kind = fingerprint_kind(inner)
        self.version = version_of(inner)
        # `isinstance(world, SmallLanguage)` asks for this attribute, so no other world may have it.
        if isinstance(inner, SmallLanguage):
            self.texts: Callable[[], Sequence[str]] = inner.texts
        self.nodes: set[str] = set()
        """Ids of the nodes that have played."""
        self._actors: set[Any] = set()
        # A cluster that this process had joined before belongs to somebody else, who will also leave it.
        self._joined = not self._ray.is_initialized()
        if self._joined:
            self._ray.init(address=address or None, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        # One coroutine method is enough for Ray to run all methods of a class on an event loop.
        # The blocking calls of another world would stall it.
        seat = AsyncSeat if inner.execution == "async" else Seat
        # A restarted actor has lost its episode, which is played anew in a new actor instead.
        # Ray's default strategy packs actors onto few nodes first; SPREAD uses all of them.
        placed = self._ray.remote(num_cpus=cpus, max_restarts=0, scheduling_strategy="SPREAD")(seat)
        self._place: Callable[[], Any] = lambda: placed.remote(name, options)

    def tasks(self, split: Split) -> Sequence[Task]:
        """The world's own tasks."""
        return self.inner.tasks(split)

    async def make(self) -> RayEnvironment:
        """An environment on the node that Ray chose; waits until one has room.

        Raises:
            EnvironmentFault: the world cannot be built there, or the node is gone.
        """
        actor = self._place()
        self._actors.add(actor)
        try:
            node = await answer(actor.make.remote(), f"{self.name}: make", "?")
        # A cancellation is no Exception, and an actor that is left behind would keep its CPUs from the next one.
        except BaseException:
            self._kill(actor)
            raise
        self.nodes.add(node)
        # `isinstance(env, Snapshots)` asks for the methods, so an environment that cannot restore must lack them.
        kind = RayEnvironment if self.snapshots == "none" else RaySnapshotEnvironment
        return kind(self, actor, node)

    async def end(self, actor: Any) -> None:
        """Let an actor close what it has, then end its process. Idempotent."""
        if actor in self._actors:
            with contextlib.suppress(EnvironmentFault, TimeoutError):
                await asyncio.wait_for(answer(actor.close.remote(), f"{self.name}: close", "?"), CLOSE_S)
            self._kill(actor)

    async def close(self) -> None:
        """End all actors, the world, and the cluster if it was started here. Idempotent."""
        # All at once, as each may take CLOSE_S.
        await asyncio.gather(*(self.end(actor) for actor in list(self._actors)))
        await _settled(self.inner.close())
        if self._joined and self._ray.is_initialized():
            self._ray.shutdown()
        self._joined = False

    def _kill(self, actor: Any) -> None:
        self._actors.discard(actor)
        with contextlib.suppress(Exception):  # gone already, and the cluster perhaps with it
            self._ray.kill(actor, no_restart=True)


async def answer(pending: Awaitable[Any], what: str, node: str) -> Any:
    """What an actor gave.

    Raises:
        EnvironmentFault: the call raised there, the actor died, or its node is gone.
    """
    # Ray is an extra, so this module has to be importable without it.
    from ray.exceptions import RayError, RayTaskError

    try:
        return await pending
    # It is a RayError too, so it must be looked for first: here the world failed, below the actor is gone.
    except RayTaskError as error:
        raise EnvironmentFault(f"{what} raised {error.cause!r} on node {node[:8]}") from error
    except RayError as error:
        reason = str(error).strip().splitlines()
        raise EnvironmentFault(f"{what}: the Ray actor on node {node[:8]} is gone: {' '.join(reason[:2])}") from error


def node_id() -> str:
    """The id of the node this process runs on."""
    return str(import_ray().get_runtime_context().get_node_id())


def import_ray() -> Any:
    """The package.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("world.placement=ray needs Ray: pip install 'rollwright[ray]' on every node") from error
    return ray


async def _settled(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
