"""A box that stays up: a zygote inside forks one child per run, so that a run costs milliseconds.

A run is a `Session`: it writes messages to the child and reads its answers through two pipes of its own. How the run
ended is said by the zygote, over a socket that no child ever holds, under a number drawn afresh for each run.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from rollwright.envs.code.sandbox import box, plain
from rollwright.envs.code.sandbox.library import interpreter
from rollwright.envs.code.sandbox.limits import Limits, Outcome
from rollwright.envs.code.sandbox.packages import support_folder
from rollwright.envs.code.sandbox.starter import popen
from rollwright.envs.code.sandbox.zygote import STOP
from rollwright.errors import EnvironmentFault

log = logging.getLogger(__name__)

START_S, GRACE_S = 60.0, 10.0
"""Seconds for a box to come up; seconds beyond a run's own limit before the box itself is killed."""
UNSAFE_WARNING = (
    "unsafe: programs run WITHOUT a sandbox, with this user's files and network, under resource limits only. "
    "Do this only inside a machine that may be lost."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended. `output` is what it printed, cut at the limit; `code` its exit code or the signal's number."""

    outcome: Outcome
    code: int = 0
    output: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def said(self) -> str:
        """In words, for an observation. No times: they are never the same twice."""
        return {
            "done": "finished",
            "exit": f"exit code {self.code}",
            "signal": f"killed by {_signal_name(self.code)}",
            "timeout": "out of time",
            "output": "too much output",
            "lost": "the run ended abnormally",
        }[self.outcome]


class BoxLost(EnvironmentFault):
    """The box died or does not answer. The next run gets a new one."""


class WarmBox:
    """One box, one run at a time. Starts at its first run, is replaced after `runs_per_box` runs or when it is lost.

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
        self._runs = 0
        if not self.boxed:
            if not unsafe:
                box.require()
            log.warning("%s", UNSAFE_WARNING)
        self._support = support_folder(tuple(packages), self.trusted)

    def start(self) -> None:
        """Bring the box up, if it is not.

        Raises:
            EnvironmentFault: it does not come up.
        """
        if self._process is not None and self._process.poll() is None and self._runs < self._runs_per_box:
            return
        self.close()
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
        self._control, self._runs = ours, 0
        self.started += 1
        ours.settimeout(START_S)
        try:
            ready = ours.recv(65536)
        except TimeoutError:
            ready = b""
        if not ready:
            raise EnvironmentFault(f"the sandbox does not start: {self._last_words()}")

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
        """Begin a run; `order` is the first message to the child.

        Raises:
            EnvironmentFault: the box does not come up.
        """
        for attempt in range(2):
            self.start()
            try:
                return self._open(order, limits or self.limits)
            except OSError as error:  # it died while idle (the thread that started it is gone, say)
                self._kill()
                if attempt:
                    raise BoxLost(f"the sandbox hangs up: {error}") from error
        raise AssertionError("not reached")

    def _open(self, order: Mapping[str, Any], limits: Limits) -> Session:
        assert self._control is not None
        payload, answers, output = os.pipe(), os.pipe(), os.pipe()
        run = secrets.token_hex(16)
        message = json.dumps({"run": run, "limits": asdict(limits)}).encode()
        try:
            socket.send_fds(self._control, [message], [payload[0], answers[1], output[1]])
        except OSError:
            for fd in (payload[1], answers[0], output[0]):
                os.close(fd)
            raise
        finally:
            for fd in (payload[0], answers[1], output[1]):
                os.close(fd)
        self._runs += 1
        session = Session(self, self._control, run, (payload[1], answers[0], output[0]), limits)
        session.send(order)
        return session

    def run(
        self, order: Mapping[str, Any], messages: Sequence[Any] = (), *, limits: Limits | None = None
    ) -> tuple[list[Any], Ended]:
        """A whole run: every message sent, every answer read, the end awaited."""
        with self.open(order, limits=limits) as session:
            for message in messages:
                session.send(message)
            ended = session.finish()
            return session.answers, ended

    def retire(self) -> None:
        """The box is not fit for another run."""
        self._kill()

    def close(self) -> None:
        """End the box. The next run would start another."""
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stderr is not None and not sys.is_finalizing():
                process.stderr.close()

    def __enter__(self) -> WarmBox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Session:
    """One run in a warm box, from the first message to its end. Used in a `with`, which ends it."""

    def __init__(
        self, owner: WarmBox, control: socket.socket, run: str, fds: tuple[int, int, int], limits: Limits
    ) -> None:
        self.answers: list[Any] = []
        self._owner, self._control, self._run, self._limits = owner, control, run, limits
        self._write, self._read, self._print = fds
        self._pending, self._received, self._printed = bytearray(), bytearray(), bytearray()
        self._bytes_read = 0
        self._deadline = time.monotonic() + limits.wall_s + GRACE_S
        self._ended: Ended | None = None
        self._flooded = False
        self._open_fds = set(fds)
        for fd in fds:
            os.set_blocking(fd, False)

    def send(self, message: Any) -> None:
        """Queue a message for the child; it travels while answers are awaited."""
        self._pending += plain.to_frame(message)

    def receive(self) -> Any | None:
        """The next answer, None where the run ends without one."""
        known = len(self.answers)
        while len(self.answers) == known and self._ended is None:
            self._pump()
        return self.answers[known] if len(self.answers) > known else None

    def finish(self) -> Ended:
        """No more messages: wait for the end of the run."""
        while self._ended is None:
            if not self._pending:
                self._close(self._write)
            self._pump()
        return self._ended

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        if self._ended is None:
            with suppress(OSError):
                self._control.send(STOP)
            self._pending.clear()
            self.finish()
        for fd in list(self._open_fds):
            self._close(fd)

    def _close(self, fd: int) -> None:
        if fd in self._open_fds:
            self._open_fds.discard(fd)
            os.close(fd)

    def _pump(self) -> None:
        """Move what can be moved, once; note the end of the run when it is told."""
        poll = select.poll()
        for fd in self._open_fds - {self._write}:
            poll.register(fd, select.POLLIN)
        if self._pending and self._write in self._open_fds:
            poll.register(self._write, select.POLLOUT)
        poll.register(self._control, select.POLLIN)
        ready = poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000)
        if not ready:
            self._lose()
        for fd, _ in ready:
            if fd == self._control.fileno():
                self._hear()
            elif fd == self._write:
                self._push()
            else:
                self._pull(fd)

    def _push(self) -> None:
        try:
            del self._pending[: os.write(self._write, self._pending)]
        except BlockingIOError:
            return
        except OSError:  # the child reads no more
            self._pending.clear()
            self._close(self._write)

    def _pull(self, fd: int) -> None:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return
        if not chunk:
            self._close(fd)
        elif fd == self._print:
            room = self._limits.output_kib * 1024 - len(self._printed)
            self._printed += chunk[:room]
            if len(chunk) > room:
                self._flood()
        else:
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        self._bytes_read += len(chunk)
        if self._bytes_read > self._limits.answers_kib * 1024:
            self._flood()
            return
        self._received += chunk
        try:
            self.answers += plain.split_frames(self._received)
        except plain.NotPlain:
            self._flood()

    def _flood(self) -> None:
        """More than is allowed, or bytes that mean nothing: the run is stopped."""
        if not self._flooded:
            self._flooded = True
            with suppress(OSError):
                self._control.send(STOP)

    def _hear(self) -> None:
        try:
            said = self._control.recv(65536)
            report = json.loads(said) if said else {}
        except (OSError, ValueError):
            report = {}
        if report.get("run") != self._run:
            self._lose()
            return
        for fd in (self._read, self._print):
            while fd in self._open_fds and not self._flooded:  # what still lies in the pipes
                before = len(self._printed), self._bytes_read
                self._pull(fd)
                if before == (len(self._printed), self._bytes_read):
                    break
        self._ended = replace(
            _end_of(report, self._flooded), output=bytes(self._printed).decode("utf-8", errors="replace")
        )
        if not report.get("tidy", False):
            self._owner.retire()

    def _lose(self) -> None:
        self._owner.retire()
        self._ended = Ended(outcome="lost", output=bytes(self._printed).decode("utf-8", errors="replace"))


def _end_of(report: Mapping[str, Any], flooded: bool) -> Ended:
    """The zygote's report in our words."""
    code = os.waitstatus_to_exitcode(report.get("status", 0))
    outcome: Outcome = "done" if code == 0 else "signal" if code < 0 else "exit"
    if flooded:
        outcome = "output"
    elif report.get("timeout"):
        outcome = "timeout"
    times = {"wall_s": report.get("wall_s", 0.0), "cpu_s": report.get("cpu_s", 0.0)}
    return Ended(outcome=outcome, code=abs(code), **times)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
