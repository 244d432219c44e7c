"""A small site on a loopback port, for clients of any kind: one database, real redirects, until it is closed."""

from __future__ import annotations

import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .pages.engine import Server, Site

_MAX_BODY = 1_000_000


class LoopbackSite:
    """Serves a site at `address` (127.0.0.1, a free port). Requests are answered one at a time."""

    def __init__(self, site: Site, db: sqlite3.Connection) -> None:
        server, lock = Server(site, db), threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET", "")

            def do_POST(self) -> None:
                told = self.headers.get("Content-Length", "")
                length = min(int(told), _MAX_BODY) if told.isascii() and told.isdecimal() else 0
                self._answer("POST", self.rfile.read(length).decode("utf-8", "replace"))

            def _answer(self, method: str, body: str) -> None:
                with lock:
                    page = server.open(method, self.path, body)
                    moved = method == "POST" and server.address != self.path
                    if moved:
                        server.keep_note()
                self.send_response(303 if moved else 200)
                if moved:
                    self.send_header("Location", server.address)
                content = b"" if moved else page.encode()
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet: nobody reads a server's log in a test or a training run."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """End the server. May be called twice."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
