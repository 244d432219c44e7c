"""The files of a phone as ADB shows them: the store's under `/sdcard`, and a place of their own for the tools' files.

What clients push to `/data/local/tmp` (helpers, dumps) is no part of the phone: it is in no snapshot and in no task.
"""

from __future__ import annotations

import posixpath
import stat
from typing import NamedTuple

from ..handset.simulated_phone import Phone

SCRATCH = "/data/local/tmp"
MAX_SCRATCH_BYTES = 64 << 20
_ALIASES = ("/storage/emulated/0", "/storage/self/primary", "/mnt/sdcard", "/data/media/0")
_FIXED = {
    "/": ("data", "dev", "sdcard", "system"),
    "/data": ("local",),
    "/data/local": ("tmp",),
    "/dev": (),
    "/system": (),
}
FOLDER_MODE, FILE_MODE = stat.S_IFDIR | 0o771, stat.S_IFREG | 0o660


class Stat(NamedTuple):
    """`mode` as of stat(2), size in bytes, seconds since 1970."""

    mode: int
    size: int
    mtime: int

    @property
    def is_folder(self) -> bool:
        """Whether the mode is that of a folder."""
        return stat.S_ISDIR(self.mode)


class Files:
    """Files of one phone by path. Each phone has one; all its connections share it."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._scratch: dict[str, tuple[bytes, int]] = {}

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError, IsADirectoryError."""
        path = resolve(path)
        if path == "/dev/null":
            return b""
        if self.stat(path).is_folder:
            raise IsADirectoryError(f"{path}: Is a directory")
        return self._scratch[path][0] if path in self._scratch else self._phone.store.read_file(path)

    def write(self, path: str, data: bytes) -> None:
        """Raises FileNotFoundError (no such folder), IsADirectoryError, PermissionError, OSError (full)."""
        path = resolve(path)
        if path.startswith(SCRATCH + "/"):
            others = sum(len(old) for name, (old, _) in self._scratch.items() if name != path)
            if others + len(data) > MAX_SCRATCH_BYTES:
                raise OSError(f"{path}: No space left on device")
            self._scratch[path] = (data, self._phone.now_ms // 1000)
        elif path.startswith("/sdcard/"):
            self._phone.write_file(path, data)
        elif path in _FIXED or path == "/sdcard":
            raise IsADirectoryError(f"{path}: Is a directory")
        elif path != "/dev/null":
            raise PermissionError(f"{path}: Read-only file system")

    def stat(self, path: str) -> Stat:
        """Raises FileNotFoundError."""
        path = resolve(path)
        now = self._phone.now_ms // 1000
        if path in _FIXED or path == SCRATCH or self._phone.store.is_folder(path):
            return Stat(FOLDER_MODE, 4096, now)
        if path in self._scratch:
            data, mtime = self._scratch[path]
            return Stat(FILE_MODE, len(data), mtime)
        size, modified_ms = self._phone.store.stat_file(path)
        return Stat(FILE_MODE, size, modified_ms // 1000)

    def listing(self, path: str) -> list[str]:
        """Names directly in a folder, sorted. Raises FileNotFoundError, NotADirectoryError."""
        path = resolve(path)
        if not self.stat(path).is_folder:
            raise NotADirectoryError(f"{path}: Not a directory")
        if path in _FIXED:
            return list(_FIXED[path])
        if path == SCRATCH:
            return sorted(name[len(SCRATCH) + 1 :].partition("/")[0] for name in self._scratch)
        folders, files = self._phone.store.list_folder(path)
        return sorted([*folders, *files])

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all in it. Raises FileNotFoundError, PermissionError."""
        path = resolve(path)
        if path in self._scratch:
            del self._scratch[path]
        elif path in _FIXED or path in (SCRATCH, "/sdcard"):
            raise PermissionError(f"{path}: Permission denied")
        else:
            self._phone.store.delete_file(path)
            self._phone.invalidate()

    def make_folder(self, path: str, *, parents: bool = False) -> None:
        """Raises FileNotFoundError (no parent), FileExistsError, PermissionError."""
        path = resolve(path)
        if path.startswith(SCRATCH) or path in _FIXED:
            return
        if not path.startswith("/sdcard/"):
            raise PermissionError(f"{path}: Read-only file system")
        if parents:
            parent = posixpath.dirname(path)
            if not self._phone.store.is_folder(parent):
                self.make_folder(parent, parents=True)
            if self._phone.store.is_folder(path):
                return
        self._phone.store.make_folder(path)
        self._phone.invalidate()

    def move(self, path: str, target: str) -> None:
        """Rename a file. Raises as `read` and `write`."""
        if self.is_folder(target):
            target = posixpath.join(target, posixpath.basename(path))
        if resolve(path) != resolve(target):
            # The two paths may lie in different stores, so a move is a copy and a removal.
            self.write(target, self.read(path))
            self.remove(path)

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of that path."""
        try:
            return self.stat(path).is_folder
        except FileNotFoundError:
            return False

    def exists(self, path: str) -> bool:
        """Whether there is anything of that path."""
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True


def resolve(path: str) -> str:
    """The path by which a file is kept: absolute, without `..`, other names of the card replaced."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    for alias in _ALIASES:
        if clean == alias or clean.startswith(alias + "/"):
            return "/sdcard" + clean[len(alias) :]
    return clean
