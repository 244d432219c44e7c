"""The last action's final answer against the task's, as mathematics: 1/2 is 0.5 is \\frac{1}{2}. By math-verify."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from rollwright.errors import MissingDependency
from rollwright.types import Group, Score

MAX_ANSWER = 10_000
"""Characters, from the end: the answer stands there."""
TIMEOUT_S = 5


def is_same_answer(text: str, answer: str) -> bool:
    """Whether the answer in `text` (boxed, in LaTeX, or the last expression) equals `answer`.

    Raises:
        MissingDependency: math-verify is not installed.
        ValueError: `answer` itself cannot be read, so nothing could equal it.
    """
    library = _library()
    # Its time limits are alarms, which only the main thread can set.
    limit = TIMEOUT_S if threading.current_thread() is threading.main_thread() else None
    gold = _parse(library, answer, limit) or _parse(library, f"${answer}$", limit)
    if not gold:
        raise ValueError(f"the expected answer {answer!r} is no mathematics that math-verify can read")
    return bool(library.verify(gold, _parse(library, text[-MAX_ANSWER:], limit), timeout_seconds=limit))


def _parse(library: Any, text: str, limit: int | None) -> list[Any]:
    found: list[Any] = library.parse(text, parsing_timeout=limit)
    return found


def _library() -> Any:
    try:
        import math_verify
    except ImportError as error:
        raise MissingDependency("the maths reward needs math-verify: pip install 'rollwright[code]'") from error
    return math_verify


class MathsReward:
    """1 or 0; no score for a task without `answer` in its params, or with one that cannot be read."""

    name = "maths"

    def score(self, group: Group) -> Sequence[Score]:
        answer = group.task.params.get("answer")
        if answer is None:
            why = f"task {group.task.id!r} has no answer in its params"
            return [Score(value=None, verifier=self.name, message=why) for _ in group.trajectories]
        return [self._score(trajectory.turns[-1].text, str(answer)) for trajectory in group.trajectories]

    def _score(self, text: str, answer: str) -> Score:
        try:
            return Score(value=float(is_same_answer(text, answer)), verifier=self.name)
        except ValueError as error:
            return Score(value=None, verifier=self.name, message=str(error))


def build() -> MathsReward:
    """Equality of the final answer with `params["answer"]`.

    Raises:
        MissingDependency: math-verify is not installed.
    """
    _library()
    return MathsReward()
