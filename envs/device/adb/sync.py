"""`sync:`, ADB's service for files: STAT, LSTAT/STAT v2, LIST v1 and v2, SEND, RECV."""

from __future__ import annotations

import struct

from .phone_files import Files, Stat
from .wire import Channel

PIECE = 64 << 10
"""Bytes in one DATA block, the most that clients take."""
MAX_PATH, MAX_FILE = 1024, 64 << 20
_HEAD = struct.Struct("<4sI")
STAT_1 = struct.Struct("<4sIII")
STAT_2 = struct.Struct("<4sIQQIIIIQqqq")
ENTRY_1, ENTRY_2 = struct.Struct("<4sIIII"), struct.Struct("<4sIQQIIIIQqqqI")
_ENOENT = 2


class SyncService:
    """One sync stream: requests one after another until QUIT."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._buffer = bytearray()
        self._path = ""
        self._content: bytearray | None = None

    def start(self, channel: Channel) -> None:
        """The host speaks first."""

    def received(self, channel: Channel, data: bytes) -> None:
        """Collect requests, and answer each one that is complete."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            name, length = _HEAD.unpack_from(self._buffer)
            # DONE carries a time where the others carry a length.
            size = 0 if name == b"DONE" else length
            if size > max(PIECE, MAX_PATH):
                _fail(channel, f"a block of {size} bytes is too long")
                channel.finish()
                return
            if len(self._buffer) < _HEAD.size + size:
                return
            body = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
            del self._buffer[: _HEAD.size + size]
            self._request(channel, name, body)

    def _request(self, channel: Channel, name: bytes, body: bytes) -> None:
        path = body.decode(errors="replace")
        match name:
            case b"STAT":
                found = self._stat(path) or Stat(0, 0, 0)
                channel.write(STAT_1.pack(b"STAT", *found))
            case b"STA2" | b"LST2":
                channel.write(self._stat_2(name, path))
            case b"LIST" | b"LIS2":
                self._list(channel, path, second=name == b"LIS2")
            case b"RECV":
                self._receive(channel, path)
            case b"SEND":
                self._path, self._content = path.rpartition(",")[0] or path, bytearray()
            case b"DATA" if self._content is not None:
                if len(self._content) <= MAX_FILE:
                    self._content += body
            case b"DONE" if self._content is not None:
                self._store(channel)
            case b"QUIT":
                channel.finish()
            case _:
                _fail(channel, f"unknown request {name!r}")
                channel.finish()

    def _stat(self, path: str) -> Stat | None:
        try:
            return self._files.stat(path)
        except FileNotFoundError:
            return None

    def _stat_2(self, name: bytes, path: str) -> bytes:
        found = self._stat(path)
        if found is None:
            return STAT_2.pack(name, _ENOENT, *[0] * 10)
        return STAT_2.pack(name, 0, 1, 1, found.mode, 1, 0, 0, found.size, *[found.mtime] * 3)

    def _list(self, channel: Channel, path: str, *, second: bool) -> None:
        try:
            names = self._files.listing(path)
        except OSError:
            names = []
        for name in names:
            found, shown = self._stat(f"{path}/{name}") or Stat(0, 0, 0), name.encode(errors="replace")
            if second:
                times = [found.mtime] * 3
                head = ENTRY_2.pack(b"DNT2", 0, 1, 1, found.mode, 1, 0, 0, found.size, *times, len(shown))
            else:
                head = ENTRY_1.pack(b"DENT", *found, len(shown))
            channel.write(head + shown)
        last = ENTRY_2.pack(b"DONE", *[0] * 12) if second else ENTRY_1.pack(b"DONE", 0, 0, 0, 0)
        channel.write(last)

    def _receive(self, channel: Channel, path: str) -> None:
        try:
            data = self._files.read(path)
        except OSError as error:
            _fail(channel, str(error).rpartition(": ")[2])
            return
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            channel.write(_HEAD.pack(b"DATA", len(piece)) + piece)
        channel.write(_HEAD.pack(b"DONE", 0))

    def _store(self, channel: Channel) -> None:
        content, self._content = self._content or bytearray(), None
        try:
            if len(content) > MAX_FILE:
                raise OSError(f"{self._path}: File too large")
            folder = self._path.rpartition("/")[0]
            if folder.startswith("/sdcard/") and not self._files.exists(folder):
                self._files.make_folder(folder, parents=True)
            self._files.write(self._path, bytes(content))
        except OSError as error:
            _fail(channel, str(error))
            return
        channel.write(_HEAD.pack(b"OKAY", 0))


def _fail(channel: Channel, message: str) -> None:
    shown = message.encode(errors="replace")
    channel.write(_HEAD.pack(b"FAIL", len(shown)) + shown)
