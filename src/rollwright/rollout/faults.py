"""Faults are data: each is written down at once, counted, and never becomes a score."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from rollwright.errors import FaultBudgetExceeded
from rollwright.types import StopReason, Trajectory


class FaultLog:
    """Appends one line per fault to `faults.jsonl` and keeps the counts against the fault budget.

    Args:
        path: the file, or None to count only.
        max_frac: the largest share of episodes that may fault for good, in [0, 1].
        grace: no verdict before that many episodes: one bad start of three is not a trend.
    """

    def __init__(self, path: Path | None, *, max_frac: float = 0.2, grace: int = 20) -> None:
        self.path = path
        self.max_frac = max_frac
        self.grace = grace
        self.episodes = 0
        self.lost = 0
        self.counts: Counter[tuple[str, str]] = Counter()

    def record(self, trajectory: Trajectory, *, attempt: int) -> None:
        """Write down one faulted attempt at an episode, whether it will be retried or not."""
        self.counts[(trajectory.stop_reason.value, trajectory.task.id)] += 1
        if self.path is None:
            return
        line = {
            "time": time.time(),
            "episode": trajectory.id,
            "task": trajectory.task.id,
            "seed": trajectory.seed,
            "stop_reason": trajectory.stop_reason.value,
            "attempt": attempt,
            "turns": len(trajectory.turns),
            "fault": trajectory.fault,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def finished(self, trajectory: Trajectory) -> None:
        """Count one episode that will not be retried.

        Raises:
            FaultBudgetExceeded: more than `max_frac` of the episodes ended in faults.
        """
        self.episodes += 1
        self.lost += trajectory.stop_reason.is_fault
        if self.episodes >= self.grace and self.lost > self.max_frac * self.episodes:
            raise FaultBudgetExceeded(
                f"{self.lost} of {self.episodes} episodes ended in faults, more than the allowed share "
                f"{self.max_frac:g} (rollout.max_fault_frac).\n{self.table()}\n"
                + (f"Each is described in {self.path}." if self.path else "")
            )

    def table(self) -> str:
        """The counts as text: stop reason, task, number of faulted attempts."""
        rows = [f"  {count:5d}  {reason:13s} {task}" for (reason, task), count in self.counts.most_common(20)]
        return "\n".join(["  count  stop reason   task", *rows])


def fault_frac(trajectories: list[Trajectory]) -> float:
    """Share of trajectories that ended in a fault, in [0, 1]; 0 of none."""
    faults = sum(t.stop_reason in (StopReason.ENV_ERROR, StopReason.ENGINE_ERROR) for t in trajectories)
    return faults / len(trajectories) if trajectories else 0.0
