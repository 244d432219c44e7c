"""Members of a zip file, one at a time and bounded: stored, deflated, or Zstandard (method 93).

Python's `zipfile` reads Zstandard only from 3.14 on, and trusts the sizes that an archive states. Here the compressed
bytes are found through the directory of the archive and unpacked up to a limit. Nothing is written to disk, so a
member's name can point nowhere.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from types import TracebackType
from typing import Self

from rollwright.contracts import DataError, MissingDependency

MAX_MEMBERS = 500_000
MAX_MEMBER_BYTES = 128 << 20
"""Unpacked. The JSON of one sample, images included, is usually below 1 MiB."""
MAX_ARCHIVE_BYTES = 32 << 30
"""All members together, unpacked. They are held one at a time; this bounds the time."""

# 30 bytes: the signature, 22 bytes that the directory states as well, the lengths of the name and of the extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class BoundedArchive:
    """A zip file opened for reading. Made by a reader of logs for the length of one `with`.

    Args:
        path: the file.

    Raises:
        DataError: not a zip file, or one that says it is larger than any log.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        # zipfile raises NotImplementedError for a version of the format that it does not know.
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} is not a zip file, as an `.eval` log is: {error}") from error
        self._members = {info.filename: info for info in self._archive.infolist()}
        self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    @property
    def names(self) -> list[str]:
        """Of the members, in the order of the archive."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """The content of one member.

        Raises:
            DataError: no such member, or one that is damaged, encrypted, too large, or larger than it states.
            MissingDependency: the member is Zstandard and no decoder is installed.
        """
        info = self._members.get(name)
        if info is None:
            raise DataError(f"{self.path} holds no {name}")
        # Bit 0 of the flags marks an encrypted member.
        if info.flag_bits & 1:
            raise DataError(f"{self.path}: {name[:200]} is encrypted; no log is")
        content = self._unpack(info)
        # `zipfile` checks these only for what it unpacks itself.
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise DataError(f"{self.path}: {name[:200]} is damaged: its size or checksum is not the one stated")
        return content

    def _check(self) -> None:
        infos = self._archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise DataError(f"{self.path} has {len(infos):,} members; at most {MAX_MEMBERS:,} are read")
        # `_members` holds one entry per name.
        if len(self._members) < len(infos):
            raise DataError(f"{self.path} holds two members of one name; which of them counts cannot be said")
        packed, unpacked = sum(info.compress_size for info in infos), sum(info.file_size for info in infos)
        # Members that share their compressed bytes are how a small file unpacks to terabytes.
        if packed > (self._archive.fp.seek(0, io.SEEK_END) if self._archive.fp else 0):
            raise DataError(f"{self.path} is damaged: its members together are larger than the file")
        if unpacked > MAX_ARCHIVE_BYTES:
            raise DataError(f"{self.path} unpacks to {unpacked >> 30} GiB; at most {MAX_ARCHIVE_BYTES >> 30} are read")

    def _unpack(self, info: zipfile.ZipInfo) -> bytes:
        if info.file_size > MAX_MEMBER_BYTES or info.compress_size > MAX_MEMBER_BYTES:
            raise DataError(
                f"{self.path}: {info.filename[:200]} unpacks to {info.file_size >> 20} MiB; at most "
                f"{MAX_MEMBER_BYTES >> 20} MiB of one sample are read. Log without images, or export a CSV of scores"
            )
        packed = self._packed(info)
        try:
            # Numbers of the zip format: 0 stored, 8 deflated, 93 Zstandard.
            match info.compress_type:
                case 0:
                    return packed
                case 8:
                    # Negative means raw deflate, as zip holds it, without a header of zlib. One byte more than stated
                    # shows a member that is larger, without unpacking all of it.
                    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, info.file_size + 1)
                case 93:
                    return _unpack_zstandard(packed, info.file_size + 1, self.path)
        except (zlib.error, ValueError) as error:
            raise DataError(f"{self.path}: {info.filename[:200]} is damaged: {error}") from error
        raise DataError(f"{self.path}: {info.filename[:200]} is packed by method {info.compress_type}, which no log is")

    def _packed(self, info: zipfile.ZipInfo) -> bytes:
        file = self._archive.fp
        assert file is not None, "the archive is open inside the `with`"
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise DataError(f"{self.path}: {info.filename[:200]} is not where the archive says it is")
        # The extra field may be longer here than in the directory, so these lengths count.
        _, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        file.seek(name_size + extra_size, io.SEEK_CUR)
        return file.read(info.compress_size)


def _unpack_zstandard(packed: bytes, most: int, path: str) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise MissingDependency(
            f"{path} is packed with Zstandard, which needs the package `zstandard`: pip install 'rollwright[eval]'. "
            "Or convert the log with inspect_ai: inspect log convert --to json"
        ) from None
    try:
        # A frame may ask for a window of any size, which is memory; 128 MiB are enough for one member.
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as reader:
            return bytes(reader.read(most))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
