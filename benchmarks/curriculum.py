"""A student at the edge of what it can do: how much of a square it masters under ALP-GMM, at random, at its frontier.

    python benchmarks/curriculum.py --radii 0 0.1 0.3 --json

Tasks are points of [0, 1]^2. The student succeeds where a task lies within its radius of the corner (0, 0), and its
radius grows by 0.001 with every task up to 0.1 outside of it: what is too easy or too hard teaches nothing. Each
teacher chooses 5,000 tasks; "frontier" always knows where the student stands. The same ten seeds for all; ratios are
of means, with stratified bootstrap intervals of each. `--widths` repeats ALP-GMM with other `curriculum.min_width`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from _common import command, machine, publish, table

from rollwright.contracts import Task
from rollwright.curriculum import AlpGmmCurriculum, Progress
from rollwright.maths.statistics import mean_score, stratified_bootstrap

Array = np.ndarray[Any, Any]
REACH, GROWTH = 0.1, 0.001


class Square:
    """The task space of the student; a teacher here reports points, no tasks."""

    dimensions = 2

    def task_at(self, point: Array) -> Task:
        return Task(id=f"{point[0]:.6f},{point[1]:.6f}", split="train")

    def point_of(self, task: Task) -> Array:
        return np.array([float(part) for part in task.id.split(",")])


class Student:
    def __init__(self, radius: float) -> None:
        self.radius = radius

    def attempt(self, point: Array) -> bool:
        distance = float(np.hypot(*point))
        succeeded = distance <= self.radius
        if self.radius < distance <= self.radius + REACH:
            self.radius += GROWTH
        return succeeded

    def mastered(self) -> float:
        """Share of the square within the radius, by a grid of 500 x 500 points."""
        middle = (np.arange(500) + 0.5) / 500
        return float((np.hypot(*np.meshgrid(middle, middle)) <= self.radius).mean())


def taught(radius: float, tasks: int, seed: int, **settings: Any) -> float:
    """By ALP-GMM."""
    student, draws = Student(radius), np.random.default_rng(seed)
    teacher = AlpGmmCurriculum(Square(), seed=seed, **settings)
    for _ in range(tasks):
        point = teacher.draw(draws)
        teacher.report(point, float(student.attempt(point)))
    return student.mastered()


def at_random(radius: float, tasks: int, seed: int) -> float:
    student, draws = Student(radius), np.random.default_rng(seed)
    for point in draws.random((tasks, 2)):
        student.attempt(point)
    return student.mastered()


def at_the_frontier(radius: float, tasks: int, seed: int) -> float:
    """The most that any teacher could reach: each task in the middle of what teaches."""
    student = Student(radius)
    for _ in range(tasks):
        along = min((student.radius + REACH / 2) / np.sqrt(2), 1.0)
        student.attempt(np.array([along, along]))
    return student.mastered()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--radii", type=float, nargs="+", default=[0.0, 0.1, 0.3], help="what is mastered at first")
    parser.add_argument("--tasks", type=int, default=5000, help="tasks that a teacher chooses")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--widths", type=float, nargs="*", default=[], help="further values of curriculum.min_width")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end")
    arguments = parser.parse_args()
    teachers: dict[str, Callable[..., float]] = {"random": at_random}
    settings: dict[str, dict[str, Any]] = {"random": {}}
    for progress in get_args(Progress):
        settings[f"alp_gmm, {progress}"] = {"progress": progress}
    for width in arguments.widths:
        settings[f"alp_gmm, absolute, min_width {width:g}"] = {"min_width": width}
    settings["frontier"] = {}
    teachers |= dict.fromkeys(settings, taught) | {"random": at_random, "frontier": at_the_frontier}
    rows, summary = [], {}
    for radius in arguments.radii:
        random = 0.0
        for name, chosen in settings.items():
            areas = [teachers[name](radius, arguments.tasks, seed, **chosen) for seed in range(arguments.seeds)]
            found = stratified_bootstrap(np.array(areas)[:, None], mean_score, generator=np.random.default_rng(0))
            random = found.point if name == "random" else random
            ratio = found.point / random if random else float("inf")
            rows.append([f"{radius:g}", name, f"{found.point:.4f} [{found.low:.4f}, {found.high:.4f}]", f"{ratio:.2f}"])
            summary[f"{name} from {radius:g}"] = round(ratio, 3)
            print(*rows[-1], flush=True)
    header = ["radius at first", "teacher", f"mastered after {arguments.tasks} tasks, mean, 95%", "times random"]
    text = f"# A student with a frontier\n\n`{command()}`\n\n{machine('numpy')}\n\n{table(header, rows)}\n"
    publish("curriculum", text, {"times_random": summary}, as_json=arguments.json)


if __name__ == "__main__":
    main()
