"""Worlds where the policy hands in a text and a judge decides: one attempt or several, with or without feedback.

What is judged differs (functions, tests, answers to problems); the episode does not, so it is written once, here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from rollwright.contracts import (
    ConfigError,
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    StepResult,
    Task,
    state_key,
)
from rollwright.envs.code.judging import clean_text

Feedback = Literal["none", "failure"]
MAX_SUBMISSION = 20_000
"""Characters; more is cut before it is judged."""
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a submission is worth: named parts of reward, the verdict, and what may be told about it."""

    parts: Mapping[str, float]
    success: bool
    message: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


class Judge(Protocol):
    """A world as its environments see it."""

    name: str
    attempts: int
    feedback: Feedback

    def observe(self, task: Task) -> Observation:
        """What the policy is shown first."""
        ...

    def judge(self, task: Task, text: str) -> Judgement:
        """Judge one attempt; may block for as long as the program may run."""
        ...

    def next_attempt(self, judgement: Judgement) -> str:
        """What is said between a failed attempt and the next one."""
        ...


def extract_code(text: str) -> str:
    """The last fenced block of an answer, or the whole answer where there is no fence."""
    blocks = _FENCE.findall(text[:MAX_SUBMISSION])
    return str(blocks[-1]) if blocks else text[:MAX_SUBMISSION]


class SubmissionEnvironment:
    """One task, `attempts` submissions. Ends at the first success, or with the last attempt.

    A world that sets `all_attempts` plays every attempt, right or wrong: nobody is told which it was.
    """

    def __init__(self, world: Judge, *, all_attempts: bool = False) -> None:
        self.world = world
        self.task: Task | None = None
        self.seed = 0
        self.used = 0
        self._all_attempts = all_attempts
        self._shown = ""
        self._history: list[str] = []
        self._over = True

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin with the task's first observation."""
        self.task, self.seed, self.used, self._history, self._over = task, seed, 0, [], False
        observation = self.world.observe(task)
        self._shown = observation.text
        return observation

    def step(self, action: str) -> StepResult:
        """Judge one attempt. The last one ends the episode, and so does a right one unless the world wants all.

        Raises:
            RuntimeError: the episode is over.
        """
        if self._over or self.task is None:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        action = clean_text(action)
        judgement = self.world.judge(self.task, action)
        attempt, self.used = self.used, self.used + 1
        self._history.append(action)
        won = judgement.success and not self._all_attempts
        self._over = won or self.used >= self.world.attempts
        self._shown = judgement.message if self._over else self.world.next_attempt(judgement)
        return StepResult(
            observation=self._shown,
            reward=judgement.parts,
            terminated=self._over,
            success=judgement.success if self._over else None,
            notes=judgement.notes,
            attempt=attempt,
        )

    def fingerprint(self) -> str:
        """Task, everything handed in, and what is shown: the conversation is the state."""
        return state_key(self.world.name, self.task.id if self.task else "", self._shown, *self._history)

    def snapshot(self) -> bytes:
        """The task, the attempts and what is shown, as JSON. Raises RuntimeError before the first reset."""
        if self.task is None:
            raise RuntimeError("there is no episode yet: call `reset` before `snapshot`")
        task = {"id": self.task.id, "split": self.task.split, "params": dict(self.task.params)}
        state = {"task": task, "seed": self.seed, "history": self._history, "shown": self._shown, "over": self._over}
        return json.dumps(state).encode()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        saved = json.loads(state)
        self.task = Task(**saved["task"])
        self.seed, self._history = saved["seed"], list(saved["history"])
        self.used, self._shown, self._over = len(self._history), saved["shown"], saved["over"]

    def close(self) -> None:
        """The boxes are the world's."""


class KnownAnswer:
    """A teacher that hands in the world's own solution, or with some probability a wrong one made from it."""

    def __init__(self, right: str, wrong: Sequence[str] = (), right_frac: float = 1.0) -> None:
        self._right, self._wrong, self._right_frac = right, tuple(wrong), right_frac

    def act(self, env: Environment, observation: Observation) -> str:
        """The known answer, or a mistake where one is drawn. Raises TypeError in another world's environment."""
        if not isinstance(env, SubmissionEnvironment):
            raise TypeError(f"this teacher hands in solutions, not to {type(env).__name__}")
        draw = int(state_key(str(env.seed), str(env.used), self._right), 16)
        # Where there are several attempts the last one is right: a demonstration shows the mistake put right.
        may_err = env.used < env.world.attempts - 1 or env.world.attempts == 1
        if may_err and self._wrong and draw % 10_000 >= 10_000 * self._right_frac:
            return self._wrong[draw // 10_000 % len(self._wrong)]
        return self._right


EXECUTION: Execution = "thread"
SNAPSHOTS: SnapshotKind = "exact"


def check_choices(world: str, **given: tuple[str, object]) -> None:
    """Compare options with a Literal's values: `check_choices("code.x", wording=(value, Wording))`.

    Raises:
        ConfigError: a value is none of them.
    """
    for key, (value, allowed) in given.items():
        if value not in get_args(allowed):
            raise ConfigError(f"{world} has no {key} {value!r}; expected one of {', '.join(get_args(allowed))}")


def check_positive(world: str, **given: int) -> None:
    """Raises ConfigError where a count is below 1."""
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{world} needs {key} of 1 or more, got {value!r}")
