"""Guess a hidden whole number; each answer says higher or lower. Pays 1.0, once, for the right guess.

The seed draws the number, and the seeds of the splits are apart. The rules and the range are the same everywhere: this
world shows that a policy learns to search, not that it generalises to other games. Each split has one task.
"""

from __future__ import annotations

import json
import random
import re

from rollwright.contracts import (
    ConfigError,
    Environment,
    Execution,
    FingerprintKind,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    split_of_seed,
    state_key,
)

HIGHER, LOWER, CORRECT, SLIP = "Higher.", "Lower.", "Correct.", "Answer with one whole number."
_GUESS = re.compile(r"-?[0-9]{1,9}")  # plain digits only: `int` would also take other scripts' digits and underscores


class GuessNumberEnvironment:
    """One game."""

    def __init__(self, world: GuessNumberWorld) -> None:
        self.world = world
        self._secret = 0
        self._answers: list[tuple[str, str]] = []
        self._over = True

    @property
    def hidden(self) -> int:
        """The number to be found; the policy is never told."""
        return self._secret

    @property
    def guesses(self) -> list[str]:
        """All guesses so far; a slip is the empty text."""
        return [guess for guess, _ in self._answers]

    @property
    def interval(self) -> tuple[int, int]:
        """The smallest and largest number that no answer has ruled out."""
        low, high = self.world.low, self.world.high
        for guess, answer in self._answers:
            if answer == HIGHER:
                # A guess beyond what is ruled out already must not widen the interval again.
                low = max(low, int(guess) + 1)
            elif answer == LOWER:
                high = min(high, int(guess) - 1)
        return low, high

    def reset(self, task: Task, seed: int) -> Observation:
        """Draw the number. Raises ValueError for a seed of another split."""
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        self._secret = random.Random(seed).randint(self.world.low, self.world.high)
        self._answers, self._over = [], False
        return Observation(text=self.world.question)

    def step(self, action: str) -> StepResult:
        """Take a guess. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the game is over; call `reset` before the next `step`")
        # A slip is kept as the empty text: what was written is of no use to anybody later.
        guess = action.strip() if _GUESS.fullmatch(action.strip()) else ""
        answer = self._answer(guess)
        self._answers.append((guess, answer))
        if answer == CORRECT:
            self._over = True
            return StepResult(observation=answer, reward=1.0, terminated=True, success=True)
        self._over = len(self._answers) >= self.world.max_turns
        # No verdict before the end.
        return StepResult(observation=answer, truncated=self._over, success=False if self._over else None)

    def fingerprint(self) -> str:
        """All answers so far: the number itself is hidden and has no part in it."""
        # Equal answers mean equal knowledge, whatever number is hidden.
        return state_key(str(self.world.low), str(self.world.high), json.dumps(self._answers))

    def snapshot(self) -> bytes:
        """The state as JSON."""
        state = {"secret": self._secret, "answers": self._answers, "over": self._over}
        return json.dumps(state).encode()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        saved = json.loads(state)
        self._secret, self._over = saved["secret"], saved["over"]
        self._answers = [(guess, answer) for guess, answer in saved["answers"]]

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, guess: str) -> str:
        if not guess:
            return SLIP
        if int(guess) == self._secret:
            return CORRECT
        return HIGHER if int(guess) < self._secret else LOWER


class Bisection:
    """Guesses the middle of what is left: at most floor(log2(n)) + 1 guesses for n numbers."""

    def act(self, env: Environment, observation: Observation) -> str:
        """The middle of what is left. Raises TypeError in another world's environment."""
        if not isinstance(env, GuessNumberEnvironment):
            raise TypeError(f"this teacher guesses numbers, not {type(env).__name__}")
        low, high = env.interval
        return str((low + high) // 2)


class GuessNumberWorld:
    """Build it with `build`."""

    name = "text.guess_number"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    fingerprint_kind: FingerprintKind = "history"

    def __init__(self, *, low: int, high: int, max_turns: int) -> None:
        self.low = low
        self.high = high
        self.max_turns = max_turns
        self.question = f"Guess a number from {low} to {high}."
        self.instructions = (
            f"Find the hidden whole number from {low} to {high}. Answer with one number only; "
            "you are told whether the hidden one is higher or lower."
        )

    def tasks(self, split: Split) -> list[Task]:
        """The one task of a split."""
        return [Task(id=f"{split}/{self.low}-{self.high}", split=split, params={"low": self.low, "high": self.high})]

    def make(self) -> GuessNumberEnvironment:
        """A fresh environment."""
        return GuessNumberEnvironment(self)

    def teacher(self, task: Task) -> Bisection:
        """Halves the interval."""
        return Bisection()

    def truly_solved(self, env: Environment) -> bool | None:
        """For the audit: whether the last guess is the hidden number, digit by digit."""
        if not isinstance(env, GuessNumberEnvironment):
            return None
        last = env.guesses[-1] if env.guesses else ""
        # Text against text, by another way than the `int` of the verifier.
        return last.lstrip("0") == str(env.hidden) or last == "0" == str(env.hidden)

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A number of the range, ruled out already or not."""
        return str(draws.randint(self.low, self.high))

    def texts(self) -> list[str]:
        """Everything that is said in this game; of a wide range only the digits, to save vocabulary."""
        wide = self.high - self.low >= 1000
        numbers = range(10) if wide else range(self.low, self.high + 1)
        return [self.instructions, self.question, HIGHER, LOWER, CORRECT, SLIP, *map(str, numbers)]

    def close(self) -> None:
        """Nothing is held."""


def build(*, low: int = 1, high: int = 16, max_turns: int | None = None) -> GuessNumberWorld:
    """The guessing game from `low` to `high`, both included.

    `max_turns` None means what bisection needs at worst, plus three for slips.

    Raises:
        ConfigError: the range holds fewer than two numbers or leaves nine digits, or `max_turns` is below 1.
    """
    if high <= low or max(abs(low), abs(high)) > 999_999_999:
        raise ConfigError(f"text.guess_number needs low < high, both of at most nine digits, got {low} and {high}")
    # `bit_length` is floor(log2(n)) + 1, what bisection needs at worst.
    turns = (high - low + 1).bit_length() + 3 if max_turns is None else max_turns
    if turns < 1:
        raise ConfigError(f"text.guess_number needs max_turns of 1 or more, got {max_turns}")
    return GuessNumberWorld(low=low, high=high, max_turns=turns)
