"""Harm that comes from outside: browsers and servers that are killed, a sync that never ends, a disk that is full."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _chaos_world as chaos

from rollwright.generation import Engine, ThreadedEngine
from rollwright.run_io import read_metrics
from rollwright.training import loop as training
from rollwright.training import open_run

_NEW_NS, _NEW_USER, _PRIVATE, _DETACH = 0x00020000, 0x10000000, 1 << 18 | 1 << 14, 2


@contextlib.contextmanager
def hands(harm: str, home: Path, *, served: bool) -> Iterator[None]:
    """Do what the world and the reward cannot do to themselves.

    Args:
        served: the engine is a server, and not in this process.
    """
    does: dict[str, Callable[[Path, bool], contextlib.AbstractContextManager[None]]] = {
        "browser_kill": kill_browser,
        "engine_kill": kill_engine,
        "sync_stall": stall_sync,
        "disk_full": fill_disk,
    }
    with does.get(harm, lambda home, served: contextlib.nullcontext())(home, served):
        yield


def at_step(home: Path, step: int) -> bool:
    """Whether the run has finished as many steps."""
    file = home / "run" / "metrics.jsonl"
    return file.exists() and sum("reward/total_mean" in row for row in read_metrics(file)) >= step


@contextlib.contextmanager
def kill_browser(home: Path, served: bool) -> Iterator[None]:
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
def kill_engine(home: Path, served: bool) -> Iterator[None]:
    """SIGKILL to the server in the middle of a batch; in process, a model that fails from the second step on."""
    if served:

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
def stall_sync(home: Path, served: bool) -> Iterator[None]:
    """The weight sync after the second step never ends; behind a server because the server has been stopped."""
    original, stopped = training.Training.sync, []

    def stall(run: Any) -> None:
        if not at_step(home, 1):
            original(run)
            return
        chaos.HARM.mark(step=run.next_step)
        if not served:
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
def fill_disk(home: Path, served: bool) -> Iterator[None]:
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
        self.open = open_run.open_engine
        open_run.open_engine = self.lent
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
