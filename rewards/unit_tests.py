"""Hidden tests as a reward: the last action is handed to a code world's judge, which runs it in the sandbox.

The code worlds pay their own verdict already (reward `env`). This one judges what was played elsewhere or stored:
episodes of a log, of another world with the same tasks, or a second opinion with other options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rollwright.config import create
from rollwright.contracts import ConfigError, Group, Score, Task


# Protocols and no import of a code world: any world whose `judge` fits will do.
class _Judged(Protocol):
    parts: Mapping[str, float]
    message: str


class _Judge(Protocol):
    def judge(self, task: Task, text: str) -> _Judged: ...


class UnitTestsReward:
    """The judgement of the last action of each trajectory."""

    name = "unit_tests"

    def __init__(self, world: _Judge) -> None:
        self._world = world

    def score(self, group: Group) -> Sequence[Score]:
        """What the code world says of each episode's last action."""
        return [self._score(group.task, trajectory.turns[-1].action) for trajectory in group.trajectories]

    def _score(self, task: Task, text: str) -> Score:
        judged = self._world.judge(task, text)
        # The world's own parts, whose sum is the value here as it is there.
        parts = dict(judged.parts)
        return Score(value=sum(parts.values()), verifier=self.name, parts=parts, message=judged.message)


def build(*, world: str = "code.synthesis", options: Mapping[str, Any] | None = None) -> UnitTestsReward:
    """The verdict of a code world on the last action.

    Args:
        world: name of a world whose environments judge a handed-in text (it has a method `judge`).
        options: for that world.

    Raises:
        ConfigError: the world judges no text.
    """
    made = create("envs", world, options)
    # Asked once at the start and not at the first score of a run.
    if not callable(getattr(made, "judge", None)):
        raise ConfigError(f"world {world!r} judges no handed-in text; try code.synthesis or code.humaneval")
    return UnitTestsReward(made)
