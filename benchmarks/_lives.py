"""Lives of one training run: each is forked from this process, which has imported everything, and may be killed.

Importing torch and transformers takes seconds and is the same in every life, so it is done once. The forked child says
in shared memory which step and phase it is in; whoever kills it reads there where it died.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollwright.training import Training, resumption

PHASES = (
    "starting",
    "resuming",
    "collecting",
    "scoring",
    "updating",
    "syncing",
    "storing",
    "evaluating",
    "checkpointing",
    "ending",
)
_PLACE = struct.Struct("qq")


class Whereabouts:
    """Step and phase of a life, in memory that it shares with us."""

    def __init__(self, aim: Aim | None = None) -> None:
        self._memory = mmap.mmap(-1, _PLACE.size)
        self._aim = aim
        self._memory[:] = _PLACE.pack(-1, 0)

    def put(self, step: int, phase: str) -> None:
        """Also stops the life where it is to be killed: from outside, short phases could not be hit."""
        self._memory[:] = _PLACE.pack(step, PHASES.index(phase))
        if self._aim is not None and self._aim.reached(step, phase):
            self._aim = None
            os.kill(os.getpid(), signal.SIGSTOP)

    def get(self) -> tuple[int, str]:
        step, phase = _PLACE.unpack(self._memory[:])
        return step, PHASES[phase]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Kill in `phase` of `step` or as soon after as can be, `delay_s` after it began."""

    step: int
    phase: str
    delay_s: float

    def reached(self, step: int, phase: str) -> bool:
        if self.phase in ("starting", "resuming"):
            return PHASES.index(phase) >= PHASES.index(self.phase)
        return step > self.step or (step == self.step and PHASES.index(phase) >= PHASES.index(self.phase))


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """How one life ended: where it was, how long it lasted, its exit status (None where it was killed)."""

    step: int
    phase: str
    seconds: float
    status: int | None


def live(main: Callable[[], None], log: Path, aim: Aim | None = None, *, patience_s: float = 0.0) -> Life:
    """Fork, run `main`, and kill it where the aim says; without an aim it runs to its end.

    At the beginning of the phase the life is stopped, let go again, and killed after the aim's delay, wherever it then
    is: what it was doing is read from the shared memory afterwards. With no delay it is killed where it was stopped.
    With `patience_s` above 0 it is killed after as many seconds in any case.
    """
    where, began = Whereabouts(aim), time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(main, log, where)
    impatience = threading.Timer(patience_s, os.kill, (pid, signal.SIGKILL))
    impatience.daemon = True
    if patience_s > 0:
        impatience.start()
    _, status = os.waitpid(pid, os.WUNTRACED)
    impatience.cancel()
    if os.WIFSTOPPED(status):
        if aim and aim.delay_s:
            os.kill(pid, signal.SIGCONT)
            time.sleep(aim.delay_s)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    step, phase = where.get()
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    code = None if killed else os.waitstatus_to_exitcode(status)
    return Life(step=step, phase=phase, seconds=time.monotonic() - began, status=code)


def _child(main: Callable[[], None], log: Path, where: Whereabouts) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        tell(where)
        main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def tell(where: Whereabouts) -> None:
    """Let the training say where it is. Looks on from outside: nothing that is computed changes."""
    for name, phase in (("collect", "collecting"), ("score", "scoring"), ("update", "updating"), ("sync", "syncing")):
        _announce(Training, name, phase, where)
    for name, phase in (("finish", "storing"), ("evaluate", "evaluating"), ("_end", "ending")):
        _announce(Training, name, phase, where)
    _announce(resumption, "save", "checkpointing", where)
    _announce(resumption, "resume", "resuming", where)


def _announce(owner: Any, name: str, phase: str, where: Whereabouts) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def announced(run: Any, *args: Any, **kwargs: Any) -> Any:
        with _during(where, run.next_step, phase):
            return original(run, *args, **kwargs)

    setattr(owner, name, announced)


@contextlib.contextmanager
def _during(where: Whereabouts, step: int, phase: str) -> Iterator[None]:
    before = where.get()
    where.put(step, phase)
    yield
    where.put(*before) if before[1] == "ending" else None
