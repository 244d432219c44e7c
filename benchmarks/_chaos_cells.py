"""The cells of `chaos.py`: how one is played, and what is noted meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _chaos_world as chaos
from _chaos_hands import SharedServer, hands

from rollwright.contracts import Trajectory
from rollwright.recipes import grpo
from rollwright.rollout import faults as rollout_faults

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
STEPS = 5
ENV_CALL_S, STAGE_S = 1.5, 10.0
CELL_S = 300.0
"""Far beyond every deadline a cell's run has: what is still alive then waits for nothing that would ever end it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run. `many` harms every try of an episode alike, so that retries do not help."""

    harm: str
    engine: str
    staleness: int
    share: float = 0.3
    many: bool = False

    @property
    def name(self) -> str:
        return f"{self.engine}_{self.staleness}_{self.harm}{'_many' if self.many else ''}"


def play_cells(cells: list[Cell], starts: dict[str, Path], folder: Path) -> None:
    """Play each cell to its `done.json`. Behind a server all of them use the one that is started here."""
    watch_learning()
    shared = SharedServer(starts["maze"]) if cells[0].engine == "server" else None
    for cell in cells:
        home = folder / cell.name
        home.mkdir(parents=True, exist_ok=True)
        os.environ["CHAOS_HOME"] = str(home)
        words = settings(cell, starts, home)
        if shared:
            shared.lend(starts["miniwob" if cell.harm == "browser_kill" else "maze"])
        began, first = time.monotonic(), home / "first.json"
        if not first.exists():
            note(first, "killed by its deadline", 0.0)  # stands if the process is ended in the middle
            chaos.HARM.set(cell.harm, cell.share, home)
            note(first, attempt(cell, words, home), time.monotonic() - began)
        chaos.HARM.set("none", 0.0, home)
        ended = json.loads(first.read_text())["ended"]
        again = "" if ended == "completed" else attempt(None, words, home)
        note(home / "done.json", again, time.monotonic() - began)


def note(file: Path, ended: str, seconds: float) -> None:
    file.write_text(json.dumps({"ended": ended, "seconds": seconds}), encoding="utf-8")


def attempt(cell: Cell | None, words: list[str], home: Path) -> str:
    """Run the recipe; says how it ended."""
    with contextlib.ExitStack() as stack:
        if cell is not None:
            stack.enter_context(hands(cell.harm, home, served=cell.engine == "server"))
        try:
            grpo.main(words)
        except BaseException as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
    return "completed"


def settings(cell: Cell, starts: dict[str, Path], home: Path) -> list[str]:
    """The command line of a cell."""
    browser = cell.harm == "browser_kill"
    words = [
        str(RECIPES / ("web/miniwob_grpo.yaml" if browser else "text/maze_grpo.yaml")),
        f"model.path={starts['miniwob' if browser else 'maze']}",
        f"run.folder={home / 'run'}",
        f"run.steps={STEPS}",
        "run.checkpoint_every=2",
        f"run.sync_s={STAGE_S}",
        f"run.score_s={STAGE_S}",
        f"run.checkpoint_s={2 * STAGE_S}",
        "run.transcripts_every=0",
        f"engine={'vllm_server' if cell.engine == 'server' else 'transformers'}",
        "engine.dtype=float32",
        f"engine.max_context={1024 if browser else 512}",
        "learner.precision=float32",
        "learner.learning_rate=1e-3",
        "rollout.groups_per_step=3",
        "rollout.group_size=4",
        "rollout.parallel_episodes=12",
        f"rollout.max_staleness={cell.staleness}",
        f"rollout.env_call_s={15 if browser else ENV_CALL_S}",
        "rollout.engine_call_s=60",
        f"rollout.retries={0 if cell.many else 1}",
        f"rollout.refills={0 if cell.many else 1}",
        f"rollout.max_fault_frac={0.6 if cell.many else 0.5}",
        "evaluation.seeds_per_task=1",
        "algorithm.min_groups=1",
    ]
    if browser:
        return [*words, "world.options.tasks=[click-test-2, click-button]", "world.options.max_turns=3"]
    maze = ["world.name=_chaos_world:build", "reward.name=_chaos_world:build_reward"]
    return [*words, *maze, "rollout.max_turns=6", "evaluation.max_turns=3"]


# What was learned from, and what was finished: written down from outside


def watch_learning() -> None:
    """Note the episodes that are learned from, and those that were played to their end."""
    flatten, finished = grpo.flatten, rollout_faults.FaultLog.finished

    def flat(groups: Any, **options: Any) -> Any:
        batch = flatten(groups, **options)
        _append("learned.jsonl", [t.id for t in batch.trajectories])
        return batch

    def over(log: Any, trajectory: Trajectory) -> None:
        if not trajectory.stop_reason.is_fault and trajectory.task.split == "train":
            _append("finished.jsonl", trajectory.id)
        finished(log, trajectory)

    grpo.flatten = flat
    rollout_faults.FaultLog.finished = over  # type: ignore[method-assign]


_writing = threading.Lock()


def _append(name: str, value: Any) -> None:
    with _writing, (Path(os.environ["CHAOS_HOME"]) / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
