"""Three doors (the toy of Agent-R's card): one is locked, one leads into a dead end, one to the prize."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollwright.contracts import Environment, Execution, Observation, SnapshotKind, Split, StepResult, Task, state_key
from rollwright.generation import Generation
from rollwright.models import ChatCodec, load_policy
from rollwright.rollout import Windowed

WORDS = ("door1", "door2", "door3", "back", "wait")


class DoorsEnvironment:
    """The hall, or the dead end behind door 2, out of which only `back` leads."""

    def __init__(self) -> None:
        self._place, self._used = "hall", 0

    def reset(self, task: Task, seed: int) -> Observation:
        self._place, self._used = "hall", 0
        return Observation(text="hall")

    def step(self, action: str) -> StepResult:
        self._used += 1
        if self._place == "hall" and action == "door3":
            return StepResult(observation="prize", reward=1.0, terminated=True, success=True)
        if self._place == "hall" and action == "door2":
            self._place = "end"
        elif self._place == "end" and action == "back":
            self._place = "hall"
        return StepResult(observation=self._place)

    def fingerprint(self) -> str:
        return state_key(self._place)

    def snapshot(self) -> bytes:
        return json.dumps([self._place, self._used]).encode()

    def restore(self, state: bytes) -> None:
        self._place, self._used = json.loads(state)

    def close(self) -> None:
        """Nothing is held."""


class DoorsWorld:
    """Fifty halls that all look alike."""

    name = "tests.doors"
    instructions = ""
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    max_turns = 6
    no_op = "wait"

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id=f"{split}/{number}", split=split) for number in range(50 if split == "train" else 2)]

    def make(self) -> DoorsEnvironment:
        return DoorsEnvironment()

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        return draws.choice(WORDS)

    def texts(self) -> list[str]:
        return ["hall", "end", "prize", "Did: wait; wait", *WORDS]

    def close(self) -> None:
        """Nothing is held."""


def build(**options: Any) -> DoorsWorld:
    """The world; it has no options."""
    return DoorsWorld()


def chance(policy: Path, word: str, *before: tuple[str, str]) -> float:
    """Probability of a word in the hall, or after these actions and what they showed; exact, nothing is sampled."""
    import torch

    model, tokenizer = load_policy(policy)
    codec = ChatCodec(tokenizer)
    context = Windowed(codec=codec, instructions="", context_length=512, history=1)()
    context.observe(Observation(text="hall"))
    for said, shown in before:
        ids = tuple(codec.encode_action(said))
        context.act(Generation(token_ids=ids, logprobs=(0.0,) * len(ids), finish_reason="stop", spans=()))
        context.observe(Observation(text=shown))
    prompt, ids = context.prompt_ids(3), tuple(codec.encode_action(word))
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return float(torch.log_softmax(logits, -1)[range(len(ids)), list(ids)].sum().exp())


def chance_to_leave(policy: Path) -> float:
    """Probability that the dead end is left at once, or after one turn of thinking again."""
    entered, waited = ("door2", "end"), ("wait", "end")
    return chance(policy, "back", entered) + chance(policy, "wait", entered) * chance(policy, "back", entered, waited)
