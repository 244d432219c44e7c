"""A small client of endpoints that speak OpenAI's `/v1/chat/completions`: deadline, retries, bounded concurrency."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from rollwright.errors import ConfigError, RollwrightError
from rollwright.types import Message

log = logging.getLogger(__name__)
_MOST_BYTES = 4 << 20
_TRANSIENT = (408, 409, 425, 429)


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


@dataclass(frozen=True, kw_only=True)
class ChatClient:
    """Asks one model. Threads may share it; at most `parallel` questions are under way at once.

    Args:
        url: of the API, such as http://localhost:8000/v1.
        key: sent as a bearer token; empty = none. Never logged.
        timeout_s: of one try, its answer's last byte included.
        retries: further tries after a failure that may pass (no connection, time-out, HTTP 408, 409, 425, 429, 5xx,
            an answer that is no JSON), each after twice as long a wait, or as the endpoint's Retry-After says.
        body: further fields of the request; None leaves one out.
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
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"the endpoint must be an http or https address, got {self.url!r}")
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
                said, wait = str(error), error.wait_s
            if attempt < self.retries:
                time.sleep(min(self.backoff_s * 2**attempt if wait is None else wait, self.timeout_s))
        raise ChatFailure(f"{self.url} did not answer in {self.retries + 1} tries: {said}")

    def _once(self, request: Mapping[str, Any]) -> str:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        asked = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(request).encode(), headers, method="POST"
        )
        deadline = time.monotonic() + self.timeout_s
        try:
            with urllib.request.build_opener(_NoRedirect).open(asked, timeout=self.timeout_s) as answer:
                return _text_of(_read(answer.read1, deadline))
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code} {error.reason}: {_peek(error)}"
            if error.code in _TRANSIENT or error.code >= 500:
                raise _Passing(said, _retry_after(error.headers.get("Retry-After"))) from None
            raise ChatFailure(f"{self.url} refused the question: {said}") from None
        except (OSError, HTTPException) as error:  # refused, reset, timed out, cut off
            raise _Passing(f"{type(error).__name__}: {error}") from None


def _read(read: Callable[[int], bytes], deadline: float) -> bytes:
    """The whole body; a server that drips cannot hold the caller for longer than the deadline by much."""
    parts, size = [], 0
    while part := read(1 << 16):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
        if size > _MOST_BYTES:
            raise _Passing(f"the answer is longer than {_MOST_BYTES} bytes")
    return b"".join(parts)


def _text_of(body: bytes) -> str:
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _Passing(f"no chat completion ({error!r}): {body[:200]!r}") from None
    if not isinstance(text, str):
        raise _Passing(f"the completion holds no text but {type(text).__name__}")
    return text


def _peek(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(200).decode(errors="replace")
    except (OSError, HTTPException):
        return ""


def _retry_after(value: str | None) -> float | None:
    """Seconds; the form with a date is left to the usual wait."""
    return float(value) if value and value.strip().isdecimal() else None
