"""The cells of `chaos.py`: how one is played, and what its files say afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _chaos_world as chaos

from rollwright import run_assembly, training
from rollwright.generation.base import Engine
from rollwright.generation.threaded import ThreadedEngine
from rollwright.recipes import grpo
from rollwright.rollout import faults as rollout_faults
from rollwright.store import TrajectoryStore
from rollwright.tracking import read_metrics
from rollwright.types import Trajectory

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
STEPS = 5
ENV_CALL_S, STAGE_S = 1.5, 10.0
CELL_S = 300.0
"""Far beyond every deadline a cell's run has: what is still alive then waits for nothing that would ever end it."""

_NEW_NS, _NEW_USER, _PRIVATE, _DETACH = 0x00020000, 0x10000000, 1 << 18 | 1 << 14, 2


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
            stack.enter_context(hands(cell, home))
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


# Harm from outside


@contextlib.contextmanager
def hands(cell: Cell, home: Path) -> Iterator[None]:
    """Do what the world and the reward cannot do to themselves."""
    does: dict[str, Callable[[Cell, Path], contextlib.AbstractContextManager[None]]] = {
        "browser_kill": kill_browser,
        "engine_kill": kill_engine,
        "sync_stall": stall_sync,
        "disk_full": fill_disk,
    }
    with does.get(cell.harm, lambda cell, home: contextlib.nullcontext())(cell, home):
        yield


def at_step(home: Path, step: int) -> bool:
    """Whether the run has finished as many steps."""
    file = home / "run" / "metrics.jsonl"
    return file.exists() and sum("reward/total_mean" in row for row in read_metrics(file)) >= step


@contextlib.contextmanager
def kill_browser(cell: Cell, home: Path) -> Iterator[None]:
    """SIGKILL to every browser, three times over the run."""

    def kill() -> None:
        for _ in range(3):
            for pid in chaos.browsers():
                chaos.HARM.mark(pid=pid)
                os.kill(pid, signal.SIGKILL)
            time.sleep(4.0)

    give_up = chaos.when(lambda: at_step(home, 1), kill)
    try:
        yield
    finally:
        give_up()


@contextlib.contextmanager
def kill_engine(cell: Cell, home: Path) -> Iterator[None]:
    """SIGKILL to the server in the middle of a batch; in process, a model that fails from the second step on."""
    if cell.engine == "server":

        def kill() -> None:
            for pid in server_pids():
                chaos.HARM.mark(pid=pid)
                os.kill(pid, signal.SIGKILL)

        give_up = chaos.when(lambda: at_step(home, 1), kill)
        try:
            yield
        finally:
            give_up()
        return
    original = ThreadedEngine._round

    def fail(engine: Any) -> None:
        if at_step(home, 1) and engine._unfinished:
            chaos.HARM.mark(engine=engine.name)
            engine._break("generation failed: the device is gone", RuntimeError("the device is gone"))
        original(engine)

    ThreadedEngine._round = fail  # type: ignore[method-assign]
    try:
        yield
    finally:
        ThreadedEngine._round = original  # type: ignore[method-assign]


@contextlib.contextmanager
def stall_sync(cell: Cell, home: Path) -> Iterator[None]:
    """The weight sync after the second step never ends; behind a server because the server has been stopped."""
    original, stopped = training.Training.sync, []

    def stall(run: Any) -> None:
        if not at_step(home, 1):
            original(run)
            return
        chaos.HARM.mark(step=run.next_step)
        if cell.engine != "server":
            with run._limited("the weight sync", "sync_s"):
                threading.Event().wait()
        for pid in server_pids():
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)
        original(run)

    training.Training.sync = stall  # type: ignore[method-assign]
    try:
        yield
    finally:
        training.Training.sync = original  # type: ignore[method-assign]
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def fill_disk(cell: Cell, home: Path) -> Iterator[None]:
    """The run folder lies on a disk of its own, which is full from the second step on."""
    run = home / "run"
    run.mkdir(exist_ok=True)
    mount(run, "16m")

    def fill() -> None:
        chaos.HARM.mark(folder="run")
        with contextlib.suppress(OSError), (run / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"\0" * 4096)

    give_up = chaos.when(lambda: at_step(home, 1), fill)
    try:
        yield
    finally:
        give_up()
        time.sleep(0.1)
        (run / "ballast").unlink(missing_ok=True)
        shutil.copytree(run, home / "kept", dirs_exist_ok=True)
        _libc().umount2(str(run).encode(), _DETACH)
        run.rmdir()
        (home / "kept").rename(run)


def mount(folder: Path, size: str) -> None:
    """A small file system in memory that only this process and its children see."""
    libc = _libc()
    if libc.unshare(_NEW_NS) != 0:
        uid, gid = os.getuid(), os.getgid()
        if libc.unshare(_NEW_USER | _NEW_NS) != 0:
            raise OSError(ctypes.get_errno(), "no mount namespace: run as root, or allow user namespaces")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    libc.mount(None, b"/", None, _PRIVATE, None)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()) != 0:
        raise OSError(ctypes.get_errno(), f"tmpfs could not be mounted on {folder}")


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


# One server for many runs


class SharedServer:
    """An engine that outlives the runs that use it."""

    current: Engine | None = None

    def __init__(self, model: Path) -> None:
        self.open = run_assembly.open_engine
        run_assembly.open_engine = self.lent
        self.engine: Any = None
        self.model: Path | None = None

    def lent(self, settings: Any, model_folder: Path, codec: Any, **more: Any) -> Engine:
        """What a run gets in place of an engine of its own: the shared one, back at the first weights."""
        from rollwright.models import load_model

        if self.engine is None or self.model != model_folder or self.engine._broken is not None:
            if self.engine is not None:
                type(self.engine).close(self.engine)
            self.engine, self.model = self.open(settings, model_folder, codec, **more), model_folder
            SharedServer.current = self.engine
            self.engine.close = lambda: None
        else:
            model = load_model(model_folder)
            self.engine.load_weights(((n, p) for n, p in model.named_parameters()), version=0)
        return self.engine  # type: ignore[no-any-return]

    def lend(self, model: Path) -> None:
        """The model of the next cell; another one means another server."""


def server_pids() -> list[int]:
    engine: Any = SharedServer.current
    return [r.process.pid for r in engine._replicas if r.process is not None and r.process.pid]


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


# The verdict


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
