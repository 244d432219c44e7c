"""The pictures of a store: written whole under the hash of their content, each once, beside the tables.

A store takes in what is a PNG, JPEG or WebP, is what its hash says, and is not too large. Everything else stays a name:
the turn keeps its hash, and nothing is shown of it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rollwright.contracts import MAX_PICTURE_BYTES, PICTURE_SUFFIX, Attachment, Trajectory, Turn, is_hash, picture_type

FOLDER = "attachments"
MAX_STORE_BYTES = 8_000_000_000
"""All pictures of a store together: a run that draws every screen must not fill the disk on its own."""

Warn = Callable[[str], None]


class Pictures:
    """The folder of pictures of one store. Made by the store that writes or reads them, and lives as long."""

    def __init__(self, store: Path, warn: Warn) -> None:
        self.store, self.folder, self._warn = store, store / FOLDER, warn
        self._held: int | None = None  # bytes in the folder; counted when the first picture comes

    def take_in(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories, each picture of theirs on the disk and named by its place in the store.

        Raises:
            OSError: a picture cannot be written. Those before it stay, and are found again by their hash.
        """
        return [_changed(trajectory, self._take) for trajectory in trajectories]

    def located(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory as it was stored, its pictures named by where they lie now: a store may have been moved."""
        return _changed(trajectory, self._locate)

    def _take(self, attachment: Attachment) -> Attachment:
        place = place_of(attachment)
        if not place:
            # The bytes go, the hash stays: a row says which picture was seen, whether or not it is kept.
            return replace(attachment, content=None)
        target = self.store / place
        # The name is the hash of the content, so that what is there already is the same picture.
        if not target.exists():
            content = attachment.content if attachment.content is not None else _read(attachment.path)
            if fault := self._fault(attachment, content):
                self._warn(f"{self.store}: picture {attachment.sha256[:12]} is not kept: {fault}")
                return replace(attachment, content=None)
            assert content is not None
            self._write(target, content)
        return replace(attachment, path=place, content=None)

    def _locate(self, attachment: Attachment) -> Attachment:
        place = place_of(attachment)
        # Only our own name is completed. A foreign row may name any file of this machine.
        kept = place and attachment.path == place
        return replace(attachment, path=str(self.store / place)) if kept else attachment

    def _fault(self, attachment: Attachment, content: bytes | None) -> str:
        """Why these bytes are not taken in; "" where they are."""
        if content is None:
            return "its content is nowhere to be read"
        # Before the hash: of a larger file `_read` gives only the beginning, whose hash would be the wrong reason.
        if len(content) > MAX_PICTURE_BYTES:
            return f"it has {len(content)} bytes, a picture may have {MAX_PICTURE_BYTES}"
        if hashlib.sha256(content).hexdigest() != attachment.sha256:
            return "its content has another hash"
        # The file's suffix comes from the media type: under `.png` nothing but a PNG may lie.
        if picture_type(content) != attachment.media_type:
            return f"its content is no {attachment.media_type}"
        if self._bytes_held() + len(content) > MAX_STORE_BYTES:
            return f"the pictures of a store may have {MAX_STORE_BYTES:.0e} bytes together"
        return ""

    def _bytes_held(self) -> int:
        if self._held is None:
            self._held = sum(file.stat().st_size for file in self.folder.glob("*")) if self.folder.is_dir() else 0
        return self._held

    def _write(self, target: Path, content: bytes) -> None:
        self.folder.mkdir(exist_ok=True)
        temporary = target.with_suffix(f".tmp-{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._held = self._bytes_held() + len(content)


def place_of(attachment: Attachment) -> str:
    """Where a store keeps this picture, relative to its folder; "" for what is no picture that a store keeps."""
    suffix = PICTURE_SUFFIX.get(attachment.media_type, "")
    # `is_hash` keeps a foreign row's `../..` out of the path.
    return f"{FOLDER}/{attachment.sha256}{suffix}" if suffix and is_hash(attachment.sha256) else ""


def _changed(trajectory: Trajectory, change: Callable[[Attachment], Attachment]) -> Trajectory:
    if not any(turn.attachments for turn in trajectory.turns):
        return trajectory

    def turn_of(turn: Turn) -> Turn:
        return replace(turn, attachments=tuple(map(change, turn.attachments))) if turn.attachments else turn

    return replace(trajectory, turns=tuple(map(turn_of, trajectory.turns)))


def _read(path: str | None) -> bytes | None:
    """What the file at the path holds, as much of it as a picture may have and one byte more.

    The path may be a foreign store's word: a pipe or a device is not waited for.
    """
    if path is None:
        return None
    try:
        # O_NONBLOCK: opening a pipe that nobody writes would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read(MAX_PICTURE_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):  # gone, no file, not to be read, a NUL in its name
        return None
