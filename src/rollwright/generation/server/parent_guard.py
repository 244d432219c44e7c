"""The guard of one server: starts it, and ends its whole process group when it or the run that wanted it is gone.

    python parent_guard.py PARENT_PID PID_FILE COMMAND...

A server has processes of its own (vLLM's engine core), which outlive a killed server, and a killed run can tidy up
nothing. So the guard stands between: a process of its own, which only watches. Standard library only; one thread, so
that it may run code between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_S = 0.2
GRACE_S = 4.0
KILL_S = 20.0  # a process that is deep in the kernel, or swapped out, goes when it comes back
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run the command until it ends, the parent ends, or SIGTERM comes; the server's exit code is ours."""
    parent, pid_file, command = int(arguments[0]), Path(arguments[1]), arguments[2:]
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The handler only notes the signal: the loop sees it at its next round and ends the group in order.
        signal.signal(number, lambda received, _: asked.append(received))
    # A session of its own: the group is the server with its children, and signals to it do not hit the guard.
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent)
    # For `ServerProcess.stop`, which ends the group by it where the guard was killed.
    pid_file.write_text(f"{server.pid}\n", encoding="ascii")
    try:
        # The parent's death shows as another parent. A pipe would not do: a forked worker keeps its other end open.
        while server.poll() is None and not asked and os.getppid() == parent:
            time.sleep(POLL_S)
    finally:
        end_group(server.pid)
        pid_file.unlink(missing_ok=True)
    return server.wait()


def end_group(group: int) -> None:
    """SIGTERM for every process of the group, SIGKILL for what is left after the grace period; waits for their end."""
    for number, limit_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, KILL_S)):
        if not _send(group, number):
            return
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if not has_living(group):
                return
            time.sleep(POLL_S / 4)


def has_living(group: int) -> bool:
    """Whether the group has a process that is not a zombie; one that nobody reaps would count for ever."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # Behind the last bracket: the name of a command may hold blanks and brackets of its own.
            state, _, its_group = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
        except OSError:  # it ended while we looked
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def _send(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _die_with_parent() -> None:
    """In the server, before it becomes one: should the guard itself be killed, the kernel ends the server."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
