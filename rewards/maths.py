"""The last action's final answer against the task's, as mathematics: 1/2 is 0.5 is \\frac{1}{2}. By math-verify.

Answers are judged in another process, under a limit of time and memory that holds in any thread. One that cannot be
judged within it is wrong.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from rollwright.contracts import Group, MissingDependency, Score
from rollwright.envs.code.sandbox.rules import rule

MAX_ANSWER = 10_000
"""Characters, from the end: the answer stands there."""
BATCH = 8
"""Texts that are judged in one process."""
# What the box may import beside the standard library: math-verify and what it needs.
PACKAGES = ("math_verify", "latex2sympy2_extended", "antlr4", "sympy", "mpmath")


def is_same_answer(text: str, answer: str) -> bool:
    """Whether the answer in `text` (boxed, in LaTeX, or the last expression) equals `answer`.

    Raises:
        MissingDependency: math-verify is not installed.
        ValueError: `answer` itself cannot be read, so nothing could equal it.
    """
    return judged([text], answer)[0][0]


def judged(texts: Sequence[str], answer: str) -> list[tuple[bool, str]]:
    """For each text the verdict, and why it could not be judged where it could not: that makes it wrong.

    Raises:
        MissingDependency: math-verify is not installed.
        ValueError: `answer` itself cannot be read, so nothing could equal it.
    """
    found: list[tuple[bool, str]] = []
    # In batches, since to start a process costs more than to judge a text.
    for first in range(0, len(texts), BATCH):
        found += _judged_together([text[-MAX_ANSWER:] for text in texts[first : first + BATCH]], answer)
    return found


def _judged_together(texts: list[str], answer: str) -> list[tuple[bool, str]]:
    """All in one process; where one of them ends it, each in its own, so that one text costs its own verdict only."""
    called = rule("rollwright.rewards.maths_rule", PACKAGES)("same_answers", texts, answer)
    # The task is at fault here, and a wrong task must not pay 0 to whoever plays it.
    if called.how == "value" and called.value is None:
        raise ValueError(f"the expected answer {answer[:200]!r} is no mathematics that math-verify can read")
    if called.how == "value":
        return [(bool(same), "") for same in called.value]
    # Alone in a second try: only texts that end a process by themselves are wrong for it.
    if len(texts) > 1:
        return [pair for text in texts for pair in _judged_together([text], answer)]
    return [(False, f"the answer cannot be judged: {called.message}")]


class MathsReward:
    """1 or 0; no score for a task without `answer` in its params, or with one that cannot be read."""

    name = "maths"

    def score(self, group: Group) -> Sequence[Score]:
        """Compare each last answer with the task's; no score where a task has no answer."""
        answer = group.task.params.get("answer")
        # `True` is an int in Python, but no mathematical answer.
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            why = f"task {group.task.id!r} has no answer in its params" + ("" if answer is None else " that is text")
            return [Score(value=None, verifier=self.name, message=why) for _ in group.trajectories]
        try:
            found = judged([trajectory.turns[-1].action for trajectory in group.trajectories], str(answer))
        except ValueError as error:
            return [Score(value=None, verifier=self.name, message=str(error)) for _ in group.trajectories]
        return [Score(value=float(same), verifier=self.name, message=said) for same, said in found]


def build() -> MathsReward:
    """Equality of the final answer with `params["answer"]`.

    Raises:
        MissingDependency: math-verify is not installed.
    """
    # Without importing it: the box does that, in a process of its own.
    if importlib.util.find_spec("math_verify") is None:
        raise MissingDependency("the maths reward needs math-verify: pip install 'rollwright[code]'")
    return MathsReward()
