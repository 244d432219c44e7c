"""What goes wrong in `chaos.py`: a maze whose episodes break in chosen ways, a reward that fails, and hands that break
processes, engines and disks from outside. `HARM` says what is done now; `none` does nothing."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rollwright.contracts import Environment, EnvReward, Execution, Group, Score, SnapshotKind, Split, StepResult, Task
from rollwright.envs.text import maze

NORMAL_STEP_S = 0.02
MARKS = "injected.jsonl"


class Harm:
    """One kind of harm, how often it strikes, and where it says so. One per process."""

    def __init__(self) -> None:
        self.kind, self.share, self.folder = "none", 0.0, Path()
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def set(self, kind: str, share: float, folder: Path) -> None:
        self.kind, self.share, self.folder = kind, share, folder
        self._counts.clear()

    def strikes(self, key: str) -> bool:
        """A draw fixed by the key and how often it was asked: a retry may be spared."""
        with self._lock:
            count = self._counts[key] = self._counts.get(key, -1) + 1
        return random.Random(f"{self.kind}/{key}/{count}").random() < self.share

    def mark(self, **what: object) -> None:
        """Written before the harm is done, so that nothing can go unseen."""
        line = json.dumps({"kind": self.kind, **what}) + "\n"
        with self._lock, (self.folder / MARKS).open("a", encoding="utf-8") as file:
            file.write(line)


HARM = Harm()
ENVIRONMENT_KINDS = ("crash", "hang", "slow", "garbage", "out_of_memory")


class ChaosMaze(maze.MazeEnvironment):
    """A walk in which the second step may break."""

    _doomed = False

    def reset(self, task: Task, seed: int) -> Any:
        self._doomed = HARM.kind in ENVIRONMENT_KINDS and HARM.strikes(f"{task.id}/{seed}")
        self._where = {"task": task.id, "seed": seed}
        return super().reset(task, seed)

    def step(self, action: str) -> StepResult:
        time.sleep(NORMAL_STEP_S)
        if self._doomed and self.moves_used >= 1:
            HARM.mark(**self._where)
            return self._break()
        return super().step(action)

    def _break(self) -> StepResult:
        match HARM.kind:
            case "crash":
                raise RuntimeError("the process of the environment is gone")
            case "hang":
                threading.Event().wait()
            case "slow":
                time.sleep(99 * NORMAL_STEP_S)
            case "out_of_memory":
                bytearray(1 << 60)
            case "garbage":
                odd: list[Any] = [None, b"\xff\xfe", StepResult(observation="on", reward=float("nan")), ("on", 1.0)]
                return random.Random(self.seed).choice(odd)  # type: ignore[no-any-return]
        return super().step("no move")


class ChaosWorld:
    """The small maze, in threads: what hangs there can be left behind."""

    name = "chaos.maze"
    execution: Execution = "thread"
    snapshots: SnapshotKind = "exact"

    def __init__(self, wording: maze.Wording) -> None:
        self.maze = maze.build(maze="umaze", wording=wording)
        self.instructions, self.max_turns = self.maze.instructions, self.maze.max_turns

    def tasks(self, split: Split) -> list[Task]:
        return self.maze.tasks(split)

    def make(self) -> Environment:
        return ChaosMaze(self.maze)

    def close(self) -> None:
        """Nothing is held."""


def build(*, wording: maze.Wording = "compact") -> ChaosWorld:
    """The world of every cell but the browser's."""
    return ChaosWorld(wording)


class ChaosReward(EnvReward):
    """The world's own reward, whose judge is down for some groups."""

    name = "chaos"

    def score(self, group: Group) -> list[Score]:
        if HARM.kind == "reward_exception" and HARM.strikes(group.id):
            HARM.mark(group=group.id)
            raise ConnectionError("the judge does not answer")
        return super().score(group)


def build_reward() -> ChaosReward:
    return ChaosReward()


# Hands from outside


def when(due: Callable[[], bool], act: Callable[[], None]) -> Callable[[], None]:
    """Do something as soon as it is due, from a thread; call the result to give it up."""
    over = threading.Event()

    def wait() -> None:
        while not over.wait(0.02):
            if due():
                act()
                return

    threading.Thread(target=wait, name="chaos", daemon=True).start()
    return over.set


def descendants(pid: int) -> list[int]:
    """All processes under `pid`, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def browsers() -> list[int]:
    """The main processes of the browsers that this process started."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"chrom" in words[0] and not any(word.startswith(b"--type=") for word in words):
            found.append(pid)
    return found
