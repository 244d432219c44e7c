"""The chat client against servers that hold it up byte by byte, answers nested without end, and hopeless addresses."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from rollwright.contracts.errors import ConfigError
from rollwright.generation.chat_api import ChatClient, ChatFailure

DRIPS, EVERY_S = 300, 0.1
DRIP_S = DRIPS * EVERY_S
"""How long a server drips that nobody stops: far longer than any time-out here, on the slowest machine too."""


class Dripping:
    """Sends a beginning at once, then 300 times one more piece; `finished` where somebody listened to the end."""

    def __init__(self, begin: bytes, piece: bytes, *, listens: bool = True) -> None:
        self.begin, self.piece, self.listens = begin, piece, listens
        self.tries = 0
        self.finished = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._server.accept()
            except OSError:
                return
            self.tries += 1
            threading.Thread(target=self._answer, args=(connected,), daemon=True).start()

    def _answer(self, connected: socket.socket) -> None:
        with connected:
            try:
                if self.listens:
                    connected.recv(1 << 16)
                connected.sendall(self.begin)
                for _ in range(DRIPS):
                    time.sleep(EVERY_S)
                    connected.sendall(self.piece)
            except OSError:
                return  # the client has gone
            self.finished.set()

    def close(self) -> None:
        self._server.close()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,many.test")


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        pytest.param(b"", b"H", id="status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"a", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b" ", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n", b" ", id="body of known length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", id="chunks"),
        pytest.param(b"HTTP/1.1 500 Down\r\nX: ", b"a", id="headers of a failure"),
        pytest.param(b"HTTP/1.1 500 Down\r\nContent-Length: 300\r\n\r\n", b"x", id="body of a failure"),
        pytest.param(b"HTTP/1.1 401 No\r\nContent-Length: 300\r\n\r\n", b"x", id="body of a refusal"),
    ],
)
def test_a_server_that_drips_does_not_hold_a_try_beyond_its_time(begin: bytes, piece: bytes) -> None:
    server = Dripping(begin, piece)
    started = time.monotonic()
    with pytest.raises(ChatFailure, match=r"in 1 tries|refused"):
        ChatClient(url=f"http://127.0.0.1:{server.port}/v1", model="m", timeout_s=0.5, retries=0).ask({})
    assert time.monotonic() - started < DRIP_S / 2 and not server.finished.is_set()
    server.close()


def test_a_handshake_that_drips_does_not_hold_a_try_either() -> None:
    server = Dripping(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0", b"\x00", listens=False)  # a long ServerHello begins
    with pytest.raises(ChatFailure, match="in 1 tries"):
        ChatClient(url=f"https://127.0.0.1:{server.port}/v1", model="m", timeout_s=0.5, retries=0).ask({})
    assert server.tries == 1 and not server.finished.is_set()
    server.close()


def test_what_came_of_a_failure_in_time_is_told() -> None:
    server = Dripping(b"HTTP/1.1 500 Down\r\nContent-Length: 309\r\n\r\nno memory", b"!")
    with pytest.raises(ChatFailure, match=r"HTTP 500 Down: no memory!*$"):
        ChatClient(url=f"http://127.0.0.1:{server.port}/v1", model="m", timeout_s=0.5, retries=0).ask({})
    server.close()


def test_the_addresses_of_a_host_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty silent addresses and sixty seconds: one for each, by a clock that only they move."""
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 80)) for n in range(2, 62)]
    now = [1000.0]
    tried: list[str] = []

    def silent(address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
        tried.append(address[0])
        now[0] += timeout
        raise TimeoutError("timed out")

    monkeypatch.setattr("rollwright.generation.chat_api.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(ChatFailure, match="timed out"):
        ChatClient(url="http://many.test/v1", model="m", timeout_s=60.0, retries=0).ask({})
    assert tried == [place[-1][0] for place in places] and now[0] == pytest.approx(1060.0)


class Fixed(BaseHTTPRequestHandler):
    body = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fixed() -> Iterator[tuple[type[Fixed], str]]:
    """A server that always gives the same body, and its address."""
    handler = type("Handler", (Fixed,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("begin", [b"", b'{"choices": ', b'{"choices": [{"message": {"content": '])
def test_an_answer_nested_without_end_is_no_answer(fixed: tuple[type[Fixed], str], begin: bytes) -> None:
    handler, url = fixed
    handler.body = begin + b"[" * 200_000
    with pytest.raises(ChatFailure, match=r"in 2 tries: no chat completion"):
        ChatClient(url=url, model="m", retries=1, backoff_s=0.01).ask({})


def test_a_long_answer_in_many_pieces_arrives_whole(fixed: tuple[type[Fixed], str]) -> None:
    handler, url = fixed
    text = "ab" * 500_000
    handler.body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    assert ChatClient(url=url, model="m", retries=0).ask({}) == text


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://a..b/v1", "label empty"),
        (f"http://{'a' * 70}.org/v1", "too long"),
        ("http://[::1/v1", "IPv6"),
        ("http://localhost:port/v1", "Port"),
        ("http://localhost:99999/v1", "Port"),
        ("http://localhost:0/v1", "port other than 0"),
        ("http:///v1", "a host"),
        ("http://exa mple/v1", "blanks"),
        ("http://localhost/v1\n", "blanks"),
        ("http://localhost/ü", "ASCII"),
        ("ftp://localhost/v1", "http or https"),
    ],
)
def test_an_address_that_nobody_can_reach_is_refused_when_the_client_is_built(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        ChatClient(url=url, model="m")
    assert repr(url) in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1/", "https://[::1]/v1", "http://xn--bcher-kva.de", "http://h:/"]
)
def test_usual_addresses_are_taken(url: str) -> None:
    assert ChatClient(url=url, model="m").url == url


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://me:secret@localhost/v1"},
        {"url": "http://localhost/v1", "key": "secret\n"},
        {"url": "http://localhost/v1", "key": "secret\u2026"},
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="not shown") as refused:
        ChatClient(model="m", **options)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["htp://ann:geheim@host/v1", "http://host/v1 x?api_key=geheim", "ftp://host/?token=geheim"]
)
def test_an_address_that_is_refused_is_repeated_without_its_password(url: str):
    with pytest.raises(ConfigError) as refused:
        ChatClient(url=url, model="m")
    assert "geheim" not in str(refused.value) and "host" in str(refused.value)


def test_a_failure_names_the_address_without_its_token():
    client = ChatClient(url="http://127.0.0.1:9/v1?token=geheim", model="m", retries=0, timeout_s=2.0)
    with pytest.raises(ChatFailure) as failed:
        client.ask({})
    assert "geheim" not in str(failed.value) and "127.0.0.1:9" in str(failed.value)
