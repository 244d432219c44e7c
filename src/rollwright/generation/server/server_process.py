"""One server process of ours: started under a guard, with a log file, ended with everything it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollwright.generation.server import parent_guard
from rollwright.generation.server.parent_guard import GRACE_S, KILL_S, end_group

_STOP_S = GRACE_S + KILL_S + 6.0  # the guard's two waits one after the other, and some time for its polling


class ServerProcess:
    """Runs from the moment it is made until `stop`. Its output is appended to `log`; `log` + `.pid` holds its id."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.pid_file = log.with_suffix(".pid")
        # A restarted server appends to the log: `tail` must not show what the one before it wrote.
        self._log_start = log.stat().st_size if log.exists() else 0
        self.pid_file.unlink(missing_ok=True)
        # By its file, not as a module: the folders around it would be imported first, and torch with its threads.
        guard = [sys.executable, "-P", parent_guard.__file__, str(os.getpid()), str(self.pid_file)]
        with log.open("ab") as out:
            self._guard = subprocess.Popen(
                [*guard, *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the run, which ends its servers itself
            )

    @property
    def pid(self) -> int | None:
        """The server's process id, which is its group's too; None before it has one and after it ended."""
        try:
            return int(self.pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    @property
    def exit_code(self) -> int | None:
        """None while the server runs; negative where a signal ended it."""
        code = self._guard.poll()
        # The guard exits with the server's code; the system keeps 8 bits, which makes 247 of -9.
        return code if code is None or code < 128 else code - 256

    def stop(self) -> None:
        """End the server and all its processes; blocks for some seconds at most. Idempotent."""
        # Read before the guard ends, since it removes the file.
        group = self.pid
        if self._guard.poll() is None:
            self._guard.terminate()
            try:
                self._guard.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
        if group is not None and self.pid_file.exists():  # the guard was killed before it could do its work
            end_group(group)
            self.pid_file.unlink(missing_ok=True)

    def tail(self, lines: int = 12) -> str:
        """The last lines that this server wrote: errors first, where it wrote any."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self._log_start)
            written = file.read().decode("utf-8", "replace").splitlines()
            errors = [line for line in written if "Error" in line or "ERROR" in line]
            return "\n".join(deque([*errors[-3:], *written[-lines:]], maxlen=lines + 3))
        return ""


def free_port() -> int:
    """A port of the loopback address that nobody listens on at this moment."""
    # Port 0 has the system choose one; another process may still take it before the server does.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def signal_name(exit_code: int) -> str:
    """An exit code in words."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-exit_code).name}"
    return f"signal {-exit_code}"
