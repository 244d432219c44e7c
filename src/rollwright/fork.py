"""Fork a running episode: fresh environments that all stand where it stands, and go their own ways from there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from rollwright.env import Environment, Snapshots, World


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
    state: bytes = await _call(world, env.snapshot)
    made: list[Environment] = []
    try:
        for _ in range(copies):
            made.append(await _call(world, world.make))
            await _call(world, made[-1].restore, state)  # type: ignore[attr-defined]
    except BaseException:
        for broken in made:
            await _call(world, broken.close)
        raise
    return made


async def _call(world: World, method: Callable[..., Any], *args: object) -> Any:
    """One method in the style that the world declares."""
    if world.execution == "thread":
        return await asyncio.to_thread(method, *args)
    result = method(*args)
    return await result if inspect.isawaitable(result) else result
