"""Fork a running episode: fresh environments that all stand where it stands, and go their own ways from there."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from rollwright.contracts.environment import Environment, Snapshots, World


async def fork(world: World, env: Environment, copies: int) -> list[Environment]:
    """`copies` environments of `world` in the state of `env`, whose own episode goes on undisturbed.

    The state is taken once and restored `copies` times. The caller closes what it gets. Where the world's snapshots
    are "replay", restoring plays the episode again, which takes as long.

    Raises:
        ValueError: fewer than one copy is asked for, or the world has no snapshots.
    """
    if copies < 1:
        raise ValueError(f"fork needs 1 copy or more, got {copies}")
    if world.snapshots == "none" or not isinstance(env, Snapshots):
        raise ValueError(f"{world.name} has no snapshots: its episodes can only be played from the start")
    if world.execution == "thread":
        return await asyncio.to_thread(_fork_blocking, world, env, copies)  # one hand-over to a thread, not one a call
    return await _fork_here(world, env, copies)


def _fork_blocking(world: World, env: Environment, copies: int) -> list[Environment]:
    # A worker thread has no running loop, which alone makes `asyncio.run` legal here. Methods of a blocking world
    # give plain values, so that nothing in it waits.
    return asyncio.run(_fork_here(world, env, copies))


async def _fork_here(world: World, env: Any, copies: int) -> list[Environment]:
    state: bytes = await _result(env.snapshot())
    made: list[Any] = []
    try:
        for _ in range(copies):
            # In the list before it is restored, so that a failing `restore` leaves none open.
            made.append(await _result(world.make()))
            await _result(made[-1].restore(state))
    # Cancellation counts too: the caller never sees these environments and could not close them.
    except BaseException:
        for broken in made:
            await _result(broken.close())
        raise
    return made


async def _result(value: Any) -> Any:
    """What a method gave, waited for where it is a coroutine."""
    return await value if inspect.isawaitable(value) else value
