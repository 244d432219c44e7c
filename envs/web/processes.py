"""The browser as a process: which one to start, and how nothing of it outlives us, even after a kill -9.

A watchdog in its own session holds the reading end of a pipe whose other end only we hold. When we die, however, the
pipe closes; the watchdog lets the browser leave by itself for a moment, then kills what still carries our mark in its
environment, and removes its profile folder.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rollwright.errors import MissingDependency

log = logging.getLogger(__name__)

MARK = "ROLLWRIGHT_BROWSER"
GRACE_S = 2.0
BROWSER_VARIABLE = "ROLLWRIGHT_CHROMIUM"
CANDIDATES = ("chromium-headless-shell", "headless_shell", "chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Besides the routing rule, which sees no web sockets: no name resolves, no proxy answers.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
)


def find_browser() -> str | None:
    """The Chromium to start: `ROLLWRIGHT_CHROMIUM`, the headless shell, a full Chromium; None means Playwright's own.

    The headless shell has twice the throughput of the full browser and a third of its memory.

    Raises:
        MissingDependency: the variable names a program that is not there.
    """
    chosen = os.environ.get(BROWSER_VARIABLE)
    if chosen:
        if shutil.which(chosen) is None:
            raise MissingDependency(f"{BROWSER_VARIABLE}={chosen} is no program; unset it or give a Chromium's path")
        return shutil.which(chosen)
    return next((path for name in CANDIDATES if (path := shutil.which(name))), None)


class Watchdog:
    """Kills every process that carries `mark` once our process is gone. One per browser pool."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(12)
        self.artifacts = Path(tempfile.mkdtemp(prefix="rollwright-browser-"))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self.mark, str(self.artifacts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a signal to our process group must not take the watchdog with it
            cwd="/",
        )

    def environment(self) -> dict[str, str | float | bool]:
        """The environment to start a browser with."""
        return {**os.environ, MARK: self.mark}

    def close(self) -> None:
        """Let the watchdog end; what is left of our browsers is killed by it at once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=GRACE_S + 10)
        except subprocess.TimeoutExpired:
            log.warning("the browser watchdog (pid %d) did not end; killing it", self._process.pid)
            self._process.kill()


def marked_processes(mark: str) -> list[int]:
    """The pids of all processes that were started with our mark in their environment (Linux; elsewhere none)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or not ours to read
    return found


def _profile_folders(pids: list[int]) -> set[str]:
    flag = b"--user-data-dir="
    folders: set[str] = set()
    for pid in pids:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        folders.update(arg[len(flag) :].decode() for arg in arguments if arg.startswith(flag))
    return {folder for folder in folders if Path(folder).name.startswith("playwright")}


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGKILL)
            if group == pid:
                os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def watch(mark: str, artifacts: str) -> None:
    """The watchdog's whole life: wait for the pipe to close, then clean up."""
    import time

    sys.stdin.buffer.read()
    folders: set[str] = set()
    deadline = time.monotonic() + GRACE_S
    while left := marked_processes(mark):
        folders |= _profile_folders(left)
        if time.monotonic() > deadline:
            _kill(left)
        time.sleep(0.05)
    for folder in {*folders, artifacts}:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2])
