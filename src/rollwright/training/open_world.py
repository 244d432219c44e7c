"""World and reward of a run: their sections, how they are built by name, and how a world is closed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Readers, load, require_contract
from rollwright.contracts import SPLITS, ConfigError, Reward, Split, Task, World
from rollwright.generation import Engine
from rollwright.rollout import Collector


class WorldSettings(Config):
    """The world to act in."""

    name: str = Field(description="Module of rollwright.envs, such as `web.miniwob`, or `package.module:Attribute`.")
    options: dict[str, Any] = Field({}, description="Arguments of the world's `build`.")
    placement: Literal["local", "ray"] = Field(
        "local", description="Where environments run: in this process, or in Ray actors on any node."
    )
    ray_address: str = Field(
        "", description="ray: address of a running cluster, or auto; empty = start one on this machine."
    )
    ray_cpus: float = Field(1.0, ge=0, description="ray: number of CPUs that one environment reserves.")

    only_for: ClassVar[Readers] = {name: {"placement": ("ray",)} for name in ("ray_address", "ray_cpus")}


class RewardSettings(Config):
    """Who scores the episodes."""

    name: str = Field("env", description="Module of rollwright.rewards or `package.module:Attribute`.")
    options: dict[str, Any] = Field({}, description="Arguments of the reward's `build`.")

    def require_outcomes(self) -> None:
        """Raises ValueError for a model's shares and scores: they lie above 0 for most failures too."""
        if self.name in ("outcome_model", "judge") and self.options.get("value", "verdict") != "verdict":
            raise ValueError(
                f"`reward.options.value={self.options['value']}` gives most failures a return above 0, and with "
                "`algorithm.outcome=reward` that is a success: use verdict"
            )


def open_world(settings: WorldSettings) -> World:
    """Build the world by name.

    Raises:
        UnknownComponent: no such module.
        ConfigError: the world's `build` does not take these options, or gives an object that is no world.
        MissingDependency: `world.placement=ray` without Ray.
    """
    world: World = _built(load("envs", settings.name), settings.options, f"world.options of {settings.name}")
    require_contract("world.name", f"environment `{settings.name}`", world, ("tasks", "make", "close"))
    if settings.placement == "local":
        return world
    from rollwright.run_io import RayWorld

    # Tasks and texts still come from the world of this process; only its environments live elsewhere.
    return RayWorld(world, settings.name, settings.options, address=settings.ray_address, cpus=settings.ray_cpus)


def require_judged(tasks: Sequence[Task], split: Split, world: World) -> None:
    """Raises ConfigError where the world has nothing to judge a policy by: found at the start, not after training.

    Args:
        tasks: of the split that the evaluation is to play.
    """
    if tasks:
        return
    there = ", ".join(f"{name} {len(found)}" for name in SPLITS if (found := world.tasks(name))) or "none at all"
    raise ConfigError(
        f"`evaluation.split={split}`: the world {world.name} has no tasks of that split (its tasks: {there}). Choose a "
        "split that has some, validation or test, or give the world tasks that are kept from training."
    )


def close_world(world: World) -> None:
    """Close a world that no collector took over."""
    ended = world.close()
    if inspect.isawaitable(ended):

        async def wait() -> None:
            await ended

        # `asyncio.run` accepts coroutines only, and an awaitable may be something else.
        asyncio.run(wait())


def close_play(world: World, collector: Collector | None, engine: Engine | None) -> None:
    """Close what was opened of the three; a collector closes the world that it plays in."""
    if collector is not None:
        collector.close()
    else:
        close_world(world)
    # The engine goes last, as episodes of the collector may still be waiting for it.
    if engine is not None:
        engine.close()


def open_reward(settings: RewardSettings) -> Reward:
    """Build the reward by name.

    Raises:
        UnknownComponent: no such module.
        ConfigError: the reward's `build` does not take these options, or gives an object that cannot score.
    """
    reward: Reward = _built(load("rewards", settings.name), settings.options, f"reward.options of {settings.name}")
    require_contract("reward.name", f"reward `{settings.name}`", reward, ("score",))
    return reward


def _built(build: Callable[..., Any], options: dict[str, Any], where: str) -> Any:
    # Names are compared beforehand, as the TypeError of a call tells only the first unknown one.
    known = inspect.signature(build).parameters
    # A `build` with **options takes every name.
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    strangers = [] if takes_any else sorted(set(options) - set(known))
    if strangers:
        raise ConfigError(f"{where}: unknown {', '.join(strangers)}; it takes {', '.join(known) or 'no options'}")
    try:
        return build(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
