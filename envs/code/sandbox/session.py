"""One run in a warm box: messages to the child and its answers through pipes, how it ended from the zygote's socket."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from rollwright.contracts import EnvironmentFault
from rollwright.envs.code.sandbox import plain
from rollwright.envs.code.sandbox.limits import Limits, Outcome
from rollwright.envs.code.sandbox.zygote import STOP

GRACE_S = 10.0
"""Seconds beyond a run's own limit before its box counts as lost."""


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
        }[self.outcome]


class BoxLost(EnvironmentFault):
    """The box died or does not answer, which no program inside can bring about. The next run gets a new one."""


class Owner(Protocol):
    """The box, as a run in it sees it."""

    def retire(self) -> None:
        """The box is not fit for another run."""
        ...

    def end_turn(self) -> None:
        """The run is over: another one may have the box."""
        ...


class Session:
    """One run in a warm box, from the first message to its end. Used in a `with`, which ends it."""

    def __init__(
        self, owner: Owner, control: socket.socket, run: str, fds: tuple[int, int, int], limits: Limits
    ) -> None:
        self.answers: list[Any] = []
        self._owner, self._control, self._run, self._limits = owner, control, run, limits
        self._write, self._read, self._print = fds
        self._pending, self._received, self._printed = bytearray(), bytearray(), bytearray()
        self._bytes_read = 0
        self._deadline = time.monotonic() + limits.wall_s + GRACE_S
        self._ended: Ended | None = None
        self._flooded, self._lost = False, False
        self._open_fds = set(fds)
        for fd in fds:
            os.set_blocking(fd, False)

    def send(self, message: Any) -> None:
        """Queue a message for the child; it travels while answers are awaited."""
        self._pending += plain.to_frame(message)

    def receive(self) -> Any | None:
        """The next answer, None where the run ends without one.

        Raises:
            BoxLost: the box died, or does not answer.
        """
        known = len(self.answers)
        while len(self.answers) == known and self._ended is None:
            self._pump()
        return self.answers[known] if len(self.answers) > known else None

    def finish(self) -> Ended:
        """No more messages: wait for the end of the run.

        Raises:
            BoxLost: the box died, or does not answer.
        """
        while self._ended is None:
            if not self._pending:
                self._close(self._write)
            self._pump()
        return self._ended

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._ended is None and not self._lost:
                with suppress(OSError):
                    self._control.send(STOP)
                self._pending.clear()
                with suppress(BoxLost):  # nobody asks for this run's result any more
                    self.finish()
        finally:
            for fd in list(self._open_fds):
                self._close(fd)
            self._owner.end_turn()

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
        if self._control.fileno() < 0:
            self._lose("it was closed during a run")
        poll.register(self._control, select.POLLIN)
        ready = poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000)
        if not ready:
            self._lose(f"no answer {GRACE_S:g} s after the run's own limit")
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
            self._lose("it died during a run")
        if not report.get("began"):
            self._lose("it could not start the program")
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

    def _lose(self, why: str) -> NoReturn:
        self._lost = True
        self._owner.retire()
        raise BoxLost(f"a sandbox was lost with the run in it: {why}")


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
