"""Learnability: tasks are drawn by p (1 - p), the chance that two episodes of one task turn out differently.

p is (s + 1) / (n + 2) for s successes in the n latest episodes of the task. A group baseline learns nothing from
a group whose members all fared the same, and p (1 - p) is half the chance that two of them do not. A share of the draws
stays uniform, and a share goes to tasks that are mastered, so that forgetting shows.

Sources: arXiv:2408.15099 (learnability as the score of a level); Laplace's rule for p.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rollwright.contracts import Group, Task
from rollwright.curriculum.samplers import checked_tasks, draws_of, outcomes_of

# By Laplace's rule it takes 8 successes without a failure to get here (9 / 10).
# With a `window` below 8 no task is ever mastered.
MASTERED = 0.9


class LearnabilityCurriculum:
    """Draws tasks by how mixed their latest outcomes are.

    Args:
        window: latest episodes of a task that count.
        random_frac: share of uniform draws.
        mastered_frac: share of draws among tasks with p of 0.9 or more; uniform while there is none.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        seed: int,
        window: int = 20,
        random_frac: float = 0.2,
        mastered_frac: float = 0.1,
    ) -> None:
        self.tasks, self.seed, self.window = checked_tasks(tasks), seed, window
        self.random_frac, self.mastered_frac = random_frac, mastered_frac
        self.outcomes: dict[str, deque[float]] = {task.id: deque(maxlen=window) for task in self.tasks}

    def chance(self, task: Task) -> float:
        """p of a task; 1/2 for one that was never played."""
        known = self.outcomes[task.id]
        return (sum(known) + 1) / (len(known) + 2)

    def next(self, step: int, count: int) -> list[Task]:
        """Each draw is one of three kinds: uniform, of the mastered, or by p (1 - p)."""
        rng = draws_of(self.seed, "learnability", step)
        chances = [self.chance(task) for task in self.tasks]
        mastered = [task for task, p in zip(self.tasks, chances, strict=True) if p >= MASTERED]
        # p is never 0 or 1 by Laplace's rule, so no weight is 0 and `choices` always has something to draw.
        weights = [p * (1 - p) for p in chances]
        drawn: list[Task] = []
        for _ in range(count):
            # Without uniform draws a task whose few episodes all failed would never be tried again.
            kind = rng.random()
            if kind < self.random_frac:
                drawn.append(rng.choice(self.tasks))
            elif kind < self.random_frac + self.mastered_frac:
                drawn.append(rng.choice(mastered or self.tasks))  # forgetting shows only where one looks
            else:
                drawn += rng.choices(self.tasks, weights)
        return drawn

    def update(self, groups: Sequence[Group]) -> None:
        """Take in the outcomes; what is older than the window falls out."""
        for group in groups:
            if group.task.id in self.outcomes:
                self.outcomes[group.task.id] += outcomes_of(group)

    def metrics(self) -> dict[str, float]:
        """Mean learnability, and the shares of tasks that are mastered and that were ever played."""
        chances = [self.chance(task) for task in self.tasks]
        return {
            "curriculum/learnability_mean": sum(p * (1 - p) for p in chances) / len(chances),
            "curriculum/mastered_frac": sum(p >= MASTERED for p in chances) / len(chances),
            "curriculum/seen_frac": sum(bool(known) for known in self.outcomes.values()) / len(self.tasks),
        }

    def state_dict(self) -> dict[str, Any]:
        """The latest outcomes of every task that was played."""
        return {"outcomes": {task: list(known) for task, known in self.outcomes.items() if known}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved outcomes; tasks that are new since have none."""
        for task, known in state["outcomes"].items():
            if task in self.outcomes:
                # Where the window became smaller, `maxlen` keeps the newest outcomes.
                self.outcomes[task] = deque(known, maxlen=self.window)
