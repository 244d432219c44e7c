"""Overseers: who looks at a proposed action before the world is given it, and may have another one done.

The world is given the replacement, and the record holds it as written by a human: no policy loss, the rewards stay.
Source: arXiv:2410.21845 (HIL-SERL), where a person overrides the robot; here a rule or the world itself does.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from typing import Protocol

from rollwright.contracts import (
    ConfigError,
    DataError,
    Environment,
    EnvironmentFault,
    Observation,
    Oversees,
    World,
)


class Overseer(Protocol):
    """Looks at an action; the environment may be read, and must not be changed."""

    def __call__(self, env: Environment, observation: Observation, action: str) -> str | Awaitable[str | None] | None:
        """What is to be done in place of `action`; None where that may be done."""
        ...


def nobody() -> None:
    """No overseer."""
    return None


class WorldOverseer:
    """The world itself, where it knows its dangerous actions (`contracts.Oversees`).

    Raises:
        ConfigError: it does not.
    """

    def __init__(self, world: World) -> None:
        if not isinstance(world, Oversees):
            raise ConfigError(
                f"`actor.overseer=world`: {world.name} does not say which of its actions are dangerous. Use a world "
                "with `override(env, observation, action)`, or a rule of your own as package.module:Attribute"
            )
        self.world: Oversees = world

    def __call__(self, env: Environment, observation: Observation, action: str) -> str | Awaitable[str | None] | None:
        """What the world says."""
        return self.world.override(env, observation, action)


async def overridden(overseer: Overseer, env: Environment, observation: Observation, action: str) -> str | None:
    """The action that takes the place of the proposed one; None where the overseer lets it pass.

    Raises:
        EnvironmentFault: the overseer raised, or gave something that is no text.
    """
    try:
        found = overseer(env, observation, action)
        found = await found if inspect.isawaitable(found) else found
    except (asyncio.CancelledError, EnvironmentFault):
        raise
    except Exception as error:
        raise EnvironmentFault(f"the overseer failed at the action {action[:80]!r}: {error!r}") from error
    if found is not None and not isinstance(found, str):
        raise EnvironmentFault(
            f"the overseer gave {type(found).__name__} for the action {action[:80]!r}; expected text, or None to let "
            "it pass"
        )
    # The same action is no override: it is the policy's own.
    return None if found == action else found


def require_overseer(made: object) -> Overseer | None:
    """What a run takes for its overseer.

    Raises:
        DataError: it cannot be called.
    """
    if made is not None and not callable(made):
        raise DataError(f"`actor.overseer` gave {type(made).__name__}, which cannot be called with an action")
    return made
