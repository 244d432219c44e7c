"""The runs below some folders, each under an id that is safe in an address and stays while the server lives."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rollwright.contracts import DataError
from rollwright.view.live.followed_run import FollowedRun

MAX_DEPTH, MAX_RUNS = 5, 2000
RESCAN_S = 2.0
_INSIDE = {"trajectories", "checkpoints", "eval", "policy", "transcripts", "token_log", "superseded", "node_modules"}


class RunCatalogue:
    """Finds runs and keeps them. Made once by the server; any thread may ask.

    Args:
        folders: run folders, or folders of them.

    Raises:
        DataError: one of the folders is not there.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise DataError(f"there is no folder {folder}: name a run folder, or a folder that holds run folders")
        self.folders = [folder.resolve() for folder in folders]
        self._lock = threading.Lock()
        self._runs: dict[Path, FollowedRun] = {}
        self._names: dict[str, FollowedRun] = {}
        self._scanned = 0.0

    def runs(self) -> list[FollowedRun]:
        """All runs that are there now."""
        with self._lock:
            self._rescan()
            return list(self._runs.values())

    def run(self, name: str) -> FollowedRun | None:
        """The run of an id; None where there is none."""
        with self._lock:
            if name not in self._names:
                self._rescan()
            return self._names.get(name)

    def _rescan(self) -> None:
        if self._scanned and time.monotonic() - self._scanned < RESCAN_S:
            return
        found = [path for folder in self.folders for path in find_runs(folder)]
        for path in dict.fromkeys(found):
            if path not in self._runs and len(self._runs) < MAX_RUNS:
                name = self._new_name(path)
                self._runs[path] = self._names[name] = FollowedRun(path, name)
        for path in [path for path in self._runs if not path.is_dir()]:
            del self._names[self._runs.pop(path).name]
        self._scanned = time.monotonic()

    def _new_name(self, path: Path) -> str:
        root = next((folder for folder in self.folders if path.is_relative_to(folder)), path)
        below = "_".join(path.relative_to(root).parts) or path.name
        name = base = safe_name(below)
        number = 2
        while name in self._names:
            name, number = f"{base}-{number}", number + 1
        return name


def safe_name(text: str) -> str:
    """A folder's name as a part of an address."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text).strip(".") or "run"


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a run writes."""
    traces = ("metrics.jsonl", "run.json", "eval", "trajectories/trajectories")
    return any((folder / trace).exists() for trace in traces)


def find_runs(folder: Path) -> list[Path]:
    """The run folders at and below a folder, links not followed, at most `MAX_DEPTH` levels down."""
    found: list[Path] = []
    waiting = [(folder, 0)]
    while waiting and len(found) < MAX_RUNS:
        here, depth = waiting.pop()
        if is_run(here):
            found.append(here)
        if depth < MAX_DEPTH:
            waiting += [(path, depth + 1) for path in reversed(_folders(here))]
    return found


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:  # not to be read, or gone meanwhile
        return []
    return [folder / name for name in sorted(names) if name not in _INSIDE and not name.startswith(".")]
