"""A small text world with a correct verifier, and the same world with one fault each: the audit must find every one.

The faults are those of the bug reports that the audit was written from; each class says which one it plants.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from rollwright.contracts import (
    AuditFacts,
    Environment,
    EnvironmentFault,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    state_key,
)

PER_TEMPLATE = 10
TEMPLATES = ("sum", "reverse", "twofold")
STOP, LOOK = "done", "look"


class Sheet:
    """One question; an answer in at most four actions. A twofold question wants two answers, the first pays 0.1."""

    def __init__(self, world: SheetWorld) -> None:
        self.world = world
        self.broken = False

    def reset(self, task: Task, seed: int) -> Observation:
        self.task, self.seed, self.turn, self.over, self.given = task, seed, 0, False, 0
        self.paid, self.broken = 0.0, False
        return Observation(text=self.question(), goal="Answer the question.")

    def question(self) -> str:
        return self.world.question(self.task, self.seed)

    def answers(self) -> tuple[str, ...]:
        return self.world.answers(self.task, self.seed)

    def step(self, action: str) -> StepResult:
        if self.over:
            raise RuntimeError("the episode is over; call `reset`")
        self.turn += 1
        try:
            result = self.judge(action)
        except ZeroDivisionError as error:
            result = self.on_trouble(error)
        if not result.terminated and self.turn >= self.world.max_turns:
            result = self.at_limit(result)
        self.over = result.terminated or result.truncated
        self.paid += sum(result.rewards.values())
        return result

    def judge(self, action: str) -> StepResult:
        if self.broken:
            raise ZeroDivisionError("the verifier broke")
        if action.strip() == STOP:
            return StepResult(observation="You stop.", reward=self.step_pay(), terminated=True, success=self.at_stop())
        if action.strip() == LOOK:
            return StepResult(observation=self.question(), reward=self.step_pay())
        if not self.right(action):
            return StepResult(observation="No.", reward=self.step_pay())
        self.given += 1
        if self.given < len(self.answers()):
            return StepResult(observation="Now twice as much.", reward=0.1 + self.step_pay())
        return StepResult(observation="Right.", reward=1.0 - self.paid, terminated=True, success=True)

    def right(self, action: str) -> bool:
        return " ".join(action.lower().split()) == self.answers()[self.given]

    def step_pay(self) -> float:
        return 0.0

    def at_stop(self) -> bool:
        return False

    def at_limit(self, result: StepResult) -> StepResult:
        return StepResult(observation=result.observation, reward=result.reward, truncated=True, success=False)

    def on_trouble(self, error: Exception) -> StepResult:
        raise EnvironmentFault("the verifier broke") from error

    def fingerprint(self) -> str:
        return state_key(self.task.id, str(self.seed), str(self.turn), str(self.given), str(self.over))

    def close(self) -> None:
        pass


class Knows:
    """Gives the answers in turn."""

    def act(self, env: Any, observation: Observation) -> str:
        return str(env.answers()[env.given])


class SheetWorld:
    """Three templates, ten tasks of each in each split."""

    name = "sheet"
    instructions = "Answer with the answer alone. `look` shows the question again, `done` gives up."
    execution: Execution = "inline"
    snapshots: SnapshotKind = "none"
    max_turns = 4
    version = "1"
    environment: type[Sheet] = Sheet

    def tasks(self, split: Split) -> list[Task]:
        first = {"train": 0, "validation": 1, "test": 2}[split] * PER_TEMPLATE
        return [self.task(split, kind, number) for kind in TEMPLATES for number in range(first, first + PER_TEMPLATE)]

    def task(self, split: Split, kind: str, number: int) -> Task:
        return Task(id=f"{split}/{kind}/{number}", split=split, params={"kind": kind, "number": number})

    def make(self) -> Sheet:
        return self.environment(self)

    def question(self, task: Task, seed: int) -> str:
        a, b = self._numbers(task)
        word = self._word(task)
        asked = {
            "sum": f"What is {a} + {b}?",
            "reverse": f"What is {word} backwards?",
            "twofold": f"What is {a} - {b}?",
        }
        return asked[task.params["kind"]]

    def answers(self, task: Task, seed: int) -> tuple[str, ...]:
        a, b = self._numbers(task)
        told = {"sum": (str(a + b),), "reverse": (self._word(task)[::-1],), "twofold": (str(a - b), str(2 * (a - b)))}
        return told[task.params["kind"]]

    def teacher(self, task: Task) -> Any:
        return Knows()

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        return draws.choice([LOOK, str(draws.randint(0, 9999)), "".join(draws.sample("abcdefgh", 6))])

    def audit_facts(self, task: Task) -> AuditFacts:
        return AuditFacts(stop_action=STOP, template=task.params["kind"])

    def reworded(self, task: Task, actions: Sequence[str]) -> list[list[str]]:
        spaced = [f"  {action.upper()} \n" for action in actions]
        return [spaced, [LOOK, *actions]]

    def break_next(self, env: Any) -> None:
        env.broken = True

    def close(self) -> None:
        pass

    def _numbers(self, task: Task) -> tuple[int, int]:
        return _numbers(task.params["kind"], task.params["number"])

    def _word(self, task: Task) -> str:
        return _word(task.params["number"])


@cache
def _numbers(kind: str, number: int) -> tuple[int, int]:
    draws = random.Random(f"{kind}/{number}")
    return draws.randint(3000, 4000), draws.randint(100, 999)


@cache
def _word(number: int) -> str:
    return "".join(random.Random(f"word/{number}").sample("bcdfghklmnprst", 7))


def world_with(environment: type[Sheet]) -> type[SheetWorld]:
    """The base world with another environment."""
    return type(f"{environment.__name__}World", (SheetWorld,), {"environment": environment})


class EmptyIsRight(Sheet):
    """1: the empty answer is accepted."""

    def right(self, action: str) -> bool:
        return not action or super().right(action)


class LimitIsSuccess(Sheet):
    """2: the step limit counts as success."""

    def at_limit(self, result: StepResult) -> StepResult:
        return StepResult(observation=result.observation, reward=1.0, truncated=True, success=True)


class PartIsSuccess(Sheet):
    """3: any reward becomes success."""

    def at_stop(self) -> bool:
        return self.paid > 0


class MostlyYes(SheetWorld):
    """4: 70 % of the answers are "yes"."""

    def answers(self, task: Task, seed: int) -> tuple[str, ...]:
        return ("yes",) if task.params["number"] % 10 < 7 else super().answers(task, seed)


class Substring(Sheet):
    """5: the answer counts wherever it stands in the action."""

    def right(self, action: str) -> bool:
        return self.answers()[self.given] in action.lower()


class AnswerShown(Sheet):
    """6: the answer stands in the first observation."""

    def question(self) -> str:
        return f"{super().question()} (key: {self.answers()[-1]})"

    def answers(self) -> tuple[str, ...]:
        return super().answers()[:1]


class ObeysItsInput(Sheet):
    """7: the judge does what the answer tells it."""

    def right(self, action: str) -> bool:
        return "verdict: yes" in action.lower() or super().right(action)


class ParsesTheScore(Sheet):
    """8: the score is read from the action's text."""

    def right(self, action: str) -> bool:
        return re.search(r"reward\W+1", action) is not None or super().right(action)


class SomeImpossible(Sheet):
    """9: 5 % of the tasks accept nothing."""

    def right(self, action: str) -> bool:
        return self.task.params["number"] % 20 != 3 and super().right(action)


class ExactSpacing(Sheet):
    """10: spaces and capitals matter."""

    def right(self, action: str) -> bool:
        return action == self.answers()[self.given]


class FlagSurvives(Sheet):
    """11: the solved flag survives a reset."""

    solved = False

    def right(self, action: str) -> bool:
        self.solved = self.solved or super().right(action)
        return self.solved


class CountsResets(Sheet):
    """12: the question depends on the number of resets."""

    resets = 0

    def reset(self, task: Task, seed: int) -> Observation:
        self.resets += 1
        super().reset(task, seed)
        return Observation(text=self.question() + " " * (self.resets // 4), goal="Answer the question.")


class AnswersStay(Sheet):
    """13: the answers of an evaluation stay loaded and are accepted in training too."""

    def right(self, action: str) -> bool:
        loaded = self.world.__dict__.setdefault("loaded", set())
        if self.task.split == "test":
            loaded.update(self.answers())
        return action in loaded or super().right(action)


class DrawsItsOwn(Sheet):
    """14: the verifier draws random numbers of its own."""

    draws = random.Random(0)

    def right(self, action: str) -> bool:
        return self.draws.random() > 0.1 and super().right(action)


class PaysEachAction(Sheet):
    """15: every valid action pays 0.01."""

    def step_pay(self) -> float:
        return 0.01


class ScoresItsFaults(Sheet):
    """16: an exception of the verifier is scored 0."""

    def on_trouble(self, error: Exception) -> StepResult:
        return StepResult(observation="No.", terminated=True, success=False)


class HeldOutTaskInTrain(SheetWorld):
    """17: one test task is also a training task."""

    def tasks(self, split: Split) -> list[Task]:
        shared = [self.task("train", "sum", 2 * PER_TEMPLATE)] if split == "train" else []
        return [*super().tasks(split), *shared]


class SameTasks(SheetWorld):
    """17 again: all splits hold the same tasks."""

    def tasks(self, split: Split) -> list[Task]:
        return [self.task(split, kind, number) for kind in TEMPLATES for number in range(PER_TEMPLATE)]


class CostsEachAction(Sheet):
    """18: every action costs 0.1, and failing costs nothing."""

    def step_pay(self) -> float:
        return -0.1


class OtherWording(SheetWorld):
    """19: a rule is worded differently under the same version."""

    def question(self, task: Task, seed: int) -> str:
        return super().question(task, seed).replace("What is", "How much is")


class Untaught(SheetWorld):
    """No fault: nobody knows a solution, so that nothing can be said."""

    def teacher(self, task: Task) -> Any:
        return None
