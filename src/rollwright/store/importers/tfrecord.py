"""TFRecord files of `tf.train.Example`, without TensorFlow: each record becomes a map of lists.

A record is its length (8 bytes), a checksum, the bytes, a checksum. An Example is Features (field 1) of map entries
(field 1): a name (1) and a Feature (2), which is a list of bytes (1), floats (2) or whole numbers (3).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

from rollwright.store.importers.log_records import LogRow, RowError

# A damaged length may claim any number of bytes, and `read` would try to get them.
MAX_RECORD = 256 * 2**20
Field = tuple[int, Any]


def tfrecord_rows(file: IO[bytes], prefix: str) -> Iterator[LogRow]:
    """Every record; the file is given up at the first that is torn. Checksums (masked CRC-32C) are not computed."""
    number = 0
    try:
        while head := file.read(12):
            number += 1
            if len(head) < 12 or (length := struct.unpack("<Q", head[:8])[0]) > MAX_RECORD:
                raise EOFError("no record begins here")
            body = file.read(length)
            # The length says where the next record begins: after a torn one there is none to be found.
            if len(body) < length or len(file.read(4)) < 4:
                raise EOFError("a record ends early")
            yield _row(body, f"{prefix}record {number}")
    except (OSError, EOFError, zlib.error) as error:
        yield LogRow(place=f"{prefix}record {number}", bad=RowError("the file is damaged from here on", error))


def _row(body: bytes, place: str) -> LogRow:
    try:
        return LogRow(place=place, value=example(body))
    except (ValueError, IndexError, struct.error) as error:
        return LogRow(place=place, bad=RowError("the record is no tf.train.Example", error))


def example(body: bytes) -> dict[str, list[Any]]:
    """The features of one Example.

    Raises:
        ValueError, IndexError, struct.error: it is none.
    """
    found: dict[str, list[Any]] = {}
    for features in _of(body, 1):
        for entry in _of(features, 1):
            # Of a field that occurs twice the last counts, as in Protocol Buffers; an empty value may be absent.
            parts = dict(_fields(entry))
            found[_bytes(parts[1]).decode("utf-8")] = _feature(_bytes(parts.get(2, b"")))
    return found


def _feature(body: bytes) -> list[Any]:
    values: list[Any] = []
    for kind, packed in _fields(body):
        # Each of the three lists has its values in field 1.
        for number, value in _fields(_bytes(packed)):
            if number != 1 or kind not in (1, 2, 3):
                raise ValueError(f"a list of kind {kind}")
            values += _listed(kind, value)
    return values


def _listed(kind: int, value: Any) -> list[Any]:
    if kind == 1:
        return [_bytes(value)]
    if kind == 2:
        # Packed or one by one (4 bytes of wire type 5): both unpack alike.
        return list(struct.unpack(f"<{len(value) // 4}f", value))
    # A whole number that was written one by one, not packed.
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _signed(number: int) -> int:
    # int64 is written as its two's complement, a negative one in ten bytes.
    return number - (1 << 64) if number >> 63 else number


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes should be")
    return value


def _of(body: bytes, field: int) -> Iterator[bytes]:
    return (_bytes(value) for number, value in _fields(body) if number == field)


def _fields(body: bytes) -> Iterator[Field]:
    """(number, value) of each field of a message: whole numbers, or the bytes of the others."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        # 0: varint, 1: 8 bytes, 2: a length and so many bytes, 5: 4 bytes. Groups (3, 4) are out of use.
        wire = tag & 7
        if wire == 0:
            value, at = _varint(body, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            length, at = _varint(body, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        # A slice beyond the end would come back short without an error.
        if at + length > len(body):
            raise ValueError("a field ends beyond its message")
        yield tag >> 3, body[at : at + length]
        at += length


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")
