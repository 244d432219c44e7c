"""ADB's transport on the wire: messages of 24 bytes and a payload, and the packets of the second shell protocol.

Used by both sides: the simulated phone's server and the direct client. Pure functions and decoders, no sockets.

Source: the protocol as `adb` 1.0.41 speaks it (version 0x01000001: payload checksums are not looked at).
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import NamedTuple, Protocol

VERSION, OLD_VERSION = 0x01000001, 0x01000000
MAX_PAYLOAD = 1 << 20
"""Bytes of one message's payload that we take; the other side may ask for less."""
SHELL_STDIN, SHELL_STDOUT, SHELL_STDERR, SHELL_EXIT, SHELL_CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<6I")
_PACKET = struct.Struct("<BI")


def _number(name: bytes) -> int:
    return int.from_bytes(name, "little")


class Command(IntEnum):
    """What a message is. `arg0` and `arg1`: version and payload limit of CNXN, else the sender's and the receiver's
    number of the stream."""

    CNXN = _number(b"CNXN")
    AUTH = _number(b"AUTH")
    STLS = _number(b"STLS")
    OPEN = _number(b"OPEN")
    OKAY = _number(b"OKAY")
    WRTE = _number(b"WRTE")
    CLSE = _number(b"CLSE")


class Channel(Protocol):
    """The phone's end of a stream."""

    def write(self, data: bytes) -> None:
        """Send bytes to the host."""
        ...

    def finish(self) -> None:
        """Close the stream once the host has taken all that was written."""
        ...


class Service(Protocol):
    """What answers on one stream."""

    def start(self, channel: Channel) -> None:
        """The stream is open; a service that speaks first writes now."""
        ...

    def received(self, channel: Channel, data: bytes) -> None:
        """The host wrote bytes: any number of them, wherever they were cut."""
        ...


class WireError(ValueError):
    """The other side does not speak ADB's transport."""


class Message(NamedTuple):
    """One message of the transport. What the two arguments mean depends on the command."""

    command: Command
    arg0: int
    arg1: int
    payload: bytes = b""


def pack(message: Message, *, checksum: bool = False) -> bytes:
    """The bytes of a message; only peers older than `VERSION` look at the checksum, which costs time."""
    command, arg0, arg1, payload = message
    total = sum(payload) & 0xFFFFFFFF if checksum else 0
    return _HEADER.pack(command, arg0, arg1, len(payload), total, command ^ 0xFFFFFFFF) + payload


class Decoder:
    """Messages out of a stream of bytes. One per connection and direction."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now.

        Raises:
            WireError: these bytes are no message, or one larger than `MAX_PAYLOAD`.
        """
        self._buffer += data
        found = []
        while len(self._buffer) >= _HEADER.size:
            command, arg0, arg1, length, _, magic = _HEADER.unpack_from(self._buffer)
            if magic != command ^ 0xFFFFFFFF or length > MAX_PAYLOAD:
                raise WireError(f"no ADB message starts with {bytes(self._buffer[:24])!r}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            try:
                found.append(Message(Command(command), arg0, arg1, payload))
            except ValueError as error:
                raise WireError(f"ADB has no message {command:#x}") from error
        return found


def shell_packet(kind: int, data: bytes) -> bytes:
    """One packet of a `shell,v2` stream; the data of SHELL_EXIT is the exit code as one byte."""
    return _PACKET.pack(kind, len(data)) + data


class PacketDecoder:
    """Packets out of the bytes of a `shell,v2` stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The packets that are complete now: kind and data."""
        self._buffer += data
        found = []
        while len(self._buffer) >= _PACKET.size:
            kind, length = _PACKET.unpack_from(self._buffer)
            end = _PACKET.size + length
            if len(self._buffer) < end:
                break
            found.append((kind, bytes(self._buffer[_PACKET.size : end])))
            del self._buffer[:end]
        return found


def quick_ack(sock: socket.socket) -> None:
    """Acknowledge at once what was just read.

    Both sides write in small pieces; with delayed acknowledgements (Linux clears this after every read) a command
    takes 44 ms instead of 0.3.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
