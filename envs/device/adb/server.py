"""Phones that real ADB clients can drive: the device's side of the transport, on loopback ports.

    python -m rollwright.envs.device.adb.server --port 5555        then: adb connect 127.0.0.1:5555

`PhoneServer` runs any number of phones, a port each, in one thread with an event loop of its own. Everything that
reaches a phone runs in that thread, one command after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from rollwright.contracts import EnvironmentUnavailable

from ..handset.simulated_phone import Phone
from . import wire
from .commands import Handset
from .services import open_service
from .wire import Channel, Service

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
Result = TypeVar("Result")


class _Stream(Channel):
    """One stream of a connection: what the service wrote and the host has not taken yet. One message is in flight."""

    def __init__(self, connection: _Connection, local: int, remote: int) -> None:
        self._connection = connection
        self.local, self.remote = local, remote
        self.service: Service | None = None
        self._waiting = bytearray()
        self._in_flight = self._finished = self._closed = False

    def write(self, data: bytes) -> None:
        self._waiting += data
        self._push()

    def finish(self) -> None:
        self._finished = True
        self._push()

    def acknowledged(self) -> None:
        self._in_flight = False
        self._push()

    def _push(self) -> None:
        if self._in_flight or self._closed:
            return
        if self._waiting:
            size = self._connection.max_payload
            piece, self._waiting = bytes(self._waiting[:size]), self._waiting[size:]
            self._in_flight = True
            self._connection.send(wire.Command.WRTE, self.local, self.remote, piece)
        elif self._finished:
            self._closed = True
            self._connection.send(wire.Command.CLSE, self.local, self.remote)
            self._connection.forget(self.local)


class _Connection(asyncio.Protocol):
    """One host's connection to one phone."""

    def __init__(self, handset: Handset, open_connections: set[_Connection]) -> None:
        self._handset = handset
        self._all = open_connections
        self._decoder = wire.Decoder()
        self._streams: dict[int, _Stream] = {}
        self._numbers = 0
        self._out: list[bytes] = []
        self._checksum = False
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self.max_payload = 4096

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        self._streams.clear()

    def abort(self) -> None:
        """Drop the host at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._socket is not None:
            wire.quick_ack(self._socket)
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except wire.WireError:
            self.abort()
            return
        if self._out and self._transport is not None:
            # One write for all answers: small ones that follow each other would wait for each other.
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def send(self, command: wire.Command, arg0: int, arg1: int, payload: bytes = b"") -> None:
        self._out.append(wire.pack(wire.Message(command, arg0, arg1, payload), checksum=self._checksum))

    def forget(self, local: int) -> None:
        self._streams.pop(local, None)

    def _take(self, message: wire.Message) -> None:
        match message.command:
            case wire.Command.CNXN:
                self._greet(message)
            case wire.Command.OPEN:
                self._open(message)
            case wire.Command.OKAY:
                if stream := self._streams.get(message.arg1):
                    stream.acknowledged()
            case wire.Command.WRTE:
                self._written(message)
            case wire.Command.CLSE:
                if self._streams.pop(message.arg1, None):
                    self.send(wire.Command.CLSE, message.arg1, message.arg0)

    def _greet(self, message: wire.Message) -> None:
        """No AUTH follows: the port is on loopback, and there is nothing here to protect."""
        self._checksum = message.arg0 < wire.VERSION
        self._streams.clear()
        self.max_payload = max(min(message.arg1, wire.MAX_PAYLOAD), 256)
        self.send(wire.Command.CNXN, wire.VERSION, wire.MAX_PAYLOAD, self._handset.banner())

    def _open(self, message: wire.Message) -> None:
        self._numbers += 1
        stream = _Stream(self, self._numbers, message.arg0)
        name = message.payload.rstrip(b"\0").decode(errors="replace")
        service = open_service(self._handset, name)
        if service is None:
            self.send(wire.Command.CLSE, 0, message.arg0)
            return
        self._streams[stream.local] = stream
        stream.service = service
        self.send(wire.Command.OKAY, stream.local, stream.remote)
        service.start(stream)

    def _written(self, message: wire.Message) -> None:
        stream = self._streams.get(message.arg1)
        if stream is None or stream.service is None:
            self.send(wire.Command.CLSE, 0, message.arg0)
            return
        self.send(wire.Command.OKAY, stream.local, stream.remote)
        stream.service.received(stream, message.payload)


@dataclass(slots=True)
class _Served:
    handset: Handset
    listener: asyncio.Server
    connections: set[_Connection]


class PhoneServer:
    """Serves phones on loopback ports until `close`.

    Raises:
        EnvironmentUnavailable: from `add`, where the port cannot be had.
    """

    def __init__(self) -> None:
        self._phones: dict[int, _Served] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="phones", daemon=True)
        self._thread.start()

    def add(self, phone: Phone | None = None, *, port: int = 0) -> int:
        """Serve a phone, a fresh one by default; the port it listens on. Port 0 takes a free one.

        While it is served, a phone belongs to the server's thread: use `call` to reach it from another.
        """
        return self._run(self._add(phone or Phone(), port))

    def remove(self, port: int) -> None:
        """Switch a phone off: its hosts lose their connections. Nothing happens where there is none."""
        served = self._phones.pop(port, None)
        if served is not None:
            self._run(_shut(served))

    def call(self, port: int, work: Callable[[Phone], Result]) -> Result:
        """What `work` gives for the phone at `port`, computed in the server's thread. Raises KeyError."""
        phone = self._phones[port].handset.phone

        async def worked() -> Result:
            return work(phone)

        return self._run(worked())

    def close(self) -> None:
        """Switch all phones off. May be called twice."""
        if self._loop.is_closed():
            return
        for port in list(self._phones):
            self.remove(port)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    async def _add(self, phone: Phone, port: int) -> int:
        connections: set[_Connection] = set()
        handset = Handset(phone=phone, serial="")
        try:
            listener = await self._loop.create_server(lambda: _Connection(handset, connections), HOST, port)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise EnvironmentUnavailable(
                f"port {port} of {HOST} {reason}; a simulated phone needs a free one: choose another, or 0 for any"
            ) from error
        bound = int(listener.sockets[0].getsockname()[1])
        handset.serial = f"{HOST}:{bound}"
        self._phones[bound] = _Served(handset, listener, connections)
        return bound


async def _shut(served: _Served) -> None:
    served.listener.close()
    for connection in list(served.connections):
        connection.abort()
    await served.listener.wait_closed()


def main() -> None:
    """Serve phones until Ctrl-C."""
    import argparse
    import random

    from ..handset.contents import base_data

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=5555, help="of the first phone; the others follow")
    parser.add_argument("--phones", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the people, appointments, files on the first phone")
    args = parser.parse_args()
    server = PhoneServer()
    try:
        for number in range(args.phones):
            setup = base_data(random.Random(args.seed + number)).setup(distractors="none", seed=args.seed + number)
            port = server.add(Phone(setup), port=args.port + number if args.port else 0)
            print(f"adb connect {HOST}:{port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    except EnvironmentUnavailable as error:
        parser.exit(1, f"{error}\n")
    finally:
        server.close()


if __name__ == "__main__":
    main()
