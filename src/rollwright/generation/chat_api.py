"""A small client of endpoints that speak OpenAI's `/v1/chat/completions`: deadline, retries, bounded concurrency."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from typing import Any
from urllib.parse import urlsplit

from rollwright.config import redact
from rollwright.contracts import ConfigError, Message, RollwrightError

log = logging.getLogger(__name__)
_MOST_BYTES = 4 << 20  # an answer is held in memory whole: a server that never stops sending must not fill it
_TRANSIENT = (408, 409, 425, 429)  # below 500, these alone ask for another try; any other status is final


class ChatFailure(RollwrightError):
    """The endpoint gave no answer that could be read, after every retry."""


class _Passing(Exception):
    """A failure that may be over at the next try; `wait_s` where the endpoint said when."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key belongs to the endpoint that was named: it is not carried elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _left(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        TimeoutError: there are none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the answer did not end in time")
    return left


class _Incoming(RawIOBase):
    """What a socket receives until the deadline. A socket's own time-out starts again with every byte that drips in."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline
        # It counts as a user of the socket: urllib closes the connection before the body is read, and the socket stays
        # open until this is closed too.
        self._plain = connected.makefile("rb", buffering=0)

    def makefile(self, *_: object) -> BufferedReader:
        """All that a response asks of a socket."""
        return BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._deadline))
        return self._plain.readinto(buffer)

    def close(self) -> None:
        self._plain.close()
        super().close()


class _Connection(HTTPConnection):
    """Its `timeout` is for everything together: connecting, sending, and the answer's last byte.

    Only the look-up of the host's name cannot be cut short: the system has a limit of its own.
    """

    def connect(self) -> None:
        self._deadline = time.monotonic() + (self.timeout or 0.0)
        self._create_connection = self._reach  # the hook by which http.client opens its socket
        super().connect()
        # For TLS this runs before the handshake, which Python bounds as a whole by the socket's time-out.
        self.sock.settimeout(_left(self._deadline))

    def _reach(self, address: tuple[str, int], *unused: object) -> socket.socket:
        """The first of the host's addresses that answers; they share the time, else each would have all of it."""
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for later, (*_, place) in zip(reversed(range(len(found))), found, strict=True):
            try:
                return socket.create_connection((str(place[0]), address[1]), _left(self._deadline) / (later + 1))
            except OSError:
                if not later:
                    raise
        raise OSError(f"{address[0]} has no address")

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_left(self._deadline))
        super().send(data)

    # http.client makes a response by this name, which here reads its socket through `_Incoming`.
    def response_class(self, connected: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:  # type: ignore[override]
        return HTTPResponse(_Incoming(connected, self._deadline), *args, **kwargs)  # type: ignore[arg-type]


class _SecureConnection(HTTPSConnection, _Connection):
    """The same, the handshake included."""


class _InTime(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections whose time is bounded as a whole."""

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, req)


@dataclass(frozen=True, kw_only=True)
class ChatClient:
    """Asks one model. Threads may share it; at most `parallel` questions are under way at once.

    Args:
        url: of the API, such as http://localhost:8000/v1.
        key: sent as a bearer token; empty = none. Never logged.
        timeout_s: of one try, its answer's last byte included.
        retries: further tries after a failure that may pass (no connection, time-out, HTTP 408, 409, 425, 429, 5xx,
            an answer that is no completion), each after twice as long a wait, or as the endpoint's Retry-After says.
        body: further fields of the request; None leaves one out.

    Raises:
        ConfigError: the address or the key could never be sent, or a number has no meaning.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    retries: int = 3
    backoff_s: float = 1.0
    parallel: int = 8
    body: Mapping[str, Any] = field(default_factory=dict)
    _slots: threading.Semaphore = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.key.isprintable() or not self.key.isascii():
            raise ConfigError(
                "the endpoint's key (not shown) holds a character that no header can carry: expected visible ASCII. "
                "Look for a line break at its end"
            )
        if self.timeout_s <= 0 or self.retries < 0 or self.parallel < 1 or self.backoff_s < 0:
            raise ConfigError(
                "an endpoint needs timeout_s above 0, retries and backoff_s of 0 or more and parallel of 1 or more, "
                f"got {self.timeout_s}, {self.retries}, {self.backoff_s}, {self.parallel}"
            )
        object.__setattr__(self, "_slots", threading.Semaphore(self.parallel))

    def request(self, messages: Sequence[Message], *, temperature: float, max_tokens: int, seed: int) -> dict[str, Any]:
        """The body of a question: all that its answer may depend on."""
        said = [{"role": message.role, "content": message.content} for message in messages]
        plain = {"messages": said, "temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        # `body` stands last, so that it can replace a field that the endpoint does not take, or drop it by None.
        whole = {"model": self.model} | plain | dict(self.body)
        return {name: value for name, value in whole.items() if value is not None}

    def ask(self, request: Mapping[str, Any]) -> str:
        """The text of the answer; blocks.

        Raises:
            ChatFailure: no answer after every retry, or one that trying again would not change.
        """
        for attempt in range(self.retries + 1):
            try:
                with self._slots:
                    return self._once(request)
            except _Passing as error:
                # The slot is free again here: other threads ask while this one waits.
                said, wait = str(error), error.wait_s
            if attempt < self.retries:
                # A Retry-After may name hours: no wait is longer than a try.
                time.sleep(min(self.backoff_s * 2**attempt if wait is None else wait, self.timeout_s))
        raise ChatFailure(f"{redact(self.url)} did not answer in {self.retries + 1} tries: {said}")

    def _once(self, request: Mapping[str, Any]) -> str:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        asked = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(request).encode(), headers, method="POST"
        )
        try:
            with urllib.request.build_opener(_NoRedirect, _InTime).open(asked, timeout=self.timeout_s) as answer:
                return _text_of(_read(answer.read1))
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code} {error.reason}: {_peek(error)}"
            if error.code in _TRANSIENT or error.code >= 500:
                raise _Passing(said, _retry_after(error.headers.get("Retry-After"))) from None
            raise ChatFailure(f"{redact(self.url)} refused the question: {said}") from None
        except (OSError, HTTPException) as error:  # refused, reset, timed out, cut off
            raise _Passing(f"{type(error).__name__}: {error}") from None


def _check_url(url: str) -> None:
    """Refuse at once what would otherwise fail at every question, some of it with an error that nobody expects."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"the endpoint must be an http or https address, got {redact(url)!r}")
    try:
        parts = urlsplit(url)
        # Addresses are settings, which a run writes down; keys come from the environment and are not.
        if parts.username is not None:
            raise ConfigError("the endpoint's address (not shown) holds a user's name or password: give a key instead")
        if not parts.hostname or parts.port == 0:
            raise ValueError("a host, and a port other than 0, are needed")
        if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
            raise ValueError("blanks and characters beyond ASCII are not allowed (xn-- names and %-escapes are)")
        parts.hostname.encode("idna")  # as the look-up of the name will
    except ValueError as error:
        raise ConfigError(
            f"the endpoint's address {redact(url)!r} cannot be used: {redact(str(error))}. "
            "Expected one such as http://localhost:8000/v1"
        ) from None


def _read(read: Callable[[int], bytes]) -> bytes:
    """The whole body, unless it is too long for an answer."""
    parts, size = [], 0
    while part := read(1 << 16):
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES:
            raise _Passing(f"the answer is longer than {_MOST_BYTES} bytes")
    return b"".join(parts)


def _text_of(body: bytes) -> str:
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:  # the last: nested without end
        raise _Passing(f"no chat completion ({error!r}): {body[:200]!r}") from None
    if not isinstance(text, str):
        raise _Passing(f"the completion holds no text but {type(text).__name__}")
    return text


def _peek(error: urllib.error.HTTPError) -> str:
    """How the error's body begins, as far as it comes in time."""
    said = b""
    with error, contextlib.suppress(OSError, HTTPException):
        # read1 hands over what has arrived; read would lose it all when the rest does not come in time.
        while len(said) < 200 and (part := error.read1(200)):
            said += part
    return said[:200].decode(errors="replace")


def _retry_after(value: str | None) -> float | None:
    """Seconds; the form with a date is left to the usual wait."""
    return float(value) if value and value.strip().isdecimal() else None
