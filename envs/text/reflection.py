"""An answer of a few digits, written step by step and open to second thoughts: the smallest place to restart in.

Each turn is one segment and begins with a word for what it does to the line that is written so far:

    continue 3   writes a digit behind the line
    reflect 3    takes the last digit back and writes this one in its place
    explore 3    drops the whole line and begins anew with this digit
    answer       ends the episode; 1.0 if the line is the answer

In a share of the episodes (`slip_frac`) the pen slips at the first segment: another digit stands there than was said,
whatever the policy knows. Only a policy that looks at the line and reflects solves those. The digits of a question are
fixed and never said, so a policy can only remember them: this world tests a method, not a model.

Source: the three meta-actions, and the task of two segments with a coin in the first, are those of arXiv:2502.02508
(Satori).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import product

from rollwright.contracts import (
    ConfigError,
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    split_of_seed,
    state_key,
)

CONTINUE, REFLECT, EXPLORE, ANSWER = "continue", "reflect", "explore", "answer"
RIGHT, WRONG = "right", "wrong"


def describe(question: str, line: Sequence[str]) -> str:
    """What is seen: the question and the line so far, in one word, for a tiny model has little else to look at."""
    return f"{question}line{''.join(line)}"


class LineEnvironment:
    """One question, and the line that is written as its answer."""

    def __init__(self, world: ReflectionWorld) -> None:
        self.world = world
        self._question = ""
        self._line: list[str] = []
        # What the pen will write in place of the first digit; empty where it does not slip.
        self._slip = ""
        self._over = True

    @property
    def right(self) -> tuple[str, ...]:
        """The digits that are asked for."""
        return self.world.answers[self._question]

    @property
    def slips(self) -> bool:
        """Whether the first digit is still to be written wrong."""
        return bool(self._slip)

    @property
    def line(self) -> tuple[str, ...]:
        """The digits that are written."""
        return tuple(self._line)

    def reset(self, task: Task, seed: int) -> Observation:
        """Ask the task's question. Raises ValueError for a seed of another split."""
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        self._question, self._line, self._over = str(task.params["question"]), [], False
        draws = random.Random(f"slip/{seed}")
        slips = draws.random() < self.world.slip_frac
        # A wrong digit, and not just another than was said: else a slip could put a wrong first digit right.
        self._slip = draws.choice([digit for digit in self.world.digits if digit != self.right[0]]) if slips else ""
        return self._look()

    def step(self, action: str) -> StepResult:
        """Write a segment. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        meta, _, digit = action.strip().partition(" ")
        if meta == ANSWER and not digit:
            self._over = True
            right = tuple(self._line) == self.right
            return StepResult(
                observation=RIGHT if right else WRONG, reward=float(right), terminated=True, success=right
            )
        # Anything else than a segment writes nothing and costs the turn.
        if digit in self.world.digits and self._makes_room(meta):
            self._line.append(self._slip or digit)
            self._slip = ""
        return StepResult(observation=self._look())

    def _makes_room(self, meta: str) -> bool:
        """Take back what this word takes back; whether a digit may be written now."""
        if meta == REFLECT and self._line:
            self._line.pop()
        elif meta == EXPLORE:
            self._line.clear()
        elif meta != CONTINUE:
            return False
        return len(self._line) < len(self.right)

    def _look(self) -> Observation:
        return Observation(text=describe(self._question, self._line))

    def fingerprint(self) -> str:
        """The question, the line, a slip that is still to come, and whether the episode is over."""
        return state_key(self._question, *self._line, self._slip, str(self._over))

    def snapshot(self) -> bytes:
        """The state as JSON."""
        return json.dumps([self._question, self._line, self._slip, self._over]).encode()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        self._question, self._line, self._slip, self._over = json.loads(state)

    def close(self) -> None:
        """Nothing is held."""


class LooksAtTheLine:
    """Continues a line that is right so far, repairs its last digit, and drops a line whose error lies further back."""

    def act(self, env: Environment, observation: Observation) -> str:
        """The next segment. Raises TypeError in another world's environment."""
        if not isinstance(env, LineEnvironment):
            raise TypeError(f"this teacher writes lines, not in {type(env).__name__}")
        line, right = env.line, env.right
        if line == right:
            return ANSWER
        if line == right[: len(line)]:
            return f"{CONTINUE} {right[len(line)]}"
        if line[:-1] == right[: len(line) - 1]:
            return f"{REFLECT} {right[len(line) - 1]}"
        return f"{EXPLORE} {right[0]}"


class ReflectionWorld:
    """Build it with `build`."""

    name = "text.reflection"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    instructions = ""

    def __init__(self, *, questions: int, length: int, digits: int, slip_frac: float, max_turns: int) -> None:
        self.digits = tuple(str(digit) for digit in range(digits))
        self.length, self.slip_frac, self.max_turns = length, slip_frac, max_turns
        # Fixed by the options: the same questions and answers in every process and split.
        draws = random.Random(f"reflection/{questions}/{length}/{digits}")
        self.answers = {
            f"question{number}": tuple(draws.choice(self.digits) for _ in range(length)) for number in range(questions)
        }

    def tasks(self, split: Split) -> list[Task]:
        """One per question, the same in every split: an answer can be remembered, not worked out."""
        return [Task(id=f"{split}/{name}", split=split, params={"question": name}) for name in self.answers]

    def make(self) -> LineEnvironment:
        """A fresh environment."""
        return LineEnvironment(self)

    def teacher(self, task: Task) -> LooksAtTheLine:
        """Knows the answers, and repairs what the pen got wrong."""
        return LooksAtTheLine()

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A segment of any kind with any digit; one in four is an answer."""
        meta = draws.choice((CONTINUE, REFLECT, EXPLORE, ANSWER))
        return meta if meta == ANSWER else f"{meta} {draws.choice(self.digits)}"

    def texts(self) -> list[str]:
        """Everything that is said here."""
        said = [f"{meta} {digit}" for meta in (CONTINUE, REFLECT, EXPLORE) for digit in self.digits]
        lines = [line for size in range(self.length + 1) for line in product(self.digits, repeat=size)]
        return [*said, ANSWER, RIGHT, WRONG, *(describe(question, line) for question in self.answers for line in lines)]

    def close(self) -> None:
        """Nothing is held."""


def build(
    *, questions: int = 4, length: int = 1, digits: int = 4, slip_frac: float = 0.5, max_turns: int = 0
) -> ReflectionWorld:
    """Questions whose answers are lines of digits.

    Args:
        length: digits of an answer, up to 3.
        digits: how many there are to choose from, 2 to 10.
        slip_frac: share of the episodes whose first digit is written wrong, whatever was said.
        max_turns: segments of an episode; 0 = two for each digit and three more.

    Raises:
        ConfigError: an option has no such value.
    """
    if questions < 1 or not 1 <= length <= 3 or not 2 <= digits <= 10:
        raise ConfigError(
            "text.reflection needs 1 question or more of 1 to 3 digits out of 2 to 10; got "
            f"questions={questions}, length={length}, digits={digits}"
        )
    if not 0 <= slip_frac <= 1:
        raise ConfigError(f"text.reflection: slip_frac is a share of the episodes, from 0 to 1, got {slip_frac}")
    limit = max_turns or 2 * length + 3
    if limit < length + 1:
        raise ConfigError(f"text.reflection: max_turns={limit} leaves no turn for the answer after {length} digits")
    return ReflectionWorld(questions=questions, length=length, digits=digits, slip_frac=slip_frac, max_turns=limit)
