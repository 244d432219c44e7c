"""Two answers to one question, and nobody says whether the first was right: the smallest place for self-correction.

A question asks for one of a few digits. After the first answer comes one word, the same for right and wrong answers,
and then the question is answered again. Each answer earns 1.0 if it is right (part `answer`) and carries the number of
its attempt; the episode's success is that of the second one. The right digit of a question is fixed and never shown, so
a policy can only remember it: this world tests a method, not a model.

Source: the two-turn protocol is that of arXiv:2409.12917 (SCoRe), section 3.
"""

from __future__ import annotations

import json
import random

from rollwright.contracts import (
    AuditFacts,
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

AGAIN, DONE = "again", "done"


class TwoAnswersEnvironment:
    """One question, answered twice."""

    def __init__(self, world: SecondAttemptWorld) -> None:
        self.world = world
        self.seed = 0
        self._question = ""
        self._given: list[str] = []

    @property
    def used(self) -> int:
        """Answers given so far."""
        return len(self._given)

    @property
    def right(self) -> str:
        """The digit that is asked for."""
        return self.world.answers[self._question]

    def reset(self, task: Task, seed: int) -> Observation:
        """Ask the task's question. Raises ValueError for a seed of another split."""
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        self._question, self.seed, self._given = str(task.params["question"]), seed, []
        return Observation(text=self._question)

    def step(self, action: str) -> StepResult:
        """Take an answer; the second one ends the episode. Raises RuntimeError after the end."""
        if self.used == 2:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        # Anything is an answer: a slip is just a wrong one.
        self._given.append(action.strip())
        right, over = self._given[-1] == self.right, self.used == 2
        return StepResult(
            # The same word for right and wrong, or the second answer could be read off it.
            observation=DONE if over else AGAIN,
            reward={"answer": float(right)},
            terminated=over,
            success=right if over else None,
            # Counted from 0; the method rewards progress from one attempt to the next by it.
            attempt=self.used - 1,
        )

    def fingerprint(self) -> str:
        """The question and the answers so far: the conversation is the state."""
        return state_key(self._question, *self._given)

    def snapshot(self) -> bytes:
        """The state as JSON."""
        return json.dumps({"question": self._question, "seed": self.seed, "given": self._given}).encode()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        saved = json.loads(state)
        self._question, self.seed, self._given = saved["question"], saved["seed"], list(saved["given"])

    def close(self) -> None:
        """Nothing is held."""


class CorrectsItself:
    """Answers right the second time, and the first time with some probability."""

    def __init__(self, right_frac: float) -> None:
        self._right_frac = right_frac

    def act(self, env: Environment, observation: Observation) -> str:
        """The right digit, or at times another in the first attempt. Raises TypeError in another world."""
        if not isinstance(env, TwoAnswersEnvironment):
            raise TypeError(f"this teacher answers questions, not in {type(env).__name__}")
        # By the seed alone, so that the teacher errs in the same episodes each time.
        draws = random.Random(f"teacher/{env.seed}")
        if env.used == 0 and draws.random() >= self._right_frac:
            return draws.choice([digit for digit in env.world.digits if digit != env.right])
        return env.right


class SecondAttemptWorld:
    """Build it with `build`."""

    name = "text.second_attempt"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    fingerprint_kind = "history"
    instructions = ""
    max_turns = 2
    attempts = 2

    def __init__(self, *, questions: int, digits: int, teacher_right_frac: float) -> None:
        self.digits = tuple(str(digit) for digit in range(digits))
        # Fixed by the options: the same questions and answers in every process and split.
        draws = random.Random(f"second attempt/{questions}/{digits}")
        self.answers = {f"question{number}": draws.choice(self.digits) for number in range(questions)}
        self.teacher_right_frac = teacher_right_frac

    def tasks(self, split: Split) -> list[Task]:
        """One per question, the same in every split: an answer can be remembered, not worked out."""
        return [Task(id=f"{split}/{name}", split=split, params={"question": name}) for name in self.answers]

    def make(self) -> TwoAnswersEnvironment:
        """A fresh environment."""
        return TwoAnswersEnvironment(self)

    def teacher(self, task: Task) -> CorrectsItself:
        """Knows the answers, and errs in the first attempt as often as the options say."""
        return CorrectsItself(self.teacher_right_frac)

    def audit_facts(self, task: Task) -> AuditFacts:
        """Questions have fixed answers, to be remembered: a digit that is said to all of them is right for its own."""
        told = "a question has one fixed answer of few: the digit that is said is right for some questions"
        return AuditFacts(solved_by=dict.fromkeys(("constant", "repeat", "loop", "random"), told), last_decides=True)

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """One of the digits."""
        return draws.choice(self.digits)

    def texts(self) -> list[str]:
        """Everything that is said here."""
        return [*self.answers, AGAIN, DONE, *self.digits]

    def close(self) -> None:
        """Nothing is held."""


def build(*, questions: int = 1, digits: int = 10, teacher_right_frac: float = 0.5) -> SecondAttemptWorld:
    """Questions with one digit as the answer, two attempts each.

    Args:
        questions: how many questions there are, 1 to 1,000.
        digits: possible answers, 2 to 10.
        teacher_right_frac: share of right first attempts of the teacher; its second attempt is always right.

    Raises:
        ConfigError: an option has no such value.
    """
    for name, value, low, high in (("questions", questions, 1, 1000), ("digits", digits, 2, 10)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"text.second_attempt needs {name} from {low} to {high}, got {value!r}")
    if not 0 <= teacher_right_frac <= 1:
        raise ConfigError(f"text.second_attempt needs teacher_right_frac from 0 to 1, got {teacher_right_frac!r}")
    return SecondAttemptWorld(questions=questions, digits=digits, teacher_right_frac=teacher_right_frac)
