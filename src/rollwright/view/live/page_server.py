"""The server of `rollwright view`: loopback only, GET only, files of the package and answers as JSON.

Three locks keep pages of other sites out: it listens on 127.0.0.1 alone, it answers only requests whose `Host` is its
own address (a page that rebinds its name to 127.0.0.1 sends its own name), and it sends no CORS header, so that no
other origin can read an answer. A content policy allows scripts from this server alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any
from urllib.parse import unquote, urlsplit

from rollwright.contracts import RollwrightError
from rollwright.view.live.page_routes import Answer, answer_to
from rollwright.view.live.run_catalogue import RunCatalogue

log = logging.getLogger(__name__)

HOST, FIRST_PORT, TRIED_PORTS = "127.0.0.1", 7654, 20
_TYPES = {
    **{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8"},
    **{".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8"},
    **{".json": "application/json; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png"},
    **{".woff2": "font/woff2", ".md": "text/plain; charset=utf-8", ".txt": "text/plain; charset=utf-8"},
}
_INLINE = re.compile(r"<script type=\"importmap\">(.*?)</script>", re.DOTALL)
# No word begins with a dot, so none leads upwards and none names a hidden file.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class PortInUse(RollwrightError):
    """The port that was asked for is taken."""

    exit_code = 2


class PageServer(ThreadingHTTPServer):
    """Serves the page over the runs of a catalogue. Made by the command; `serve_forever` until it is closed.

    Args:
        port: None takes the first free one from `FIRST_PORT` on; 0 takes any.

    Raises:
        PortInUse: the port is taken, or all that were tried.
    """

    # A browser keeps its connections open, and the command must end all the same.
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, catalogue: RunCatalogue, *, port: int | None = None) -> None:
        self.catalogue = catalogue
        wanted = range(FIRST_PORT, FIRST_PORT + TRIED_PORTS) if port is None else [port]
        # Several in turn: another `rollwright view` may be open.
        for number in wanted:
            try:
                super().__init__((HOST, number), PageHandler)
                return
            except OSError as error:
                reason = error.strerror or str(error)
        raise PortInUse(
            f"the page cannot be served on port {wanted[0]}{f' to {wanted[-1]}' if len(wanted) > 1 else ''} of {HOST}: "
            f"{reason}. Name a free one with --port, or --port 0 for any"
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves early is no error; anything else goes to the log."""
        log.debug("a request of %s ended early", client_address, exc_info=True)

    @cached_property
    def policy(self) -> str:
        """The content policy; the page's one inline script, its import map, is named by its hash."""
        index = asset("index.html")
        inline = _INLINE.search(index.read_text(encoding="utf-8")) if index is not None else None
        allowed = f" '{script_hash(inline[1])}'" if inline else ""
        return (
            f"default-src 'self'; script-src 'self'{allowed}; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


def script_hash(text: str) -> str:
    """The source expression that allows one inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def asset(name: str) -> Traversable | None:
    """A file of the page by its name below `assets/`; None where there is none, or the name leads elsewhere."""
    words = name.split("/")
    if len(name) > 200 or not all(_NAME.fullmatch(word) for word in words):
        return None
    found = resources.files("rollwright.view") / "assets"
    for word in words:
        found = found / word
    return found if found.is_file() else None


class PageHandler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: PageServer
    # Keeps connections open: the page asks every few seconds.
    protocol_version = "HTTP/1.1"
    # No version of Python in the answers.
    server_version, sys_version = "rollwright", ""
    # Seconds; each open connection holds a thread.
    timeout = 60

    def do_GET(self) -> None:
        """Answer from the runs or from the package."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without the content."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        # Before anything is looked up: see the module's first lines on names that are rebound.
        if self.headers.get("Host", "") not in (f"{HOST}:{self.server.port}", f"localhost:{self.server.port}"):
            found = Answer(b'{"error": "this server answers under its own address only"}', status=421)
        # Proxies are sent whole addresses; this is none.
        elif not self.path.startswith("/"):
            found = Answer(b'{"error": "this is no address of a page: it begins with /"}', status=400)
        else:
            found = self._looked_up()
        self._send(found, body=body)

    def _send(self, found: Answer, *, body: bool) -> None:
        self.send_response(found.status)
        self.send_header("Content-Type", found.media_type)
        # With HTTP/1.1 the connection stays open, and only the length says where an answer ends.
        self.send_header("Content-Length", str(len(found.content)))
        # Answers change with every step of a run.
        self.send_header("Cache-Control", "no-store")
        # Pictures come from foreign worlds: a browser must not guess that one is a page.
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Content-Security-Policy", self.server.policy)
        self.end_headers()
        if body:
            self.wfile.write(found.content)

    def _looked_up(self) -> Answer:
        try:
            return answer_to(self.server.catalogue, self.path) if self.path.startswith("/api/") else self._file()
        except Exception:  # one odd file must not take the page down; the log says what it was
            log.exception("%s could not be answered", self.path[:200])
            return Answer(b'{"error": "this could not be read: see the terminal of rollwright view"}', status=500)

    def _file(self) -> Answer:
        name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        found = asset(name)
        if found is None:
            return Answer(b'{"error": "there is nothing at this address"}', status=404)
        ending = name[name.rfind(".") :] if "." in name else ""
        return Answer(found.read_bytes(), _TYPES.get(ending, "application/octet-stream"))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no request of a page (another method, a torn heading) is answered like all else, and closed."""
        self.close_connection = True
        sentence = f"this server answers GET and HEAD requests alone: {message or code}"
        self._send(Answer(json.dumps({"error": sentence[:300]}).encode(), status=code), body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news on the terminal."""
        log.debug(format, *args)
