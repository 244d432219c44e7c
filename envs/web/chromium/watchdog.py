"""Run as a program: kills what a process has started, once that process is gone, however it went.

It holds the reading end of a pipe whose other end only our process holds. When we die the pipe closes; the watchdog
lets the browser leave by itself for a moment, then kills what still carries our mark in its environment, and removes
the profile folders. It runs without site packages, so it imports the standard library only.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "ROLLWRIGHT_BROWSER"
ONE = "ROLLWRIGHT_BROWSER_ONE"
GRACE_S = 2.0


def marked_processes(mark: str, variable: str = MARK) -> list[int]:
    """The pids of all processes that were started with our mark in their environment (Linux; elsewhere none)."""
    wanted = f"{variable}={mark}".encode()
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


def _drivers(pids: list[int]) -> list[int]:
    """Playwright's own processes among the parents of these: one that hangs would not notice that we are gone."""
    found = set()
    for pid in pids:
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            if b"run-driver" in Path(f"/proc/{parent}/cmdline").read_bytes():
                found.add(parent)
        except (OSError, ValueError, IndexError):
            continue
    return sorted(found)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGKILL)
            if group == pid:
                os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def kill_browser(mark: str) -> int:
    """Kill all processes of one browser that does not close; returns how many there were."""
    pids = marked_processes(mark, ONE)
    _kill(pids)
    return len(pids)


def watch(mark: str, artifacts: str) -> None:
    """The watchdog's whole life: wait for the pipe to close, then clean up."""
    sys.stdin.buffer.read()
    folders: set[str] = set()
    deadline = time.monotonic() + GRACE_S
    while left := marked_processes(mark):
        folders |= _profile_folders(left)
        if time.monotonic() > deadline:
            _kill([*_drivers(left), *left])
        time.sleep(0.05)
    for folder in {*folders, artifacts}:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2])
