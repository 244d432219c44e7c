"""Faults are data: each is written down at once, counted, and never becomes a score."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from rollwright.contracts import (
    FaultBudgetExceeded,
    FaultKind,
    Group,
    Reward,
    RewardFault,
    Score,
    StopReason,
    Trajectory,
    fault_kind,
    name_of,
    score_group,
)
from rollwright.generation import ReportingEngine
from rollwright.run_io import append_line

KIND_OF_STOP: dict[StopReason, FaultKind] = {
    StopReason.ENV_ERROR: "environment",
    StopReason.ENGINE_ERROR: "engine",
    StopReason.ABORTED: "ours",
}


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
        reason = trajectory.stop_reason
        self._write(
            kind=KIND_OF_STOP.get(reason, "ours"),
            subject=trajectory.task.id,
            episode=trajectory.id,
            task=trajectory.task.id,
            seed=trajectory.seed,
            stop_reason=reason.value,
            attempt=attempt,
            turns=len(trajectory.turns),
            fault=trajectory.fault,
        )

    def note(self, error: Exception, *, subject: str, **details: str | int) -> None:
        """Write down a fault that is no episode's end: of a reward, of a stage, of a replay.

        Args:
            subject: what it befell (a task, a stage, the server), for the tables of counts.
        """
        self._write(kind=fault_kind(error), subject=subject, **details, fault=f"{type(error).__name__}: {error}")

    def watch(self, engine: object) -> None:
        """Also write down what the engine loses and replaces by itself: a server that died while nobody asked it."""
        if isinstance(engine, ReportingEngine):
            # The engine calls this on a thread of its own.
            engine.report = partial(self.note, subject="server")

    def _write(self, *, kind: FaultKind, subject: str, **line: str | int) -> None:
        # Every fault counts for the table, retried ones too; the budget counts episodes that are `lost` for good.
        self.counts[(kind, subject)] += 1
        if self.path is not None:
            append_line(self.path, {"time": time.time(), "kind": kind, "subject": subject, **line})

    def state_dict(self) -> dict[str, int]:
        """What the budget has counted so far; the lines themselves are on disk."""
        return {"episodes": self.episodes, "lost": self.lost}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Count on from `state_dict()`."""
        self.episodes, self.lost = int(state["episodes"]), int(state["lost"])

    def finished(self, trajectory: Trajectory) -> None:
        """Count one episode that will not be retried.

        Raises:
            FaultBudgetExceeded: more than `max_frac` of the episodes ended in faults.
        """
        self.episodes += 1
        self.lose(int(trajectory.stop_reason.is_fault))

    def lose(self, count: int) -> None:
        """Count episodes that nothing can be learned from after all.

        Raises:
            FaultBudgetExceeded: as `finished`.
        """
        self.lost += count
        # `lose` adds no episodes: those that a reward left unscored were counted when they were played.
        if self.episodes >= self.grace and self.lost > self.max_frac * self.episodes:
            raise FaultBudgetExceeded(
                f"{self.lost} of {self.episodes} episodes ended in faults, more than the allowed share "
                f"{self.max_frac:g} (rollout.max_fault_frac).\n{self.table()}\n"
                + (f"Each is described in {self.path}." if self.path else "")
            )

    def table(self) -> str:
        """The counts as text: kind of fault, task, number of faulted attempts."""
        rows = [f"  {count:5d}  {kind:13s} {subject}" for (kind, subject), count in self.counts.most_common(20)]
        return "\n".join(["  count  kind          task", *rows])


def score_or_note(group: Group, reward: Reward, faults: FaultLog) -> Group:
    """The group scored; where the reward failed, the group unscored, for good: a failure is never a score of 0.

    Its trajectories carry a verdict of "cannot tell", so nobody learns from them, from the environment's own rewards
    either. The fault is written down and counts against the budget.

    Raises:
        FaultBudgetExceeded: too many episodes were lost.
    """
    try:
        return score_group(group, reward)
    except RewardFault as error:
        message = f"no score: {error}"
        # Faulted members were counted as lost before: the budget must not count them twice.
        judged = [t for t in group.trajectories if t.learnable]
        faults.note(error, subject=group.task.id, group=group.id, episodes=len(judged))
        faults.lose(len(judged))
        undecided = Score(value=None, verifier=name_of(reward), message=message)
        return group.with_trajectories([replace(t, score=undecided) if t.learnable else t for t in group.trajectories])


def fault_frac(trajectories: list[Trajectory]) -> float:
    """Share of trajectories that ended in a fault, in [0, 1]; 0 of none."""
    faults = sum(t.stop_reason in (StopReason.ENV_ERROR, StopReason.ENGINE_ERROR) for t in trajectories)
    return faults / len(trajectories) if trajectories else 0.0
