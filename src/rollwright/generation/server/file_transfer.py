"""Weight transport "file", both ends: the learner writes safetensors shards, a server on the same host reads them.

`register` is the entry point of the group `vllm.general_plugins`: every process of vLLM calls it before it builds
anything, so it imports next to nothing. The receiving class stands in `file_receiver`.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BACKEND = "rollwright_file"
_PREFIX = "rollwright-weights-"
_NEW_S = 60.0  # seconds in which a run has surely locked the folder that it made
_SHARED_MEMORY = Path("/dev/shm")  # a file system in memory


def register() -> None:
    """Tell vLLM of the backend. Called once in each of its processes, sometimes twice."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    # vLLM raises ValueError at the second registration of a name.
    if BACKEND not in WeightTransferEngineFactory._registry:
        # Named by text: its module imports much, and most of vLLM's processes never need it.
        WeightTransferEngineFactory.register_engine(
            BACKEND, "rollwright.generation.server.file_receiver", "FileReceiver"
        )


@dataclass(kw_only=True)
class WeightFiles:
    """Where the current weights lie. One per run; kept until the next version, for a server that has to be restarted.

    Args:
        folder: where to make a folder of our own; None takes shared memory where the system has it.
        dtype: name of the torch dtype the servers compute in; the files hold that.
        shard_bytes: a file is closed when it holds this much, which bounds the copy in memory.
    """

    folder: Path | None = None
    dtype: str = "float32"
    shard_bytes: int = 2**30
    _own: Path | None = field(default=None, init=False)
    _lock: IO[bytes] | None = field(default=None, init=False)

    @property
    def own(self) -> Path:
        """The folder made for this run, readable by this user alone."""
        if self._own is None:
            parent = self.folder or (_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._own = Path(mkdtemp(prefix=_PREFIX, dir=parent))
            self._lock = lock(self._own)
            # After the lock: flock refuses a second lock even to the process that holds the first, so our folder stays.
            sweep(self._own.parent)
        return self._own

    def write(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> list[Path]:
        """Write every tensor; returns the shards in order. A second write of a version replaces the first."""
        import torch

        dtype = getattr(torch, self.dtype)
        target = self.own / f"version-{version}"
        # Shards of an earlier write of this version must not be left among the new ones.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        paths: list[Path] = []
        shard: dict[str, Tensor] = {}
        size = 0
        for name, value in weights:
            # A copy: under ZeRO-3 the tensor is released as soon as the next one is asked for.
            shard[name] = value.detach().to(device="cpu", dtype=dtype, copy=True).contiguous()
            size += shard[name].nbytes
            if size >= self.shard_bytes:
                paths.append(self._save(shard, target / f"{len(paths):05d}.safetensors"))
                shard, size = {}, 0
        if shard:
            paths.append(self._save(shard, target / f"{len(paths):05d}.safetensors"))
        return paths

    def forget_all_but(self, version: int) -> None:
        """Delete the files of other versions: no server reads them any more."""
        for folder in self.own.glob("version-*"):
            if folder.name != f"version-{version}":
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Delete everything written. Idempotent."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _save(self, shard: dict[str, Tensor], path: Path) -> Path:
        from safetensors.torch import save_file

        save_file(shard, path)
        return path


def sweep(parent: Path) -> None:
    """Delete the folders of runs that were killed: they would fill the memory. A living run holds its folder's lock."""
    for folder in parent.glob(f"{_PREFIX}*"):
        if time.time() - folder.stat().st_mtime < _NEW_S:  # its run may not have locked it yet
            continue
        try:
            held = lock(folder)
        except OSError:  # it is in use, or another user's
            continue
        shutil.rmtree(folder, ignore_errors=True)
        held.close()  # only now: another run that sweeps must not find the folder free


def lock(folder: Path) -> IO[bytes]:
    """The folder's lock, held until the file is closed or the process ends.

    Raises:
        OSError: somebody else holds it.
    """
    file = (folder / "lock").open("ab")
    try:
        # The kernel lets go of it when the process dies, however it dies: a lock file's existence would not tell.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
