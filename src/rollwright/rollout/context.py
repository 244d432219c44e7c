"""What an episode asks of its context; `rollwright.rollout.contexts` has the append-only and the windowed kind."""

from __future__ import annotations

from typing import Protocol

from rollwright.contracts import Message, Observation
from rollwright.generation import Generation


class Context(Protocol):
    """What the policy is given, built turn by turn."""

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        """Take in an observation; returns the messages that are new to the policy."""
        ...

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        """The ids of the next prompt, leaving room for `reserve` action tokens.

        Raises:
            ContextOverflow: there is no such room.
        """
        ...

    def act(self, generation: Generation) -> str:
        """Take in what was sampled; returns the action's text."""
        ...
