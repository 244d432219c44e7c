"""A box for one command: a shell line, a program with its files. It starts fresh and leaves nothing behind.

It shows the machine's programs besides the interpreter, and no more packages than a warm one.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from rollwright.envs.code.sandbox import box
from rollwright.envs.code.sandbox.library import interpreter
from rollwright.envs.code.sandbox.limits import Limits, Outcome
from rollwright.envs.code.sandbox.seccomp import seccomp_filter
from rollwright.envs.code.sandbox.session import BoxLost
from rollwright.envs.code.sandbox.warm import UNSAFE_WARNING

log = logging.getLogger(__name__)

# The first program in the box: lays out the files, sets the limits where processes are counted, becomes the command.
_BEGIN = """
import json, os, resource as r, sys
order = json.loads(sys.stdin.buffer.read())
for name, text in order["files"].items():
    os.makedirs(os.path.dirname(os.path.join(order["folder"], name)) or ".", exist_ok=True)
    with open(os.path.join(order["folder"], name), "w", encoding="utf-8") as file: file.write(text)
os.chdir(order["folder"])
for name, value in order["limits"]:
    r.setrlimit(getattr(r, name), (value, value))
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
child = os.fork() if order["boxed"] else 0
if child == 0:
    try:
        os.execvp(order["command"][0], order["command"])
    except OSError as error:
        sys.stderr.write(f"{order['command'][0]}: {error.strerror}\\n"); sys.stderr.flush(); os._exit(127)
while True:
    done, status = os.wait()
    if done == child:
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended and what it printed, both streams in one. A signal's code is 128 and its number, as in sh."""

    outcome: Outcome
    code: int
    output: str
    wall_s: float


class ColdBox:
    """Runs commands, each in a box of its own.

    Raises:
        MissingDependency: there is no bubblewrap and `unsafe` is false.
        EnvironmentUnavailable: this machine allows no box and `unsafe` is false.
    """

    def __init__(self, *, limits: Limits | None = None, unsafe: bool = False) -> None:
        self.limits = limits or Limits(processes=16, memory_mib=512)
        self.boxed = box.is_available()
        if not self.boxed:
            if not unsafe:
                box.require()
            log.warning("%s", UNSAFE_WARNING)

    def run(self, command: Sequence[str], *, files: Mapping[str, str] | None = None) -> CommandResult:
        """One command, in a folder that holds `files` (by relative path).

        Raises:
            BoxLost: the box was killed from outside; what runs in it cannot do that.
        """
        started = time.monotonic()
        with tempfile.TemporaryFile() as bpf, tempfile.TemporaryDirectory(prefix="rollwright-cold-") as scratch:
            bpf.write(seccomp_filter())
            bpf.seek(0)
            process = subprocess.Popen(
                [*self._front(bpf.fileno()), interpreter(), "-s", "-S", "-B", "-c", _BEGIN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(bpf.fileno(),),
                env=box.environment(),
                start_new_session=True,
            )
            try:
                output, why = self._talk(process, self._order(command, files or {}, "/tmp" if self.boxed else scratch))
            finally:
                _end(process)
        if self.boxed and why is None and process.returncode < 0:
            raise BoxLost(f"a sandbox was lost with the command in it: signal {-process.returncode}")
        outcome: Outcome = why or ("done" if process.returncode == 0 else "exit")
        return CommandResult(
            outcome=outcome,
            code=process.returncode,
            output=output.decode("utf-8", errors="replace"),
            wall_s=time.monotonic() - started,
        )

    def shell(self, line: str, *, files: Mapping[str, str] | None = None) -> CommandResult:
        """One line of shell."""
        return self.run(["/bin/sh", "-c", line], files=files)

    def _front(self, bpf_fd: int) -> list[str]:
        return box.bwrap_command(self.limits, seccomp_fd=bpf_fd, tools=True) if self.boxed else []

    def _order(self, command: Sequence[str], files: Mapping[str, str], folder: str) -> bytes:
        limits, mib = self.limits, 2**20
        wanted = [
            ("RLIMIT_CPU", limits.cpu_s),
            ("RLIMIT_AS", limits.memory_mib * mib),
            ("RLIMIT_FSIZE", limits.file_mib * mib),
            ("RLIMIT_NOFILE", limits.open_files),
            ("RLIMIT_CORE", 0),
            ("RLIMIT_MEMLOCK", 0),
            ("RLIMIT_MSGQUEUE", 0),
        ]
        if self.boxed:
            wanted.append(("RLIMIT_NPROC", 2 + limits.processes))
        order = {"command": list(command), "files": dict(files), "folder": folder, "limits": wanted}
        return json.dumps({**order, "boxed": self.boxed}).encode()

    def _talk(self, process: subprocess.Popen[bytes], order: bytes) -> tuple[bytes, Outcome | None]:
        """Send the order, collect the output; says why it stopped early, None where the command ended by itself."""
        assert process.stdin is not None and process.stdout is not None
        deadline, output = time.monotonic() + self.limits.wall_s, bytearray()
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(order)
        while (left := deadline - time.monotonic()) > 0:
            chunk = _read(process.stdout, left)
            if chunk is None:
                continue
            if not chunk:
                return self._wait(process, deadline, output)
            output += chunk
            if len(output) > self.limits.output_kib * 1024:
                return bytes(output[: self.limits.output_kib * 1024]), "output"
        return bytes(output), "timeout"

    def _wait(
        self, process: subprocess.Popen[bytes], deadline: float, output: bytearray
    ) -> tuple[bytes, Outcome | None]:
        """It has closed its output; it may run on."""
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return bytes(output), "timeout"
        return bytes(output), None


def _read(stream: BinaryIO | object, left_s: float) -> bytes | None:
    fd = stream.fileno()  # type: ignore[union-attr, attr-defined]
    ready, _, _ = select.select([fd], [], [], left_s)
    return os.read(fd, 65536) if ready else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the session's processes; the box's own die with its first one, whatever session they are in."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
