"""Checkpoints on disk: written beside, fsynced, renamed; one that is half-written or damaged is passed over.

JSON documents that vouch for themselves: a digit that changed on the disk is noticed when the document is read.

A seal is no signature: it finds damage and slips of an editor, not somebody who means to deceive.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollwright.contracts import RunFolderError

_SEAL, _MARK = "seal", "sealed"


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document, as JSON will give it back, with the digest of its content.

    `sealed` says that there is a seal: where one of the two is missing, the document was changed.
    """
    # Tuples become lists and keys become strings, as a reader will find them; else the digests would differ.
    plain: dict[str, Any] = json.loads(json.dumps({**document, _MARK: True}))
    return plain | {_SEAL: _seal_digest(plain)}


def seal_fault(document: Mapping[str, Any]) -> str:
    """What says that the document was changed; "" where nothing does, or where an older release wrote it unsealed."""
    if _SEAL not in document and _MARK not in document:
        return ""
    inner = {key: value for key, value in document.items() if key != _SEAL}
    if document.get(_SEAL) == _seal_digest(inner) and inner.get(_MARK) is True:
        return ""
    return "its content is not what was written (the seal does not fit)"


def _seal_digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


log = logging.getLogger(__name__)
_STATE = "state.json"
_WRITING, _REPLACED = ".writing_", ".replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint: `path` holds what the writer put there, `state` the JSON that was saved with it."""

    step: int
    path: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. `state.json` is written last; it lists every other file with size and hash, and is
    sealed itself.

    Args:
        root: the folder that holds them, one `step_000123` each.
        keep: how many of the newest stay on disk.
        is_main: whether this rank makes, completes and drops the folders; the others only write their part.
        wait: returns when every rank has called it.
    """

    def __init__(
        self, root: Path, *, keep: int = 2, is_main: bool = True, wait: Callable[[], None] = lambda: None
    ) -> None:
        self.root, self.keep, self.is_main, self.wait = root, keep, is_main, wait

    def save(self, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> Path:
        """Write one checkpoint; earlier ones are dropped only after the new one is complete. All ranks call it.

        Raises:
            RunFolderError: the disk is full or not writable; what was there before is untouched.
        """
        final = self.root / _name(step)
        beside = self.root / f"{_WRITING}{final.name}"
        try:
            if self.is_main:
                self._clear_litter()
                beside.mkdir(parents=True)
            # No rank may write before the folder is there.
            self.wait()
            write(beside)
            # Every rank's part must be there before the first one lists them with their hashes.
            self.wait()
            if self.is_main:
                _complete(beside, {"step": step, **state})
                _put_in_place(beside, final)
        except Exception as error:
            # Half a checkpoint is of no use, and takes room that may be just what is missing.
            shutil.rmtree(beside, ignore_errors=True)
            if not _is_disk_trouble(error):
                raise
            raise RunFolderError(
                f"checkpoint of step {step} could not be written to {self.root}: {error}. Earlier checkpoints are "
                "untouched; free some space and start the same command again to resume"
            ) from error
        if self.is_main:
            # Folders that are not complete are not counted, so that they never push out one that is.
            for old in list(self._by_age())[self.keep :]:
                shutil.rmtree(old.path, ignore_errors=True)
        self.wait()
        return final

    def latest(self) -> Checkpoint | None:
        """The newest complete and undamaged checkpoint, or None. What is passed over is named in a warning."""
        for found in self._by_age():
            trouble = damage(found)
            if not trouble:
                return found
            log.warning("%s is damaged, passing it over: %s", found.path, trouble)
        return None

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint that was written to its end; its files are not read."""
        return next((found.step for found in self._by_age()), None)

    def leftovers(self) -> list[str]:
        """Names of what lies here, usable or not; what a run that began anew set aside is left out."""
        return sorted(path.name for path in self.root.glob("step_*"))

    def set_aside(self) -> int:
        """Move what lies here to `superseded/`: a run that begins anew must not find a later step than its own.

        Returns:
            How many folders were moved, damaged ones included.
        """
        if not self.is_main:
            return 0
        old = sorted(self.root.glob("step_*"))
        attempt = sum(1 for _ in (self.root / "superseded").glob("*"))
        for path in old:
            aside = self.root / "superseded" / f"{attempt:04d}"
            aside.mkdir(parents=True, exist_ok=True)
            path.rename(aside / path.name)
        return len(old)

    def _by_age(self) -> Iterator[Checkpoint]:
        """Checkpoints whose writing was finished, newest first."""
        for path in sorted(self.root.glob("step_*"), reverse=True):
            try:
                yield _read(path)
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                log.warning("%s is not a complete checkpoint, passing it over: %s", path, error)

    def _clear_litter(self) -> None:
        for path in self.root.glob(f"{_WRITING}*"):  # a kill left it behind
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> Checkpoint:
    """Raises ValueError and others where the folder holds no complete checkpoint of the step that it is named after."""
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    if fault := seal_fault(state):
        raise ValueError(f"{_STATE} is damaged: {fault}")
    step = int(state["step"])
    # A kill between the two renames of `_put_in_place` leaves the earlier one under the longer name alone.
    if path.name.removesuffix(_REPLACED) != _name(step):
        raise ValueError(f"{_STATE} is that of step {step}")
    return Checkpoint(step=step, path=path, state=state)


def _name(step: int) -> str:
    return f"step_{step:06d}"


def damage(checkpoint: Checkpoint) -> str:
    """What is wrong with the files that the checkpoint lists, or an empty string."""
    # The size is compared first, as a digest has to read the whole file.
    for name, (size, digest) in checkpoint.state.get("files", {}).items():
        file = checkpoint.path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, expected {size}"
        if _digest(file) != digest:
            return f"{name} does not hold what was written to it"
    return ""


def _complete(folder: Path, state: Mapping[str, Any]) -> None:
    """Bring everything to the disk, then write the file that makes the folder a checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {}
    for file in files:
        _sync(file)
        listed[str(file.relative_to(folder))] = (file.stat().st_size, _digest(file))
    (folder / _STATE).write_text(json.dumps(sealed({**state, "files": listed})), encoding="utf-8")
    # Folders are synced too: the names of new files are their content, and may be lost with the power.
    for path in (folder / _STATE, *(p for p in folder.rglob("*") if p.is_dir()), folder):
        _sync(path)


def _put_in_place(beside: Path, final: Path) -> None:
    """Rename; one of the same step goes only after the new one stands, so that a kill in between loses neither."""
    replaced = final.with_name(f"{final.name}{_REPLACED}")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    beside.rename(final)
    # A rename is a change of the parent folder, and lasts once that is on the disk.
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _is_disk_trouble(error: BaseException) -> bool:
    """Torch and safetensors wrap a full disk into errors of their own."""
    # "unexpected pos" and "file write failed" are torch's writer, "os error 28" (ENOSPC) is safetensors', in Rust.
    signs = ("No space left", "file write failed", "unexpected pos", "Disk quota", "os error 28")
    return isinstance(error, OSError) or any(sign in str(error) for sign in signs)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
