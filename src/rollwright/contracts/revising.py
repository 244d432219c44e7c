"""What a world may tell those who look back at an episode: an action that changes nothing, and how far a state is."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

from rollwright.contracts.environment import Environment


@runtime_checkable
class Idles(Protocol):
    """A world with an action that changes nothing: what a policy does in the turn in which it thinks again (Agent-R).

    The action must leave the state, and so the fingerprint, as it was; it may use up a turn. It is said in training
    and when the policy is used, so that the world has to know it in both.
    """

    no_op: str


@runtime_checkable
class TellsDistance(Protocol):
    """A world that knows how far it is to a success: a judge of single actions. No policy is ever shown it."""

    def steps_left(self, env: Environment) -> int | Awaitable[int | None] | None:
        """Fewest actions from the environment's state to a success; None where there is none, or it is not known."""
        ...
