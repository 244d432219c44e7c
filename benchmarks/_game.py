"""A game of fixed length for both sides of `grpo_step.py`: rules of a chosen length, short answers, a dense reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rollwright.contracts import Execution, SnapshotKind, Split, StepResult, Task, state_key

NAMES = (
    "north", "south", "east", "west", "up", "down", "left", "right", "open", "close", "take",
    "give", "read", "write", "push", "pull", "turn", "lift", "drop", "wait",
)  # fmt: skip


def rules(words: int) -> str:
    """The system prompt: that many words, each with a number of its own."""
    return " ".join(f"{NAMES[index % len(NAMES)]} {index % 10}" for index in range(words // 2)) + "."


def goal(seed: int) -> str:
    """What the members of a group are asked."""
    return " ".join(["Reach", *(str((seed // 7**place) % 10) for place in range(10)), "now."])


def answer(turn: int, text: str) -> str:
    """What the environment says to an action."""
    digits = sum(character.isdecimal() for character in text)
    return f"Turn {turn}. You said {digits % 10} digits. Go {NAMES[digits % len(NAMES)]} and say more digits."


def pay(text: str) -> float:
    """The share of digits in an action: a random policy earns something, and not always the same."""
    return sum(character.isdecimal() for character in text) / max(1, len(text))


def texts(prompt_words: int, turns: int) -> list[str]:
    """The game's whole language, for a tokenizer with a token per word."""
    said = [answer(turn, "1" * digits) for turn in range(turns + 1) for digits in range(len(NAMES))]
    return [rules(prompt_words), *(goal(seed) for seed in range(50)), *said, *map(str, range(10))]


@dataclass
class GameEnvironment:
    """One episode: `turns` answers, whatever is said."""

    turns: int
    turn: int = 0

    def reset(self, task: Task, seed: int) -> str:
        self.turn = 0
        return goal(seed)

    def step(self, action: str) -> StepResult:
        self.turn += 1
        over = self.turn >= self.turns
        return StepResult(observation=answer(self.turn, action), reward=pay(action), terminated=over, success=over)

    def fingerprint(self) -> str:
        return state_key(str(self.turn))

    def close(self) -> None:
        """Nothing is held."""


class GameWorld:
    """Ours."""

    name = "game"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "none"

    def __init__(self, prompt_words: int, turns: int) -> None:
        self.instructions, self.max_turns = rules(prompt_words), turns

    def tasks(self, split: Split) -> list[Task]:
        return [Task(id=f"{split}/game", split=split)]

    def make(self) -> GameEnvironment:
        return GameEnvironment(self.max_turns)

    def close(self) -> None:
        """Nothing is held."""


def build(*, prompt_words: int, turns: int) -> GameWorld:
    return GameWorld(prompt_words, turns)


class GameTool:
    """TRL's: `reset` gives the goal, the one tool takes an action."""

    def reset(self, seed: int, **row: object) -> str:
        self.turn, self.total = 0, 0.0
        return goal(seed)

    def act(self, text: str) -> str:
        """
        Act.

        Args:
            text: The action.

        Returns:
            What the environment answers.
        """
        self.turn += 1
        self.total += pay(text)
        return answer(self.turn, text)


def tool_rewards(completions: list[Any], environments: list[GameTool], **columns: object) -> list[float]:
    """The returns. The last action has no tool call of its own in TRL's loop: it is played here."""
    for completion, environment in zip(completions, environments, strict=True):
        environment.act(completion[-1]["content"])
    return [environment.total for environment in environments]
