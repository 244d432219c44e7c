"""One turn, several words, one of them pays 1.0. It shows that a learner learns at all, and nothing else.

The policy is told the words, not which one pays; only the reward says so. The seed draws the order in which the words
are listed, so the place in the list gives nothing away. Any other answer ends the episode with 0.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

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

PAYS, PAYS_NOT, NO_WORD = "It pays.", "It does not pay.", "That is none of the words."


class BanditEnvironment:
    """One pull."""

    def __init__(self, world: BanditWorld) -> None:
        self.world = world
        self._listed: list[str] = []
        self._over = True

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin with the words in a drawn order. Raises ValueError for a seed of another split."""
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        # All words in a drawn order: `sample` leaves the world's own list as it is.
        self._listed = random.Random(seed).sample(self.world.words, len(self.world.words))
        self._over = False
        return Observation(text=f"Words: {', '.join(self._listed)}.")

    def step(self, action: str) -> StepResult:
        """The one choice, which ends the episode. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        self._over = True
        # Blanks are forgiven, letters are not.
        word = action.strip()
        if word not in self.world.words:
            return StepResult(observation=NO_WORD, terminated=True, success=False)
        paid = word == self.world.pays
        said = PAYS if paid else PAYS_NOT
        return StepResult(observation=said, reward=float(paid), terminated=True, success=paid)

    def fingerprint(self) -> str:
        """The words in their order, and whether the episode is over."""
        return state_key(*self._listed, str(self._over))

    def snapshot(self) -> bytes:
        """The state as JSON."""
        return json.dumps({"listed": self._listed, "over": self._over}).encode()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        saved = json.loads(state)
        self._listed, self._over = list(saved["listed"]), saved["over"]

    def close(self) -> None:
        """Nothing is held."""


class SaysTheWord:
    """Knows which word pays."""

    def __init__(self, word: str) -> None:
        self._word = word

    def act(self, env: Environment, observation: Observation) -> str:
        """The word that pays, whatever is shown."""
        return self._word


class BanditWorld:
    """Build it with `build`."""

    name = "text.bandit"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    max_turns = 1
    instructions = "Answer with one of the words, and nothing else."

    def __init__(self, *, words: tuple[str, ...], pays: str) -> None:
        self.words = words
        self.pays = pays

    def tasks(self, split: Split) -> list[Task]:
        """The one task of a split."""
        return [Task(id=f"{split}/bandit", split=split)]

    def make(self) -> BanditEnvironment:
        """A fresh environment."""
        return BanditEnvironment(self)

    def teacher(self, task: Task) -> SaysTheWord:
        """Says the word that pays."""
        return SaysTheWord(self.pays)

    def audit_facts(self, task: Task) -> AuditFacts:
        """One word pays in every episode and all words are listed: a policy that says one word can solve this."""
        told = "the word that pays is the same in every episode, and it is among the words shown"
        return AuditFacts(solved_by=dict.fromkeys(("constant", "echo", "repeat", "loop", "random"), told))

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """One of the words."""
        return draws.choice(self.words)

    def texts(self) -> list[str]:
        """Everything that is said here, each word as it stands in the list and as it is answered."""
        return [self.instructions, PAYS, PAYS_NOT, NO_WORD, f"Words: {', '.join(self.words)}.", *self.words]

    def close(self) -> None:
        """Nothing is held."""


def build(*, words: Sequence[str] = ("apple", "pear", "plum", "fig"), pays: str = "plum") -> BanditWorld:
    """The bandit over `words`, of which `pays` pays.

    Raises:
        ConfigError: fewer than two words, a word twice or with space around it, or `pays` is not among them.
    """
    clean = tuple(words)
    if len(clean) < 2 or len(set(clean)) != len(clean) or any(not word or word != word.strip() for word in clean):
        raise ConfigError(f"text.bandit needs two or more different words without space around them, got {list(clean)}")
    if pays not in clean:
        raise ConfigError(f"text.bandit cannot pay {pays!r}; expected one of {', '.join(clean)}")
    return BanditWorld(words=clean, pays=pays)
