"""LMRL-Gym's Wordle: find a word of five letters out of a list of 400 in at most six guesses.

Reward, the benchmark's own scale: -1 for every guess, 0 for the guess that solves it. A guess that is no word of the
list costs a guess and brings no marks. So a game is worth between 0 (first guess) and -6; the benchmark reports -1.94
for its best scripted policy.

The hidden word is drawn anew in each turn from the words that agree with all marks so far: the state is then what the
policy has seen, and nothing else. For the policy that is the same game as with a word fixed at the start.

The list of words is our own (400 common English words, as many as the benchmark has), so returns are on the
benchmark's scale but belong to this list.

Marks are the usual game's: a letter is marked as often as the word has it. The benchmark's program marks every letter
that occurs anywhere in the word (8% of the pairs of our list differ: of "geese" against "enter" the third e gets a y
there). A guess may be written with or without blanks between its letters; there, always with.

Source: arXiv:2311.18232 (rules, rewards, limit).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

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
)
from rollwright.envs.text.game import GameEnvironment, check_seed, draw, plain, state_in

Marks = str  # one letter per place: g is right, y is elsewhere in the word, b is not (or not again) in it
SOLVED: Marks = "ggggg"
MIN_RETURN = -6.0
GOAL = "Find the hidden word."


@cache
def all_words() -> tuple[str, ...]:
    """The 400 words, sorted."""
    text = resources.files(__package__).joinpath("wordle_words.txt").read_text(encoding="utf-8")
    return tuple(text.split())


@cache
def marks(guess: str, hidden: str) -> Marks:
    """What `guess` earns against `hidden`. A letter is marked as often as it is hidden, right places first."""
    # Letters in their right places are taken first: they cannot be elsewhere too.
    left = Counter(h for g, h in zip(guess, hidden, strict=True) if g != h)
    said = []
    for g, h in zip(guess, hidden, strict=True):
        if g == h:
            said.append("g")
        elif left[g] > 0:
            # Each hidden letter is marked once.
            left[g] -= 1
            said.append("y")
        else:
            said.append("b")
    return "".join(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordleState:
    """Guesses with their marks; a slip has the marks ""."""

    seed: int
    guesses: tuple[tuple[str, Marks], ...] = ()


def consistent(words: Sequence[str], guesses: Sequence[tuple[str, Marks]]) -> tuple[str, ...]:
    """The words that would have earned every guess its marks."""
    # Slips have no marks and tell nothing.
    valid = [(guess, said) for guess, said in guesses if said]
    return tuple(word for word in words if all(marks(guess, word) == said for guess, said in valid))


@lru_cache(maxsize=4096)
def most_telling(words: tuple[str, ...]) -> str:
    """The word among `words` whose marks tell most on average (highest entropy); the first of equals."""
    return max(words, key=lambda guess: _entropy(Counter(marks(guess, hidden) for hidden in words)))


def _entropy(counts: Counter[Marks]) -> float:
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values())


def solver_guess(words: tuple[str, ...], guesses: Sequence[tuple[str, Marks]]) -> str:
    """The solver's next guess: the most telling of the words that may still be it."""
    left = consistent(words, guesses)
    # The opening compares all pairs of words, 160,000 of them, so it is worked out once.
    return _opening(words) if len(left) == len(words) else most_telling(left)


@cache
def _opening(words: tuple[str, ...]) -> str:
    return most_telling(words)


class Solver:
    """Guesses what tells most; knows the list and the marks, not the hidden word."""

    def act(self, env: Environment, observation: Observation) -> str:
        """A word that fits all marks so far. Raises TypeError in another world's environment."""
        if not isinstance(env, GameEnvironment) or not isinstance(env.state, WordleState):
            raise TypeError(f"this teacher plays Wordle, not {type(env).__name__}")
        return solver_guess(env.game.words, env.state.guesses)  # type: ignore[attr-defined]


class WordleWorld:
    """The game and its world. Build it with `build`."""

    name = "text.wordle"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    fingerprint_kind: FingerprintKind = "history"
    state_type = WordleState
    instructions = (
        "Find a hidden word of five letters. Answer with one word of five letters. Each letter is then marked: "
        "g for right, y for elsewhere in the word, b for not in the word."
    )

    def __init__(self, *, words: tuple[str, ...], max_turns: int) -> None:
        self.words = words
        self.max_turns = max_turns
        self._known = frozenset(words)
        self.identity = f"{self.name}/{len(words)}/{max_turns}"

    def tasks(self, split: Split) -> list[Task]:
        """The one task of a split."""
        return [Task(id=f"{split}/wordle", split=split)]

    def make(self) -> GameEnvironment[WordleState]:
        """A fresh environment."""
        return GameEnvironment(self)

    def teacher(self, task: Task) -> Solver:
        """Guesses what fits."""
        return Solver()

    def truly_solved(self, env: Environment) -> bool | None:
        """For the audit: whether the last guess is the only word that agrees with all marks."""
        guesses = state_in(env, WordleState).guesses
        return bool(guesses) and consistent(self.words, guesses) == (guesses[-1][0],)

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A word of the list, whatever the marks say."""
        return draws.choice(self.words)

    def begin(self, task: Task, seed: int) -> tuple[WordleState, Observation]:
        """Begin without a guess."""
        check_seed(task, seed)
        return WordleState(seed=seed), Observation(text="No guess yet.", goal=GOAL)

    def play(self, state: WordleState, action: str) -> tuple[WordleState, StepResult]:
        """Mark one guess; what is no word of the list is a slip."""
        guess = "".join(action.lower().split())  # as letters apart too, the way the marks are shown
        if guess not in self._known:
            # Kept short: nothing reads a slip again, but it stands in the state.
            after = WordleState(seed=state.seed, guesses=(*state.guesses, (plain(guess, limit=10), "")))
            return after, StepResult(observation="That is no word of the list.", reward=-1.0)
        possible = consistent(self.words, state.guesses)
        # By the number of guesses, so that the same guesses meet the same word.
        hidden = draw(state.seed, len(state.guesses)).choice(possible)
        said = marks(guess, hidden)
        after = WordleState(seed=state.seed, guesses=(*state.guesses, (guess, said)))
        solved = said == SOLVED
        # Letters and marks in two lines, one below the other.
        text = f"{' '.join(guess)}\n{' '.join(said)}"
        reward = 0.0 if solved else -1.0
        return after, StepResult(observation=text, reward=reward, terminated=solved, success=True if solved else None)

    def key(self, state: WordleState) -> str:
        """The guesses and their marks."""
        return " ".join(f"{guess}:{said}" for guess, said in state.guesses)

    def texts(self) -> list[str]:
        """Instructions, answers, all words, and the letters and marks with and without a blank before them."""
        letters = " ".join("abcdefghijklmnopqrstuvwxyz")
        lines = [f"{letter}\n{mark}" for letter in letters.split() for mark in "gyb"]
        said = ["No guess yet.", "That is no word of the list.", letters, "g y b g", *lines]
        return [self.instructions, GOAL, *said, *self.words]

    def close(self) -> None:
        """Nothing is held."""


def build(*, words: Sequence[str] | None = None, max_turns: int = 6) -> WordleWorld:
    """Wordle over `words`.

    Args:
        words: of five lower-case letters; None for the 400 that come with it.
        max_turns: guesses; 6 in published results.

    Raises:
        ConfigError: fewer than two words, a word twice or of another form, or no guess allowed.
    """
    chosen = all_words() if words is None else tuple(words)
    wrong = [word for word in chosen if len(word) != 5 or not (word.isascii() and word.isalpha() and word.islower())]
    if wrong or len(chosen) < 2 or len(set(chosen)) != len(chosen):
        raise ConfigError(
            f"text.wordle needs two or more different words of five lower-case letters, got {wrong or chosen}"
        )
    if max_turns < 1:
        raise ConfigError(f"text.wordle needs max_turns of 1 or more, got {max_turns}")
    return WordleWorld(words=chosen, max_turns=max_turns)
