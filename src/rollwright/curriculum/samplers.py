"""Which task comes next. A curriculum draws tasks, hears what became of them, and can be saved and restored."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rollwright.contracts import ConfigError, Group, Task, distinct
from rollwright.run_io import metric_part


class Curriculum(Protocol):
    """Draws the tasks of a step. Draws depend on the run's seed, the step and what was reported, on nothing else."""

    def next(self, step: int, count: int) -> list[Task]:
        """The tasks of one step, `count` of them, with repeats where it wants some."""

    def update(self, groups: Sequence[Group]) -> None:
        """Hear what became of the groups that were played."""

    def metrics(self) -> dict[str, float]:
        """Numbers for the log, each under `curriculum/`."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON keeps it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; the list of tasks may have changed since."""


class UniformCurriculum:
    """Every task equally often: shuffled passes over the list, so that no task is left out by chance."""

    def __init__(self, tasks: Sequence[Task], *, seed: int) -> None:
        self.tasks = checked_tasks(tasks)
        self.seed = seed

    def next(self, step: int, count: int) -> list[Task]:
        """The next tasks of the shuffled passes."""
        first = step * count
        return [self._at(first + index) for index in range(count)]

    def _at(self, position: int) -> Task:
        # A pass is shuffled by its number alone: a resumed run finds its place without any state.
        epoch, place = divmod(position, len(self.tasks))
        order = list(self.tasks)
        draws_of(self.seed, "uniform", epoch).shuffle(order)
        return order[place]

    def update(self, groups: Sequence[Group]) -> None:
        """Nothing to learn."""

    def metrics(self) -> dict[str, float]:
        """None: there is nothing to tell."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing was saved: the draws are a function of seed and step."""


class BandCurriculum:
    """Prefers tasks that are neither solved nor hopeless: drawn with weight p (1 - p) + `floor`.

    p is a running mean of the task's success (of its return in [0, 1] where it has no verdict). The variance p (1 - p)
    of a Bernoulli reward is what a group baseline has to work with; the floor keeps every task in view.

    Args:
        momentum: weight of the past in the running mean, in [0, 1).
        start: p of a task that was never played; 0.5 makes every task worth a first look.
    """

    def __init__(
        self, tasks: Sequence[Task], *, seed: int, floor: float = 0.04, momentum: float = 0.7, start: float = 0.5
    ) -> None:
        self.tasks = checked_tasks(tasks)
        self.seed, self.floor, self.momentum = seed, floor, momentum
        self.success: dict[str, float] = {task.id: start for task in self.tasks}

    def next(self, step: int, count: int) -> list[Task]:
        """Systematic sampling: a task with weight share w gets between floor(w count) and ceil(w count) places."""
        rng = draws_of(self.seed, "band", step)
        # p (1 - p) is 0.25 at most: with the floor of 0.04 a solved task keeps 0.04 / 0.29 of the highest weight.
        weights = [self.success[t.id] * (1 - self.success[t.id]) + self.floor for t in self.tasks]
        # One draw places an even comb over the line of weights: far less chance than `count` draws of their own.
        spacing = sum(weights) / count
        pointer, passed = rng.random() * spacing, 0.0
        drawn: list[Task] = []
        for task, weight in zip(self.tasks, weights, strict=True):
            passed += weight
            while pointer < passed and len(drawn) < count:
                drawn.append(task)
                pointer += spacing
        drawn += [self.tasks[-1]] * (count - len(drawn))  # rounding at the very end of the line
        # The comb leaves the draws in the order of the list, repeats side by side.
        rng.shuffle(drawn)
        return drawn

    def update(self, groups: Sequence[Group]) -> None:
        """Move the mean of each task towards what its group earned."""
        for group in groups:
            outcomes = outcomes_of(group)
            if outcomes and group.task.id in self.success:
                mean = sum(outcomes) / len(outcomes)
                old = self.success[group.task.id]
                self.success[group.task.id] = self.momentum * old + (1 - self.momentum) * mean

    def metrics(self) -> dict[str, float]:
        """The running mean of every task."""
        return {f"curriculum/{metric_part(task)}_success_frac": p for task, p in self.success.items()}

    def state_dict(self) -> dict[str, Any]:
        """The running means."""
        return {"success": dict(self.success)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved estimates; tasks that are new since keep their start value."""
        self.success |= {task: p for task, p in state["success"].items() if task in self.success}


def outcomes_of(group: Group) -> list[float]:
    """What became of the episodes that count, in [0, 1]: success, or the return where there is no verdict."""
    # Faults and undecided episodes are left out: neither says anything about the task.
    return [_outcome(t.success, t.total_reward) for t in group.trajectories if t.learnable]


def _outcome(success: bool | None, total_reward: float) -> float:
    # A return outside [0, 1] would make p (1 - p) negative.
    return float(success) if success is not None else min(1.0, max(0.0, total_reward))


def checked_tasks(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, each once.

    Raises:
        ConfigError: there are none, or held-out ones among them.
    """
    if not tasks:
        raise ConfigError("the world has no training tasks; check `world.options` (tasks, splits)")
    wrong = [task.id for task in tasks if task.split != "train"]
    if wrong:
        raise ConfigError(f"tasks {wrong[:5]} belong to a held-out split: a curriculum draws training tasks only")
    return tuple(distinct(tasks))


def draws_of(seed: int, *key: int | str) -> random.Random:
    """A generator fixed by the run's seed and a key; Python's own `hash` of strings changes between processes."""
    # A hash of the whole key: neighbouring seeds and steps give unrelated draws.
    digest = hashlib.sha256("/".join(map(str, (seed, *key))).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
