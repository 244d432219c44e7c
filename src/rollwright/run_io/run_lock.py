"""One process at a time writes a run folder: a lock that names its owner, and is taken over when the owner is dead.

The owner is told by host, boot, process namespace, process id and the time that the process started, so that another
process under the same id is not taken for it. On the owner's own host a look into the process table decides. From
another host (a shared file system) it cannot be looked up: there the owner's heartbeat decides. Who finds such an owner
watches the lock file until it is touched again, or has not been for long enough by the file system's own clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rollwright.contracts import RunFolderError
from rollwright.run_io.foreign_files import open_regular

log = logging.getLogger(__name__)

NAME = "run.lock"
BEAT_S = 10.0
STALE_S = 120.0
"""An owner on another host that has not touched its lock for so long counts as gone."""
_HELD: Counter[Path] = Counter()  # how often this process holds each lock
_SIZE = 4096  # a record is written by one call that always fills the file: a kill cannot tear it


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, told apart from every other one: `started` is in clock ticks since its host was booted."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    command: str

    @classmethod
    def this_process(cls) -> Owner:
        """The process that asks."""
        return cls(
            host=socket.gethostname(),
            boot=_read("/proc/sys/kernel/random/boot_id"),
            namespace=_link("/proc/self/ns/pid"),
            pid=os.getpid(),
            started=_started(os.getpid()),
            command=Path(sys.argv[0]).name[:200],  # no arguments: a URL among them may hold credentials
        )

    def is_same_process(self, other: Owner) -> bool:
        """Whether the two are one process, not two with one number."""
        return self._place() == other._place() and (self.pid, self.started) == (other.pid, other.started)

    def can_see(self, other: Owner) -> bool:
        """Whether the other's process would be in our process table."""
        return self._place() == other._place()

    def _place(self) -> tuple[str, str, str]:
        return self.host, self.boot, self.namespace

    def __str__(self) -> str:
        # The file may be anybody's, and control characters must not reach the terminal.
        host, command = ("".join(filter(str.isprintable, text))[:200] for text in (self.host, self.command))
        return f"process {self.pid} on {host} (`{command}`)"


@contextmanager
def held(folder: Path | str) -> Iterator[RunLock]:
    """The folder's lock, from here to the end of the body. The folder is made where it is not there.

    Raises:
        RunFolderError: another process that is alive holds it, or it cannot be written.
    """
    lock = RunLock.take(Path(folder))
    try:
        yield lock
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a live process holds the folder's lock: a look that takes nothing and writes nothing.

    The process table decides where the owner is in it; of an owner elsewhere its heartbeat, by this host's clock.
    """
    path = folder / NAME
    try:
        with open_regular(path) as file:
            there, touched = _parse(file.read(_SIZE)), os.fstat(file.fileno()).st_mtime
    except OSError:
        return False
    if there is None:
        return False
    if Owner.this_process().can_see(there):
        return _started(there.pid) == there.started
    return time.time() - touched < STALE_S


class RunLock:
    """The lock of one folder, held by this process. A thread touches the file every `BEAT_S` seconds."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner = path, owner
        self._over = threading.Event()
        _HELD[path] += 1
        threading.Thread(target=self._beat, name="run lock", daemon=True).start()

    @classmethod
    def take(cls, folder: Path) -> RunLock:
        """Take the lock, from a dead owner too. A process that holds it already gets it again.

        Raises:
            RunFolderError: as `held`.
        """
        # Absolute, as it is the key of `_HELD` and must hold wherever this process works later.
        path, owner = folder.expanduser().absolute() / NAME, Owner.this_process()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            before = _claim(path, owner, instead_of=None)
            # `_claim` has decided about owners of this host; one that cannot be looked up is watched.
            if before is not None and not owner.can_see(before) and _falls_silent(path):
                before = _claim(path, owner, instead_of=before)
            if before is not None:
                raise RunFolderError(_refusal(path, before, owner))
        except OSError as error:
            raise RunFolderError(
                f"the run folder {folder} cannot be written: {error.strerror or error}. Name a folder where you "
                "may write and where there is space, for example `run.folder=runs/mine`."
            ) from error
        return cls(path, owner)

    def require(self) -> None:
        """Raises RunFolderError where another process has taken the folder: what is written there is no longer ours."""
        there = self._there()
        if there is not None and not there.is_same_process(self.owner):
            raise RunFolderError(
                f"{self.path.parent} was taken over by {there} while this run wrote to it: this one stops. It may have "
                f"stood still for more than {STALE_S:g} s, or its {NAME} was deleted"
            )

    def release(self) -> None:
        """Give the lock back, where it is still ours. A process that was forked from its owner gives nothing back."""
        self._over.set()
        if os.getpid() != self.owner.pid:
            return
        # This process may hold the folder more than once, and only the last release gives it back.
        _HELD[self.path] -= 1
        with contextlib.suppress(OSError):
            if not _HELD[self.path]:
                _give_back(self.path, self.owner)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            there = self._there()
            with contextlib.suppress(OSError):  # a file system that is away for a while
                # Touching somebody else's lock would keep a dead owner alive.
                if there is not None and there.is_same_process(self.owner):
                    os.utime(self.path)

    def _there(self) -> Owner | None:
        with contextlib.suppress(OSError):
            return _parse(self.path.read_bytes())
        return None


def _claim(path: Path, ours: Owner, *, instead_of: Owner | None) -> Owner | None:
    """Write our name into the file, unless somebody else's stands there who may be alive: then that one comes back.

    Args:
        instead_of: an owner that is known to be gone.
    """
    with _opened(path) as file:
        there = _parse(os.pread(file, _SIZE, 0))
        if there is not None and there != instead_of and not there.is_same_process(ours):
            if not ours.can_see(there) or _started(there.pid) == there.started:
                return there
            log.info("the lock %s is taken over from %s, which has ended", path, there)
        text = json.dumps(asdict(ours)).ljust(_SIZE - 1) + "\n"
        os.pwrite(file, text.encode(), 0)
        # Processes on other hosts only see what has reached the file server.
        os.fsync(file)
    return None


def _give_back(path: Path, ours: Owner) -> None:
    with _opened(path) as file:
        there = _parse(os.pread(file, _SIZE, 0))
        if there is None or there.is_same_process(ours):
            path.unlink(missing_ok=True)


def _falls_silent(path: Path) -> bool:
    """Watch an owner that cannot be looked up: false at its next heartbeat, true after `STALE_S` seconds without one.

    True also where it gives the lock back meanwhile.
    """
    with contextlib.suppress(FileNotFoundError):
        touched = path.stat().st_mtime
        log.warning("%s is of another machine: waiting for a sign of its owner, %.0f s at most", path, STALE_S)
        while _age_s(path) < STALE_S:
            time.sleep(min(BEAT_S, 1.0))
            if path.stat().st_mtime != touched:
                return False
    return True


def _refusal(path: Path, other: Owner, ours: Owner) -> str:
    what = f"{path.parent} is in use by {other}: two runs in one folder would move each other's files. "
    if ours.can_see(other):
        return what + "Wait for it, end it, or name another run.folder"
    return what + (
        "It runs on another machine or in another container, and gives signs of life. Wait for it, or name another "
        f"run.folder; after {STALE_S:g} s of silence it counts as gone. If you know that it is gone, delete {path}"
    )


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, made where it is not there, while no other process looks at it."""
    file = _open_locked(path)
    try:
        yield file
    finally:
        os.close(file)


def _open_locked(path: Path) -> int:
    while True:
        # No O_EXCL: the file may have been left by a dead owner, and the name inside decides.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with contextlib.suppress(OSError):  # some shared file systems have no locks: a moment's race is left
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        os.close(file)  # its owner deleted it while we waited


def _parse(content: bytes) -> Owner | None:
    """Who is named; None in a new file. Whoever cannot be read counts as an owner on another host."""
    if not content.strip():
        return None
    try:
        found = json.loads(content)
        owner = Owner(**{field.name: found[field.name] for field in fields(Owner)})
        if all(isinstance(getattr(owner, field.name), int if field.name == "pid" else str) for field in fields(Owner)):
            return owner
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return Owner(host="an unknown host", boot="", namespace="", pid=0, started="", command="unknown")


def _age_s(path: Path) -> float:
    """Seconds since the last touch, by the file system's clock: that of another host may be set otherwise."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".probe-") as probe:
        probe.write(b"\0")
        probe.flush()
        return max(0.0, os.stat(probe.name).st_mtime - path.stat().st_mtime)


def _started(pid: int) -> str:
    """When a process started; "" where there is none, or a dead one that nobody has waited for."""
    try:
        # The command's name stands in brackets and may hold blanks and brackets itself: count from behind the last one.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        # Where /proc exists, a missing entry means that there is no such process.
        return "" if os.path.isdir("/proc/self") or not _exists(pid) else "alive"
    # Behind the name come the state (Z is a zombie, X is dead) and, 19 fields later, the start time: see proc(5).
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    """Where there is no /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It exists and belongs to another user.
        pass
    return True


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _link(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""
