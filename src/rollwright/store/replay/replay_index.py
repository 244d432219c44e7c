"""The index of one shard: its columns as arrays that can be memory-mapped, built once and kept. Pure of any policy."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rollwright.contracts import DataError, RunFolderError
from rollwright.store.replay.column_reading import Note, read_shard
from rollwright.store.replay.turn_columns import IDS, TRAJECTORY, TURN, Array
from rollwright.store.store_checks import TABLES
from rollwright.store.trajectory_store import TrajectoryStore

log = logging.getLogger(__name__)

# Raise it with any change of the layout or of the checks: an index of another version is built anew.
INDEX_VERSION = 6
_DTYPES = {"turns": TURN, "trajectories": TRAJECTORY, "next_ids": np.dtype(np.int32)} | IDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """Memory-mapped arrays of one shard: see `TURN` and `TRAJECTORY`; the other four have one entry per token id.

    ids: int32 prompt and action ids, turn after turn. mask: bool, an action token that somebody chose.
    logprobs: float32 of action tokens as sampled, 0 elsewhere. names: what the codes in `trajectories` stand for.
    warnings: what of the shard cannot be replayed and was left out.
    """

    turns: Array
    trajectories: Array
    ids: Array
    mask: Array
    logprobs: Array
    next_ids: Array
    names: dict[str, list[str]]
    warnings: list[str]


def open_index(store: TrajectoryStore, number: int) -> ShardIndex:
    """The index of a shard, built where it is missing, torn, or older than the shard's files.

    Where the store's folder cannot be written, it lies in the user's cache, or else among the temporary files.

    Raises:
        DataError: the shard's files are gone.
        RunFolderError: there is nowhere to write the index.
    """
    files = {table: store.folder / table / f"{number:06d}.parquet" for table in TABLES}
    # What the index was built from: sizes and times, as hashing a store's contents would take as long as reading it.
    source: dict[str, Any] = {"version": INDEX_VERSION} | {table: _stamp(path) for table, path in files.items()}
    refused: list[str] = []
    for root, name in _places(store.folder, number, source):
        try:
            # Only of the places after the store's own folder: there somebody else may have been first.
            if refused:
                _make_private(root)
            return _open_at(root / name, files, source)
        except OSError as error:
            refused.append(f"{root}: {error.strerror or error}")
            log.info("the replay index of %s is kept elsewhere, as it cannot be in %s", store.folder, refused[-1])
    raise RunFolderError(
        f"the replay index of shard {number} of {store.folder} can be written nowhere ({'; '.join(refused)}). "
        f"Free space, or name a folder of yours in XDG_CACHE_HOME"
    )


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"{path} was there when its store was opened and cannot be read now: {error.strerror}. "
            f"Open the store anew; a run that is rewound sets its later shards aside"
        ) from error
    return [status.st_size, status.st_mtime_ns]


def _places(store: Path, number: int, source: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Folders to keep the index in, the best first, and its name there: beside the shard, or a place of the user's."""
    yield store / "replay_index", f"{number:06d}"
    # The place and the stamps of both files: two stores, or a shard that was written anew, never share an entry.
    key = json.dumps([str(store.resolve()), number, source])
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(cache):  # there may be no home
        yield Path(cache) / "rollwright" / "replay_index", digest
    # With the user's number: the second user of a machine could not write into the first one's folder.
    yield Path(tempfile.gettempdir()) / f"rollwright-replay-{os.getuid()}", digest


def _make_private(root: Path) -> None:
    """Others could leave arrays of their own where anybody may write, under a name that is easily foreseen."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    # `lstat`: a link that somebody else put there would lead to a folder of theirs.
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(13, "it is not a folder that this user alone can write")


def _open_at(folder: Path, files: Mapping[str, Path], source: dict[str, Any]) -> ShardIndex:
    found = _load(folder, files, source)
    if found is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / ".lock").open("w") as lock:  # every rank of a run opens the same store at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Looked up again under the lock: the rank that had it before may have built it.
            found = _load(folder, files, source)
            if found is None:
                _build(folder, files, source)
                found = _load(folder, files, source)
    if found is None:
        raise OSError("what was written there does not read back")
    return found


def _load(folder: Path, files: Mapping[str, Path], source: dict[str, Any]) -> ShardIndex | None:
    """The index of this folder; None where it is of other files, or any part of it is missing or torn."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["source"] != source:
            return None
        # Every part is opened and compared here: a torn one is found now, and not when a batch is drawn.
        arrays = {name: _map(folder / f"{name}.npy") for name in _DTYPES}
        torn = [n for n, dtype in _DTYPES.items() if arrays[n].dtype != dtype or len(arrays[n]) != meta["lengths"][n]]
        notes = [Note(*note) for note in meta["notes"]]
        warnings = [f"{note.before}{files[note.table]}{note.after}" for note in notes]
        return None if torn else ShardIndex(**arrays, names=meta["names"], warnings=warnings)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError):  # it is derived: built anew
        return None


def _map(path: Path) -> Array:
    # As a plain array: `np.memmap` is a subclass that costs microseconds at each access.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _build(folder: Path, files: Mapping[str, Path], source: dict[str, Any]) -> None:
    """Write the index beside its place and rename it: readers see all of it or nothing. Under the lock."""
    for left in folder.parent.glob(f"{folder.name}.tmp-*"):  # by a process that was killed: who builds holds the lock
        shutil.rmtree(left, ignore_errors=True)
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    temporary.mkdir()
    try:
        _write(temporary, files, source)
        # A folder cannot be renamed onto one that is not empty; readers keep the files that they have mapped.
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(folder: Path, files: Mapping[str, Path], source: dict[str, Any]) -> None:
    arrays, names, notes = read_shard(files)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    lengths = {name: len(array) for name, array in arrays.items()}
    meta = {"source": source, "names": names, "lengths": lengths, "notes": notes}
    # Last: without it an index does not count.
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
