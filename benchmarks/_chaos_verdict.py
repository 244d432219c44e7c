"""What the files of a chaos cell say about it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _chaos_world as chaos
from _chaos_cells import STEPS, Cell

from rollwright.contracts import Trajectory
from rollwright.run_io import read_metrics
from rollwright.store import TrajectoryStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the files of a cell say."""

    cell: Cell
    harmed: int
    faults: int
    ended: str
    then: str
    completed: bool
    silent: bool
    faults_scored: int
    stale: int
    episodes_lost: int
    seconds: float

    def row(self) -> list[object]:
        cell = self.cell
        harm = cell.harm.replace("_", " ") + (" (many)" if cell.many else "")
        counts = [int(self.silent), self.faults_scored, self.stale, self.episodes_lost, round(self.seconds)]
        return [harm, cell.engine, cell.staleness, self.harmed, self.faults, self.ended, self.then, *counts]

    def line(self) -> str:
        return " | ".join(map(str, self.row()))


def verdict(cell: Cell, home: Path) -> Verdict:
    """Read the files of a cell."""
    first, done = read(home / "first.json"), read(home / "done.json")
    harmed, faults = lines(home / chaos.MARKS), lines(home / "run" / "faults.jsonl")
    stored = stored_of(home / "run")
    metrics = read_metrics(home / "run" / "metrics.jsonl") if (home / "run" / "metrics.jsonl").exists() else []
    steps = sum("reward/total_mean" in row for row in metrics)
    stale = [t for t in stored if t.score is not None and t.score.verifier == "staleness"]
    ended, then = first.get("ended", "never began"), done.get("ended", "hung")
    stopped_clearly = ended not in ("completed", "never began")
    quiet = bool(harmed) and not faults and not stopped_clearly
    return Verdict(
        cell=cell,
        harmed=len(harmed),
        faults=len(faults),
        ended=ended.split(":")[0],
        then=then.split(":")[0],
        completed=steps == STEPS,
        silent=quiet or not done or not harmed,
        faults_scored=scored_faults(home, stored, harmed),
        stale=len(stale),
        episodes_lost=len(set(lines(home / "finished.jsonl")) - {t.id for t in stored} - set_aside_in(home / "run")),
        seconds=done.get("seconds", 0.0) + first.get("seconds", 0.0) * (done.get("ended") != ""),
    )


def scored_faults(home: Path, stored: list[Trajectory], harmed: list[Any]) -> int:
    """Episodes that may teach nothing and have a score or were learned from."""
    learned = {name for batch in lines(home / "learned.jsonl") for name in batch}
    groups = {mark["group"] for mark in harmed if "group" in mark}
    wrong = 0
    for trajectory in stored:
        fault = trajectory.stop_reason.is_fault
        judged = trajectory.score is not None and trajectory.score.value is not None
        wrong += fault and (judged or trajectory.id in learned)
        failed = trajectory.id.rsplit("/", 1)[0] in groups and not judged
        wrong += failed and trajectory.id in learned
    return int(wrong)


def stored_of(run: Path) -> list[Trajectory]:
    folder = run / "trajectories"
    if not (folder / "turns").is_dir():
        return []
    return [t for t in TrajectoryStore(folder, mode="read").iter_trajectories() if t.task.split == "train"]


def set_aside_in(run: Path) -> set[str]:
    """Episodes of steps that were played again after a stop: they are kept, away from those that count."""
    folders = (run / "trajectories" / "superseded").glob("*")
    stores = [TrajectoryStore(folder, mode="read") for folder in folders if (folder / "turns").is_dir()]
    return {row["id"] for store in stores for _, row in store.headers()}


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())) if file.exists() else {}


def lines(file: Path) -> list[Any]:
    """The whole lines of a file."""
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found
