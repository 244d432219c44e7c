"""Procedural reasoning problems of the package reasoning-gym, one answer each, scored by the package's own rule.

A question belongs to one split by a hash of its text, so no question that is drawn twice is ever on both sides.
Task params hold `answer`; the reward `maths` (math-verify) can therefore judge the families with mathematical answers.
Reward, part `answer`: the package's score in [0, 1]; success asks for 1.

Source: reasoning-gym 0.1 (Apache-2.0). What a family's rule may be shown of an answer is decided in `maths_families`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

from rollwright.contracts import ConfigError, DataError, MissingDependency, Observation, Split, Task
from rollwright.envs.code.problems import maths_families
from rollwright.envs.code.submission import (
    EXECUTION,
    SNAPSHOTS,
    Feedback,
    Judgement,
    KnownAnswer,
    SubmissionEnvironment,
    check_positive,
)

FAMILIES = ("basic_arithmetic", "chain_sum", "gcd", "lcm", "leg_counting", "simple_equations", "spell_backward")
INSTRUCTIONS = "Solve the problem. Give the final answer, and nothing else, between <answer> and </answer>."
MAX_ANSWER = 5_000
_OPEN, _CLOSE = "<answer>", "</answer>"


def answer_in(text: str) -> str:
    """What stands in the last <answer> pair, or the last line that is not empty."""
    found, place = None, 0
    while (start := text.find(_OPEN, place)) >= 0 and (end := text.find(_CLOSE, start)) >= 0:
        found, place = text[start + len(_OPEN) : end], end + len(_CLOSE)
    if found is not None:
        return found.strip()[:MAX_ANSWER]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MAX_ANSWER] if lines else ""


def split_of(question: str) -> Split:
    """Eight tenths of all questions are for training, one each for validation and test."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 10
    return "validation" if bucket == 0 else "test" if bucket == 1 else "train"


@cache
def _entries(family: str, size: int, seed: int) -> tuple[Any, tuple[dict[str, Any], ...]]:
    """A family's rule and its first entries, no question twice."""
    library = _library()
    dataset = library.create_dataset(family, size=size, seed=seed)
    found: dict[str, dict[str, Any]] = {}
    for entry in dataset:
        found.setdefault(entry["question"], entry)
    return dataset, tuple(found.values())


def _library() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingDependency("code.maths needs reasoning-gym: pip install 'rollwright[code]'") from error
    return reasoning_gym


class MathsWorld:
    """Questions with one answer. Build it with `build`."""

    name = "code.maths"
    instructions = INSTRUCTIONS
    execution = EXECUTION
    snapshots = SNAPSHOTS
    max_turns = 1
    attempts = 1
    feedback: Feedback = "none"

    def __init__(self, *, families: Sequence[str], problems_per_family: int, seed: int) -> None:
        self.families = tuple(families)
        self._size, self._seed = problems_per_family, seed

    def tasks(self, split: Split) -> list[Task]:
        """The problems of a split whose answer can be handed in: one or two in a hundred are empty, or too long."""
        return [
            Task(
                id=f"{family}/{number}",
                split=split,
                params={"family": family, "number": number, "answer": str(entry["answer"])},
            )
            for family in self.families
            for number, entry in enumerate(_entries(family, self._size, self._seed)[1])
            if split_of(entry["question"]) == split and 0 < len(str(entry["answer"]).strip()) <= MAX_ANSWER
        ]

    def make(self) -> SubmissionEnvironment:
        """A fresh environment."""
        return SubmissionEnvironment(self)

    def observe(self, task: Task) -> Observation:
        """The problem in words."""
        return Observation(text=str(self._problem(task)[2]["question"]), goal="Solve this problem.")

    def judge(self, task: Task, text: str) -> Judgement:
        """The package's rule on what the family's grammar lets through; what it cannot read is wrong."""
        family, dataset, entry = self._problem(task)
        answer = answer_in(text)
        score = maths_families.score(family, answer, entry, dataset) if answer else 0.0
        right = score >= 1.0
        return Judgement(parts={"answer": score}, success=right, message="Right." if right else "Wrong.")

    def next_attempt(self, judgement: Judgement) -> str:
        """What a wrong answer is answered with."""
        return judgement.message

    def _problem(self, task: Task) -> tuple[str, Any, dict[str, Any]]:
        """The family, its rule and the entry of a task. Params come from disk as well: only what is here is believed.

        Raises:
            DataError: the task is none of this world's.
        """
        family, number = task.params.get("family"), task.params.get("number")
        if not isinstance(family, str) or family not in self.families:
            raise DataError(f"task {task.id!r} is of family {family!r}; this code.maths has {', '.join(self.families)}")
        dataset, entries = _entries(family, self._size, self._seed)
        if type(number) is not int or not 0 <= number < len(entries):
            raise DataError(f"task {task.id!r} is number {number!r} of {family}; there are {len(entries)} here")
        if task.params.get("answer") != str(entries[number]["answer"]):
            raise DataError(
                f"task {task.id!r} has another answer than problem {number} of {family} here: build code.maths with "
                "the problems_per_family and seed, and the version of reasoning-gym, that the task was made with"
            )
        return family, dataset, copy.deepcopy(entries[number])  # some rules write into it

    def teacher(self, task: Task) -> KnownAnswer:
        """Hands in the known answer."""
        return KnownAnswer(f"<answer>{task.params['answer']}</answer>")

    def close(self) -> None:
        """The judge of integrals is shared by all worlds of the process."""


def build(*, families: Sequence[str] = FAMILIES, problems_per_family: int = 100, seed: int = 0) -> MathsWorld:
    """Reasoning problems.

    Args:
        families: names of reasoning-gym's datasets.
        problems_per_family: drawn for each, before they fall into the splits.
        seed: of the draw.

    Raises:
        MissingDependency: reasoning-gym is not installed.
        ConfigError: no families, an unknown one, or one whose rule cannot be used.
    """
    check_positive("code.maths", problems_per_family=problems_per_family)
    if not families:
        raise ConfigError("code.maths needs families, none given")
    for family in families:
        maths_families.check(family)
    _library()
    for family in families:
        try:
            _entries(family, problems_per_family, seed)
        except ValueError as error:
            raise ConfigError(f"code.maths: reasoning-gym has no family {family!r}: {error}") from error
    return MathsWorld(families=families, problems_per_family=problems_per_family, seed=seed)
