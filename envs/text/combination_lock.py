"""A lock of several dials that opens only when every dial is right in turn: the hardest place to find a first reward.

At each dial one of a few digits is right. The right one leads to the next dial; a wrong one springs back to the first
(`slip: back`) or blocks the lock (`slip: over`). Opening pays 1.0, nothing else pays. Which digits are right is fixed
for each length and never said, so a policy can only remember them. With two digits and a policy that guesses, the first
reward takes about 2^(N+1) - 2 turns of a lock of N dials that springs back; from a snapshot of dial N - 1 it takes two.

Sources: the reset chain of arXiv:2403.00673 is checked with it (snapshot starts), and the lock of arXiv:2306.11816 in
the form `slip: over`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

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

Slip = Literal["back", "over"]
Wording = Literal["full", "compact"]
Hints = Literal["off", "kept", "shown"]
GOAL = "Open the lock."
OPEN, BLOCKED = "The lock is open.", "The lock is blocked."


def describe(length: int, dial: int, wording: Wording = "full") -> str:
    """What is seen at a dial, counted from 0. Compact, a state is one word: a tiny model has little else to look at."""
    return f"lock{length}dial{dial + 1}" if wording == "compact" else f"Lock of {length}, dial {dial + 1}."


def combination(length: int, digits: int, number: int = 0) -> tuple[int, ...]:
    """The right digits of a lock: the same in every process and for every seed."""
    # From text and not from the episode's seed: the lock can only be remembered.
    rng = random.Random(f"lock/{length}/{digits}/{number}")
    return tuple(rng.randrange(digits) for _ in range(length))


class LockEnvironment:
    """One attempt to open a lock."""

    def __init__(self, world: LockWorld) -> None:
        self.world = world
        # No episode yet: `_over` keeps `step` from using these.
        self._length = self._dial = 0
        self._number = world.numbers[0]
        self._over = True

    @property
    def right(self) -> int:
        """The digit that leads on from here."""
        return self.world.digits_of(self._length, self._number)[self._dial]

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin at the first dial. Raises ValueError for a seed of another split."""
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        self._length, self._dial, self._over = int(task.params["length"]), 0, False
        self._number = int(task.params.get("number", self.world.numbers[0]))
        return Observation(text=self._look(), goal="" if self.world.wording == "compact" else GOAL)

    def step(self, action: str) -> StepResult:
        """Try a digit; a wrong one ends the episode or starts over. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        word = action.strip()
        # A slip turns no dial; it only costs the turn.
        if word not in self.world.digits:
            return StepResult(observation=f"{self.world.slip_sentence} {self._look()}".strip())
        if int(word) != self.right:
            return self._wrong()
        self._dial += 1
        if self._dial == self._length:
            self._over = True
            return StepResult(observation=OPEN, reward=1.0, terminated=True, success=True)
        return StepResult(observation=self._look())

    def _look(self) -> str:
        seen = describe(self._length, self._dial, self.world.wording)
        told = self.world.told(self._length, self._number) if self.world.hints == "shown" else ""
        return f"{told}\n{seen}" if told else seen

    def _wrong(self) -> StepResult:
        if self.world.slip == "over":
            self._over = True
            return StepResult(observation=BLOCKED, terminated=True, success=False)
        self._dial = 0
        return StepResult(observation=self._look())

    def fingerprint(self) -> str:
        """The dials, the one it stands on, and whether the episode is over."""
        return state_key(str(self._length), str(self._dial), str(self._over), *map(str, self._which))

    def snapshot(self) -> bytes:
        """The state as JSON."""
        return json.dumps([self._length, self._dial, self._over, *self._which]).encode()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        self._length, self._dial, self._over, *which = json.loads(state)
        self._number = which[0] if which else self.world.numbers[0]

    @property
    def _which(self) -> list[int]:
        # Of one lock alone the number says nothing, and states that were kept before there were several stay valid.
        return [self._number] if len(self.world.numbers) > 1 else []

    def close(self) -> None:
        """Nothing is held."""


class KnowsTheLock:
    """Turns every dial to its digit."""

    def act(self, env: Environment, observation: Observation) -> str:
        """The right digit. Raises TypeError in another world's environment."""
        if not isinstance(env, LockEnvironment):
            raise TypeError(f"this teacher opens locks, not {type(env).__name__}")
        return str(env.right)


class LockWorld:
    """Build it with `build`."""

    name = "text.combination_lock"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"

    def __init__(
        self,
        *,
        lengths: tuple[int, ...],
        digits: int,
        slip: Slip,
        numbers: tuple[int, ...],
        max_turns: int,
        wording: Wording,
        hints: Hints = "off",
    ) -> None:
        self.digits = tuple(str(digit) for digit in range(digits))
        self.lengths, self.numbers = lengths, numbers
        self.combinations = {length: combination(length, digits, numbers[0]) for length in lengths}
        self.slip = slip
        self.max_turns, self.wording = max_turns, wording
        # Compact, the rules are left out: all a tiny model has to look at is the state's one word.
        choices = "" if wording == "compact" else f"Answer with one of: {', '.join(self.digits)}."
        self.instructions = f"Turn each dial of the lock. {choices}" if choices else ""
        self.slip_sentence = choices
        self.hints = hints

    def tasks(self, split: Split) -> list[Task]:
        """One per lock, the same in every split: its digits can be remembered, not worked out."""
        if len(self.numbers) == 1:
            return [Task(id=f"{split}/lock{n}", split=split, params={"length": n}) for n in self.combinations]
        return [
            Task(id=f"{split}/lock{n}no{number}", split=split, params={"length": n, "number": number})
            for n in self.lengths
            for number in self.numbers
        ]

    def digits_of(self, length: int, number: int) -> tuple[int, ...]:
        """The right digits of a lock of this world."""
        return combination(length, len(self.digits), number) if len(self.numbers) > 1 else self.combinations[length]

    def told(self, length: int, number: int) -> str:
        """The digits as a line of text, a word for each dial: a tiny model can look up one word, and hardly count."""
        return " ".join(f"dial{dial + 1}is{digit}" for dial, digit in enumerate(self.digits_of(length, number)))

    def parameter_box(self) -> dict[str, tuple[float, float]]:
        """From the shortest lock to the longest; a world of one lock has no box to search."""
        low, high = min(self.combinations), max(self.combinations)
        # A box without extent cannot be searched.
        return {"length": (float(low), float(high))} if low < high else {}

    def task_at(self, values: Mapping[str, float]) -> Task:
        """The lock nearest to this length."""
        return min(self.tasks("train"), key=lambda task: abs(task.params["length"] - values["length"]))

    def make(self) -> LockEnvironment:
        """A fresh environment."""
        return LockEnvironment(self)

    def teacher(self, task: Task) -> KnowsTheLock:
        """Knows the combination."""
        return KnowsTheLock()

    def hint(self, task: Task) -> str:
        """The digits in turn, for a teacher that is told them; "" unless `hints` keeps them for it."""
        number = int(task.params.get("number", self.numbers[0]))
        return self.told(int(task.params["length"]), number) if self.hints == "kept" else ""

    def override(self, env: Environment, observation: Observation, action: str) -> str | None:
        """For an overseer: a wrong digit is replaced by the right one, as it blocks the lock; all else may be done."""
        wrong = isinstance(env, LockEnvironment) and action.strip() in self.digits and int(action) != env.right
        return str(env.right) if isinstance(env, LockEnvironment) and wrong else None

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A digit that the dials have."""
        return draws.choice(self.digits)

    def texts(self) -> list[str]:
        """Everything that is said here."""
        seen = [describe(length, dial, self.wording) for length in self.combinations for dial in range(length)]
        slips = [f"{self.slip_sentence} {text}".strip() for text in seen]
        # Without the option nothing more is said, so that tiny models made before it stay the same.
        told = [f"dial{d + 1}is{digit}" for d in range(max(self.lengths)) for digit in self.digits]
        said = [self.instructions, GOAL, OPEN, BLOCKED, *seen, *slips, *self.digits]
        return said if self.hints == "off" else [*said, " ".join(told)]

    def close(self) -> None:
        """Nothing is held."""


def build(
    *,
    lengths: Sequence[int] = (6,),
    digits: int = 2,
    slip: Slip = "back",
    number: int = 0,
    max_turns: int = 0,
    wording: Wording = "full",
    hints: Hints = "off",
    numbers: Sequence[int] = (),
) -> LockWorld:
    """Locks of these lengths.

    Args:
        digits: choices at each dial, 2 to 10.
        slip: a wrong digit springs "back" to the first dial, or the lock is blocked and the episode "over".
        number: another combination for every number.
        max_turns: digits an episode may try; 0 = three times the longest lock.
        wording: "compact" says of a state one word and nothing else, for tiny models.
        hints: "kept" tells the digits to a teacher that asks for `hint(task)` and not to the policy; "shown" writes
            them above every observation, for demonstrations of how to read them.
        numbers: several combinations at once, each a task of its own, in place of `number`.

    Raises:
        ConfigError: an option has no such value.
    """
    sizes = tuple(lengths)
    if not sizes or len(set(sizes)) != len(sizes) or min(sizes) < 2:
        raise ConfigError(f"text.combination_lock needs different lengths of 2 or more, got {list(sizes)}")
    if not 2 <= digits <= 10:
        raise ConfigError(f"text.combination_lock needs 2 to 10 digits, got {digits}")
    if slip not in get_args(Slip):
        raise ConfigError(f"text.combination_lock has no slip {slip!r}; expected one of {', '.join(get_args(Slip))}")
    if wording not in get_args(Wording):
        raise ConfigError(
            f"text.combination_lock has no wording {wording!r}; expected one of {', '.join(get_args(Wording))}"
        )
    if hints not in get_args(Hints):
        raise ConfigError(f"text.combination_lock has no hints {hints!r}; expected one of {', '.join(get_args(Hints))}")
    # Room for about two wrong digits at the end of the lock.
    limit = max_turns or 3 * max(sizes)
    if limit < max(sizes):
        raise ConfigError(f"max_turns of {limit} cannot open a lock of {max(sizes)}; allow as many turns as dials")
    return LockWorld(
        lengths=sizes,
        digits=digits,
        slip=slip,
        numbers=tuple(dict.fromkeys(numbers)) or (number,),
        max_turns=limit,
        wording=wording,
        hints=hints,
    )
