"""A box that stays up: a zygote inside forks one child per run, so that a run costs milliseconds.

A run is a `Session`: it writes messages to the child and reads its answers through two pipes of its own. How the run
ended is said by the zygote, over a socket that no child ever holds, under a number drawn afresh for each run.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from rollwright.contracts import EnvironmentFault
from rollwright.envs.code.sandbox import box
from rollwright.envs.code.sandbox.library import interpreter
from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.packages import support_folder
from rollwright.envs.code.sandbox.session import BoxLost, Ended, Session
from rollwright.envs.code.sandbox.starter import popen

log = logging.getLogger(__name__)
Result = TypeVar("Result")

START_S = 60.0
"""Seconds for a box to come up."""
UNSAFE_WARNING = (
    "unsafe: programs run WITHOUT a sandbox, with this user's files and network, under resource limits only. "
    "Do this only inside a machine that may be lost."
)


def retried(work: Callable[[], Result], tries: int = 3) -> Result:
    """What `work` gives; where its box is lost, it is done again in a new one: the program has shown nothing yet.

    Raises:
        BoxLost: at each of the tries.
    """
    for left in reversed(range(tries)):
        try:
            return work()
        except BoxLost as error:
            if not left:
                raise
            log.warning("a sandbox was lost and its run is done again: %s", error)
    raise AssertionError("not reached")


class WarmBox:
    """One box, one run at a time. Starts at its first run, is replaced after `runs_per_box` runs or when it is lost.

    It may be used from any thread; one that comes while a run is under way waits for its end.

    Args:
        limits: for every run that names no other; `disk_mib` counts for the box.
        preload: modules that the zygote imports, so that no run has to.
        packages: installed packages that programs may import besides the standard library, by their top-level names;
            what these import has to be named too.
        trusted: dotted names of modules of ours, single files that import the standard library and `packages` only,
            whose functions may be called inside (`BoxPool.call`).
        runs_per_box: after so many runs the box is replaced.
        unsafe: where no box can be made, run programs with resource limits only.

    Raises:
        MissingDependency: there is no bubblewrap and `unsafe` is false, or a package is not installed.
        EnvironmentUnavailable: this machine allows no box and `unsafe` is false.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        preload: Sequence[str] = (),
        packages: Sequence[str] = (),
        trusted: Sequence[str] = (),
        runs_per_box: int = 1000,
        unsafe: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self.boxed = box.is_available()
        self.started = 0
        self.trusted = tuple(trusted)
        self._preload, self._runs_per_box = tuple(preload), runs_per_box
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._runs, self._pid = 0, 0
        self._busy = _Turn()
        if not self.boxed:
            if not unsafe:
                box.require()
            if not self.trusted:  # a box of trusted functions runs no program
                log.warning("%s", UNSAFE_WARNING)
        self._support = support_folder(tuple(packages), self.trusted)

    def start(self) -> None:
        """Bring the box up, if it is not.

        Raises:
            EnvironmentFault: it does not come up.
        """
        if self._pid != os.getpid():  # after a fork the box is the parent's
            self._process = self._control = None
        if self._process is not None and self._process.poll() is None and self._runs < self._runs_per_box:
            return
        self._kill()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = popen(
                self._command(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=box.environment(),
                start_new_session=True,
            )
        self._control, self._runs, self._pid = ours, 0, os.getpid()
        self.started += 1
        ours.settimeout(START_S)
        try:
            ready = ours.recv(65536)
        except TimeoutError:
            raise EnvironmentFault(f"the sandbox does not start within {START_S} s: {self._last_words()}") from None
        except OSError:
            ready = b""
        if not ready:
            raise BoxLost(f"the sandbox does not start: {self._last_words()}")

    def _command(self, control_fd: int) -> list[str]:
        support = self._support
        inside = box.INSIDE if self.boxed else str(support)
        python = interpreter() if self.boxed else sys.executable
        command = box.bwrap_command(self.limits, support=support) if self.boxed else []
        # -s -S: no site packages, which may hold anything; -B: the tree is read-only. The path is set by hand.
        start = f"import sys; sys.path[:1] = [{inside!r}]; from rollwright.envs.code.sandbox import zygote as z; "
        start += f"z.main({control_fd}, {inside + '/filter.bpf'!r}, {list(self._preload)!r}, {list(self.trusted)!r})"
        return [*command, python, "-s", "-S", "-B", "-c", start]

    def _last_words(self) -> str:
        process = self._process
        if process is None or process.stderr is None:
            return "no message"
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        words = process.stderr.read().decode(errors="replace").strip()[-400:]
        self._kill()
        return words or "no message"

    def open(self, order: Mapping[str, Any], *, limits: Limits | None = None) -> Session:
        """Begin a run; `order` is the first message to the child. The box is taken until the session's `with` ends.

        Raises:
            EnvironmentFault: the box does not come up.
            RuntimeError: this thread has a run under way in this box.
        """
        self._busy.take()
        try:
            return retried(lambda: self._open(order, limits or self.limits))
        except BaseException:
            self._busy.give_back()
            raise

    def _open(self, order: Mapping[str, Any], limits: Limits) -> Session:
        self.start()
        assert self._control is not None
        run = secrets.token_hex(16)
        message = json.dumps({"run": run, "limits": asdict(limits)}).encode()
        fds: list[int] = []
        try:
            for _ in range(3):
                fds += os.pipe()
            socket.send_fds(self._control, [message], [fds[0], fds[3], fds[5]])
        except OSError as error:  # it died while idle, or this process has no descriptors left
            for fd in (fds[i] for i in (1, 2, 4) if i < len(fds)):
                os.close(fd)
            self._kill()
            raise BoxLost(f"the sandbox hangs up: {error}") from error
        finally:
            for fd in (fds[i] for i in (0, 3, 5) if i < len(fds)):
                os.close(fd)
        self._runs += 1
        session = Session(self, self._control, run, (fds[1], fds[2], fds[4]), limits)
        session.send(order)
        return session

    def run(
        self, order: Mapping[str, Any], messages: Sequence[Any] = (), *, limits: Limits | None = None
    ) -> tuple[list[Any], Ended]:
        """A whole run: every message sent, every answer read, the end awaited.

        Raises:
            EnvironmentFault: the box does not come up, or was lost at every try.
        """
        return retried(lambda: self._run(order, messages, limits))

    def _run(self, order: Mapping[str, Any], messages: Sequence[Any], limits: Limits | None) -> tuple[list[Any], Ended]:
        with self.open(order, limits=limits) as session:
            for message in messages:
                session.send(message)
            ended = session.finish()
            return session.answers, ended

    def retire(self) -> None:
        """The box is not fit for another run."""
        self._kill()

    def end_turn(self) -> None:
        """The run is over: another one may have the box."""
        self._busy.give_back()

    def close(self) -> None:
        """End the box. The next run would start another. A run of another thread in it is lost."""
        if self._busy.is_anothers():  # which still holds the descriptors: it will let go of them
            self._end_process()
        else:
            self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if process is not None and self._pid == os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stderr is not None and not sys.is_finalizing():
                process.stderr.close()

    def _end_process(self) -> None:
        process = self._process
        with suppress(ProcessLookupError, PermissionError):
            if process is not None and self._pid == os.getpid() and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def __enter__(self) -> WarmBox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Turn:
    """Whose turn it is. A lock that the same thread cannot wait for: that would be for ever."""

    def __init__(self) -> None:
        self._lock, self._holder = threading.Lock(), 0

    def take(self) -> None:
        if self._lock.locked() and self._holder == threading.get_ident():
            raise RuntimeError("this thread has a run under way in this box; end its `with` before it opens another")
        self._lock.acquire()
        self._holder = threading.get_ident()

    def is_anothers(self) -> bool:
        return self._lock.locked() and self._holder != threading.get_ident()

    def give_back(self) -> None:
        self._holder = 0
        self._lock.release()
