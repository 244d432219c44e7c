"""Checkpoints on disk: written beside, fsynced, renamed; a half-written one is recognised and passed over."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollwright.errors import RunFolderError

log = logging.getLogger(__name__)
_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint: `path` holds what the writer put there, `state` the JSON that was saved with it."""

    step: int
    path: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. `state.json` is written last, so a folder without it is not a checkpoint.

    Args:
        root: the folder that holds them, one `step_000123` each.
        keep: how many of the newest stay on disk.
    """

    def __init__(self, root: Path, *, keep: int = 2) -> None:
        self.root, self.keep = root, keep

    def save(self, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> Path:
        """Write one checkpoint; earlier ones are dropped only after the new one is complete.

        Raises:
            RunFolderError: the disk is full or not writable; what was there before is untouched.
        """
        final = self.root / f"step_{step:06d}"
        beside = self.root / f".writing_{final.name}"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            write(beside)
            _write_synced(beside / _STATE, json.dumps({"step": step, **state}))
            shutil.rmtree(final, ignore_errors=True)
            beside.rename(final)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise RunFolderError(
                f"checkpoint of step {step} could not be written to {self.root}: {error}. Earlier checkpoints are "
                "untouched; free some space and start the same command again to resume"
            ) from error
        for old in self._complete()[: -self.keep]:
            shutil.rmtree(old.path, ignore_errors=True)
        return final

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint, or None."""
        complete = self._complete()
        return complete[-1] if complete else None

    def _complete(self) -> list[Checkpoint]:
        """Complete checkpoints, oldest first."""
        found = []
        for path in sorted(self.root.glob("step_*")):
            try:
                state = json.loads((path / _STATE).read_text(encoding="utf-8"))
                found.append(Checkpoint(step=int(state["step"]), path=path, state=state))
            except (OSError, ValueError, KeyError) as error:
                log.warning("%s is not a complete checkpoint, passing it over: %s", path, error)
        return found


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
