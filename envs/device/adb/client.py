"""Ways to a phone over ADB: straight to its port, or through the adb server as real phones need it.

`DirectLink` speaks the transport itself: no `adb` program, no server, a third of a millisecond a command. It knows no
AUTH, so it is for simulated phones. `ServerLink` goes through the adb server with `adbutils`, by serial.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from rollwright.contracts import EnvironmentFault, EnvironmentUnavailable, MissingDependency

from . import wire

ADB_PORT = 5037
_HEAD = struct.Struct("<4sI")
_ENTRY = struct.Struct("<4sIIII")


class Answer(NamedTuple):
    """What a command wrote, and its exit code."""

    out: bytes
    err: bytes
    code: int


class Link(Protocol):
    """A connection to one phone. All methods raise EnvironmentFault where the phone is gone."""

    def shell(self, line: str) -> Answer:
        """Run a line in the phone's shell."""
        ...

    def pull(self, path: str) -> bytes | None:
        """A file's content; None where there is none."""
        ...

    def push(self, path: str, data: bytes) -> None:
        """Write a file on the phone."""
        ...

    def files(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; empty where there is none."""
        ...

    def close(self) -> None:
        """Hang up. May be called twice."""
        ...


class DirectLink:
    """Straight to a simulated phone's port. One command at a time.

    Raises:
        EnvironmentFault: nothing listens there, or what listens does not speak ADB's transport or wants AUTH.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", *, timeout_s: float = 60.0) -> None:
        self._name = f"{host}:{port}"
        self._decoder = wire.Decoder()
        self._numbers = 0
        self._ready: list[wire.Message] = []
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
        except OSError as error:
            raise EnvironmentFault(f"no phone answers at {self._name} ({error}); is it switched on?") from error
        # A command is a few small messages, and each side waits for the other: none of them may be held back.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(wire.Message(wire.Command.CNXN, wire.VERSION, wire.MAX_PAYLOAD, b"host::features=shell_v2"))
        answer = self._next()
        if answer.command != wire.Command.CNXN:
            self.close()
            raise EnvironmentFault(
                f"the phone at {self._name} wants {answer.command.name}: real phones are reached by serial through adb"
            )
        self._room = answer.arg1

    def shell(self, line: str) -> Answer:
        """Run a line in the phone's shell."""
        out, err = bytearray(), bytearray()
        packets = wire.PacketDecoder()
        with self._stream(f"shell,v2,raw:{line}") as stream:
            while (data := stream.read()) is not None:
                for kind, content in packets.feed(data):
                    if kind == wire.SHELL_EXIT:
                        return Answer(bytes(out), bytes(err), content[0])
                    (out if kind == wire.SHELL_STDOUT else err).extend(content)
        raise EnvironmentFault(f"the phone at {self._name} ended {line[:80]!r} without an exit code")

    def pull(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        found = bytearray()
        with self._stream("sync:") as stream:
            stream.write(_request(b"RECV", path.encode(errors="replace")))
            while True:
                kind, size = _HEAD.unpack(stream.exactly(_HEAD.size))
                if kind == b"FAIL":
                    stream.exactly(size)
                    return None
                if kind == b"DONE":
                    return bytes(found)
                found += stream.exactly(size)

    def push(self, path: str, data: bytes) -> None:
        """Write a file on the phone."""
        with self._stream("sync:") as stream:
            blocks = [_request(b"SEND", f"{path},{stat.S_IFREG | 0o660}".encode())]
            blocks += [_request(b"DATA", data[at : at + (64 << 10)]) for at in range(0, len(data), 64 << 10)]
            stream.write(b"".join([*blocks, _HEAD.pack(b"DONE", 0)]))
            kind, size = _HEAD.unpack(stream.exactly(_HEAD.size))
            if kind != b"OKAY":
                reason = stream.exactly(size).decode(errors="replace")
                raise EnvironmentFault(f"the phone at {self._name} did not take {path}: {reason}")

    def files(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted."""
        names: list[str] = []
        with self._stream("sync:") as stream:
            stream.write(_request(b"LIST", folder.encode(errors="replace")))
            while True:
                kind, mode, _, _, length = _ENTRY.unpack(stream.exactly(_ENTRY.size))
                if kind == b"DONE":
                    return sorted(names)
                name = stream.exactly(length).decode(errors="replace")
                if stat.S_ISREG(mode):
                    names.append(name)

    def close(self) -> None:
        """May be called twice."""
        self._socket.close()

    def _stream(self, service: str) -> _ClientStream:
        self._numbers += 1
        payload = service.encode(errors="replace").replace(b"\0", b"?") + b"\0"
        if len(payload) > self._room:
            raise EnvironmentFault(f"a command of {len(payload)} bytes is too long for the phone at {self._name}")
        self._send(wire.Message(wire.Command.OPEN, self._numbers, 0, payload))
        return _ClientStream(self, self._numbers, service)

    def _send(self, *messages: wire.Message) -> None:
        try:
            self._socket.sendall(b"".join(wire.pack(message) for message in messages))
        except OSError as error:
            raise EnvironmentFault(f"the phone at {self._name} is gone: {error}") from error

    def _next(self) -> wire.Message:
        while not self._ready:
            try:
                data = self._socket.recv(1 << 18)
                if data:
                    wire.quick_ack(self._socket)
            except OSError as error:
                raise EnvironmentFault(f"the phone at {self._name} does not answer: {error}") from error
            if not data:
                raise EnvironmentFault(f"the phone at {self._name} closed the connection: it was switched off")
            try:
                self._ready = self._decoder.feed(data)
            except wire.WireError as error:
                raise EnvironmentFault(f"what listens at {self._name} is no phone: {error}") from error
        return self._ready.pop(0)


class _ClientStream:
    """One stream of a `DirectLink`, to be used with `with`. Messages of streams that were left are passed over."""

    def __init__(self, link: DirectLink, local: int, service: str) -> None:
        self._link, self._local, self._service = link, local, service
        self._remote = 0
        self._unread = bytearray()
        self._writable = False
        self._open = True

    def __enter__(self) -> _ClientStream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open and self._remote:
            with contextlib.suppress(EnvironmentFault):
                self._link._send(wire.Message(wire.Command.CLSE, self._local, self._remote))

    def read(self) -> bytes | None:
        """What came next; None once the phone has closed the stream."""
        while self._open:
            message = self._link._next()
            # It belongs to a stream that was left before the phone had ended it.
            if message.arg1 != self._local:
                continue
            if message.command == wire.Command.WRTE:
                self._link._send(wire.Message(wire.Command.OKAY, self._local, message.arg0))
                return message.payload
            self._other(message)
        return None

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self._unread) < size:
            data = self.read()
            if data is None:
                raise EnvironmentFault(f"the phone closed {self._service!r} in the middle of an answer")
            self._unread += data
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    def write(self, data: bytes) -> None:
        """Write all, one message in flight at a time."""
        room = min(self._link._room, wire.MAX_PAYLOAD)
        for at in range(0, len(data), room):
            self._await_room()
            self._writable = False
            self._link._send(wire.Message(wire.Command.WRTE, self._local, self._remote, data[at : at + room]))
        self._await_room()

    def _await_room(self) -> None:
        while not self._writable:
            if not self._open:
                raise EnvironmentFault(f"the phone closed {self._service!r} while it was written to")
            message = self._link._next()
            if message.arg1 == self._local:
                if message.command == wire.Command.WRTE:
                    # What the phone says while it is written to, such as an early FAIL, is kept for `exactly`.
                    self._link._send(wire.Message(wire.Command.OKAY, self._local, message.arg0))
                    self._unread += message.payload
                self._other(message)

    def _other(self, message: wire.Message) -> None:
        if message.command == wire.Command.OKAY:
            self._remote, self._writable = message.arg0, True
        elif message.command == wire.Command.CLSE:
            self._open = False
            if not self._remote:
                raise EnvironmentFault(f"the phone has no service {self._service[:80]!r}")


def _request(name: bytes, body: bytes) -> bytes:
    return _HEAD.pack(name, len(body)) + body


class ServerLink:
    """Through the adb server, by serial: real phones, emulators, and simulated phones after `adb connect`.

    Args:
        serial: as `adb devices` shows it; `host:port` is connected first.
        port: of the adb server; None takes ANDROID_ADB_SERVER_PORT or 5037. A server is started where none runs.

    Raises:
        MissingDependency: `adbutils`, or the program `adb` where a server has to be started, is not there.
        EnvironmentUnavailable: the server cannot be started, or has no such phone.
    """

    def __init__(self, serial: str, *, port: int | None = None, timeout_s: float = 60.0) -> None:
        try:
            import adbutils
        except ImportError as error:
            raise MissingDependency("phones by serial need adbutils: pip install rollwright[device]") from error
        self._serial, self._timeout_s = serial, timeout_s
        chosen = port if port is not None else int(os.environ.get("ANDROID_ADB_SERVER_PORT", ADB_PORT))
        self._port = chosen
        ensure_server(chosen)
        self._errors: tuple[type[Exception], ...] = (adbutils.AdbError, OSError)
        client = adbutils.AdbClient(host="127.0.0.1", port=chosen, socket_timeout=timeout_s)
        try:
            if ":" in serial:
                client.connect(serial, timeout=timeout_s)
            states = {found.serial: found.state for found in client.list()}
        except self._errors as error:
            raise EnvironmentUnavailable(f"the adb server at port {chosen} cannot reach {serial}: {error}") from error
        if states.get(serial) != "device":
            listed = ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"
            raise EnvironmentUnavailable(
                f"adb has no phone {serial!r} that is ready; there are: {listed}. "
                "Allow USB debugging on the phone, and see `adb devices`"
            )
        self._device: Any = client.device(serial=serial)

    def shell(self, line: str) -> Answer:
        """Run a line in the phone's shell."""
        found = self._asked(lambda: self._device.shell2(line, encoding=None, v2=True, timeout=self._timeout_s))
        return Answer(found.stdout, found.stderr, found.returncode)

    def pull(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        if not stat.S_ISREG(self._asked(lambda: self._device.sync.stat(path)).mode):
            return None
        return bytes(self._asked(lambda: self._device.sync.read_bytes(path)))

    def push(self, path: str, data: bytes) -> None:
        """Write a file on the phone."""
        self._asked(lambda: self._device.sync.push(data, path))

    def files(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted."""
        found = self._asked(lambda: self._device.sync.list(folder))
        return sorted(entry.path for entry in found if stat.S_ISREG(entry.mode))

    def close(self) -> None:
        """Each command has a connection of its own, so nothing is held."""

    def _asked(self, question: Callable[[], Any]) -> Any:
        """The answer. A server that died is not started again here: phones would have to be connected anew."""
        if not _listens(self._port):
            raise EnvironmentFault(f"the adb server at port {self._port} is gone, and {self._serial} with it")
        try:
            return question()
        except self._errors as error:
            raise EnvironmentFault(f"the phone {self._serial} cannot be reached through adb: {error}") from error


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False


def ensure_server(port: int) -> None:
    """Start the adb server at a port of loopback, if none runs there.

    Raises:
        MissingDependency: there is no program `adb`.
        EnvironmentUnavailable: it does not start.
    """
    if _listens(port):
        return
    program = shutil.which("adb")
    if program is None:
        raise MissingDependency(
            f"no adb server runs at port {port} and there is no program adb to start one: apt-get install adb"
        )
    try:
        ended = subprocess.run([program, "-P", str(port), "start-server"], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnavailable(f"`adb -P {port} start-server` did not end within 60 s") from error
    if ended.returncode:
        raise EnvironmentUnavailable(f"`adb -P {port} start-server` failed: {ended.stderr.strip()[-500:]}")
