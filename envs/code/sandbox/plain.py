"""Plain data across a process border that is not trusted: JSON with tags, never pickle.

Both sides of the box use this module; it imports nothing of the package. What arrives is built from exact built-in
types alone, so no `__eq__` or `__del__` of a stranger ever runs on the reader's side.
"""

from __future__ import annotations

import json
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any, BinaryIO

SAFE_INT = 2**53  # beyond this some JSON readers lose digits
MAX_FRAME = 64 * 2**20
MAX_BITS = 4096
"""Of a fraction's numbers, and digits of a decimal one: what is longer takes long to bring into shape."""
MAX_ALIKE = 100
"""Elements of a set, or keys of a mapping, of one hash: each is compared with all others of its hash."""


class NotPlain(ValueError):
    """The value holds something that is no plain data."""


def encode(value: Any, other: Callable[[Any], Any] | None = None) -> Any:
    """The value as JSON-ready lists, maps, numbers and text.

    Subclasses of list, tuple, dict, set, str, int and float travel as their base class; so that values which Python
    calls equal to these stay so, ranges, deques, fractions and decimal numbers travel too.

    Args:
        other: gives the encoding of whatever is no plain data; where None, such a value is an error.

    Raises:
        NotPlain: the value, or something inside it, is no plain data, or it contains itself.
    """
    try:
        return _encode(value, other)
    except RecursionError:
        raise NotPlain("the value is nested too deeply, or contains itself") from None


def _encode(value: Any, other: Callable[[Any], Any] | None) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__index__(value)
        return number if -SAFE_INT < number < SAFE_INT else {"i": hex(number)}
    if isinstance(value, float):
        real = float.__float__(value)
        return real if real - real == 0 else {"f": repr(real)}
    if isinstance(value, list):
        return [_encode(item, other) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"t": [_encode(item, other) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[_encode(k, other), _encode(v, other)] for k, v in dict.items(value)]}
    return _encode_rest(value, other)


def _encode_rest(value: Any, other: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, set):
        return {"s": _in_order(_encode(item, other) for item in set.__iter__(value))}
    if isinstance(value, frozenset):
        return {"z": _in_order(_encode(item, other) for item in frozenset.__iter__(value))}
    if isinstance(value, bytes):
        return {"b": bytes.hex(value)}
    if isinstance(value, complex):
        return {"c": [_encode(value.real, other), _encode(value.imag, other)]}
    if isinstance(value, bytearray):
        return {"y": bytes.hex(bytes(bytearray.__iter__(value)))}
    if type(value) is range:
        return {"r": [_encode(number, None) for number in (value.start, value.stop, value.step)]}
    if type(value) is deque:
        return {"q": [_encode(item, other) for item in value]}
    if type(value) is Fraction:
        return {"n": [_encode(value.numerator, None), _encode(value.denominator, None)]}
    if type(value) is Decimal and value.is_finite():
        return {"m": str(value)}
    if other is not None:
        return other(value)
    raise NotPlain(f"{type(value).__name__} is no plain data")


def _in_order(items: Any) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def decode(data: Any, other: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The inverse of `encode`.

    Args:
        other: builds what carries a tag unknown here.

    Raises:
        NotPlain: the data were not written by `encode`.
    """
    try:
        return _decode(data, other)
    except (TypeError, ValueError, LookupError, RecursionError, ArithmeticError) as error:
        raise NotPlain(f"not a value that was encoded here: {error}") from None


def _decode(data: Any, other: Callable[[dict[str, Any]], Any] | None) -> Any:
    if isinstance(data, list):
        return [_decode(item, other) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) == 1:
        ((tag, content),) = data.items()
        if tag in _TAGS:
            return _TAGS[tag](content, other)
    if other is not None:
        return other(data)
    raise NotPlain(f"unknown tag in {list(data)[:3]}")


def _keys(content: Iterable[Any], other: Callable[[dict[str, Any]], Any] | None) -> list[Any]:
    """What is to be hashed, decoded. Thousands of numbers of one hash would cost the reader minutes."""
    found = [_decode(item, other) for item in content]
    alike = Counter(hash(key) for key in found if not isinstance(key, str | bytes))  # their hashes have a secret
    if alike and max(alike.values()) > MAX_ALIKE:
        raise NotPlain(f"more than {MAX_ALIKE} keys have one hash")
    return found


def _values(content: Iterable[Any], other: Callable[[dict[str, Any]], Any] | None) -> list[Any]:
    return [_decode(value, other) for _, value in content]


def _fraction(content: Any, _: Any) -> Any:
    numbers = [_decode(number, None) for number in content]
    if any(type(number) is not int or number.bit_length() > MAX_BITS for number in numbers):
        raise NotPlain("a fraction of numbers that are too long")
    return Fraction(*numbers)


def _decimal(content: Any, _: Any) -> Any:
    if not isinstance(content, str) or len(content) > MAX_BITS:
        raise NotPlain("a decimal number that is too long")
    number = Decimal(content)
    if not number.is_finite():
        raise NotPlain("a decimal number that is none")
    return number


_TAGS: dict[str, Callable[[Any, Any], Any]] = {
    "i": lambda content, _: int(content, 16),
    "f": lambda content, _: float(content),
    "t": lambda content, other: tuple(_decode(item, other) for item in content),
    "d": lambda content, other: dict(zip(_keys((k for k, _ in content), other), _values(content, other), strict=True)),
    "s": lambda content, other: set(_keys(content, other)),
    "z": lambda content, other: frozenset(_keys(content, other)),
    "b": lambda content, _: bytes.fromhex(content),
    "c": lambda content, other: complex(_decode(content[0], other), _decode(content[1], other)),
    "y": lambda content, _: bytearray.fromhex(content),
    "r": lambda content, _: range(*[_decode(number, None) for number in content]),
    "q": lambda content, other: deque(_decode(item, other) for item in content),
    "n": _fraction,
    "m": _decimal,
}


def to_frame(message: Any) -> bytes:
    """A message as bytes: its length, then JSON. What a stranger's frame could hold can be passed on, NaN included."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return struct.pack("<I", len(body)) + body


def read_frame(stream: BinaryIO) -> Any:
    """The next message, None at the end of the stream. Blocks.

    Raises:
        NotPlain: a length without the bytes that it announces, or no JSON.
    """
    head = stream.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    if length > MAX_FRAME:
        raise NotPlain(f"a frame of {length} bytes was announced")
    return parse(stream.read(length))


def split_frames(buffer: bytearray) -> list[Any]:
    """Take the whole messages off the front of `buffer`; what is left waits for more bytes.

    Raises:
        NotPlain: the bytes are no frames.
    """
    found = []
    while len(buffer) >= 4:
        (length,) = struct.unpack_from("<I", buffer)
        if length > MAX_FRAME:
            raise NotPlain(f"a frame of {length} bytes was announced")
        if len(buffer) < 4 + length:
            break
        found.append(parse(bytes(buffer[4 : 4 + length])))
        del buffer[: 4 + length]
    return found


def parse(body: bytes) -> Any:
    """JSON from a stranger.

    Raises:
        NotPlain: it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotPlain(f"not JSON: {error}") from None
