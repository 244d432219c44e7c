"""Tasks as points of the unit cube: by the numbers a world declares, or by their place in the list of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import ConfigError, Parametrised, Task
from rollwright.curriculum.samplers import checked_tasks

Array = NDArray[Any]


class TaskSpace(Protocol):
    """Where tasks lie; `dimensions` numbers each, all in [0, 1] so that distances along them compare."""

    dimensions: int

    def task_at(self, point: Array) -> Task:
        """The task at a point [dimensions]."""

    def point_of(self, task: Task) -> Array | None:
        """[dimensions]; None for a task from elsewhere."""
        ...


class ListSpace:
    """The tasks in their own order on one line: neighbours are taken for alike, as where a world lists easy ones first.

    Raises:
        ConfigError: there are no tasks, or held-out ones among them.
    """

    dimensions = 1

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = checked_tasks(tasks)
        self._places = {task.id: place for place, task in enumerate(self.tasks)}

    def task_at(self, point: Array) -> Task:
        """The task whose stretch of the line the point lies on."""
        # The point 1.0 itself belongs to the last task.
        return self.tasks[min(int(point[0] * len(self.tasks)), len(self.tasks) - 1)]

    def point_of(self, task: Task) -> Array | None:
        """The middle of the task's stretch; None for a task that is not listed."""
        place = self._places.get(task.id)
        # The middle, so that `task_at` of this point gives the same task whatever the rounding.
        return None if place is None else np.array([(place + 0.5) / len(self.tasks)])


class BoxSpace:
    """The box of task parameters that a world declares (`rollwright.contracts.environment.Parametrised`).

    Raises:
        ConfigError: a side of the box has no length.
    """

    def __init__(self, world: Parametrised) -> None:
        self.world = world
        box = world.parameter_box()
        # The order of the box is the order of the axes. Saved points have no names and rely on it.
        self.names = list(box)
        self.low = np.array([low for low, _ in box.values()], np.float64)
        self.sides = np.array([high - low for low, high in box.values()], np.float64)
        self.dimensions = len(self.names)
        if not self.names or not (self.sides > 0).all():
            raise ConfigError(f"a box of task parameters needs low < high on each side, got {dict(box)}")

    def task_at(self, point: Array) -> Task:
        """Raises ConfigError where the world makes a held-out task."""
        values = self.low + point * self.sides
        task = self.world.task_at(dict(zip(self.names, values.tolist(), strict=True)))
        return checked_tasks([task])[0]

    def point_of(self, task: Task) -> Array | None:
        """Where the parameters of a task lie; None where it lacks one."""
        if any(name not in task.params for name in self.names):
            return None
        values = np.array([float(task.params[name]) for name in self.names])
        # A task's parameters may lie outside the box that its world declares.
        point: Array = np.clip((values - self.low) / self.sides, 0.0, 1.0)
        return point


def space_of(tasks: Sequence[Task], world: object) -> TaskSpace:
    """The box of parameters where the world declares one with any side, else the list of tasks."""
    if isinstance(world, Parametrised) and world.parameter_box():
        return BoxSpace(world)
    return ListSpace(tasks)
