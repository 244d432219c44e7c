"""What a world may tell those who hold rules over the order in which things are done (`text.ruled`)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rollwright.contracts.environment import Environment


@runtime_checkable
class NamesEvents(Protocol):
    """A world whose every action is one of a few named events, known before the action is carried out."""

    @property
    def events(self) -> tuple[str, ...]:
        """All names: letters, digits and underscores, in an order that stays."""
        ...

    def event_of(self, env: Environment, action: str) -> str:
        """The event that this action would be in the state of `env`, in which nothing changes.

        An action that would not be carried out is an event too, such as `slip`.
        """
        ...
