"""What a world may declare about itself for `rollwright audit`. Every protocol here is optional.

The audit plays policies that cannot solve a task and counts each success of theirs as a fault of the verifier. A world
knows exceptions that nobody else can know: a button that any click hits, an allowed other spelling, the action that
ends an episode. It declares them here; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rollwright.contracts.environment import Environment
from rollwright.contracts.record import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFacts:
    """Facts about one task that the audit cannot find out by playing.

    `stop_action` ends the episode by declaring the task done. `solved_by` maps the name of a panel policy to the reason
    why it can truly solve this task; its successes are then listed and not counted as false accepts. `constants` are
    well-formed actions that the constant policy should try. `harmless` are the first words of actions that change
    nothing that is judged (`wait`): a solution without such a last step is still whole. Tasks of one `template` are
    counted as one cluster. `last_decides` says that an episode is judged by its last action alone. `answer_shown` is
    the reason why the answer may stand in the first observation.
    """

    stop_action: str = ""
    solved_by: Mapping[str, str] = field(default_factory=dict)
    constants: Sequence[str] = ()
    harmless: Sequence[str] = ()
    template: str = ""
    last_decides: bool = False
    answer_shown: str = ""


# `isinstance` looks for the names of the methods alone: to have one is to declare it.
@runtime_checkable
class Audited(Protocol):
    """A world that declares facts for the audit."""

    def audit_facts(self, task: Task) -> AuditFacts:
        """The facts about one task."""
        ...


@runtime_checkable
class Rewords(Protocol):
    """A world whose rules allow several spellings of one solution."""

    def reworded(self, task: Task, actions: Sequence[str]) -> Sequence[Sequence[str]]:
        """Other action lists that must also solve the task: other spacing, order, or an extra harmless action."""
        ...


@runtime_checkable
class Breakable(Protocol):
    """A world that can be broken on purpose, to prove that a fault never becomes a score."""

    def break_next(self, env: Environment) -> Awaitable[None] | None:
        """Make the next `step` of this environment meet a failure of the world or of its verifier."""
        ...


@runtime_checkable
class TellsTruth(Protocol):
    """A world with a second opinion on success: other code than the verifier's, which reads the world's own state."""

    def truly_solved(self, env: Environment) -> bool | None:
        """Whether the state of this environment solves its task; None where the state does not show it."""
        ...
