"""Visits to the page of `rollwright view`: a tab that remembers what it should not have done, and a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rollwright.view import PageServer, RunCatalogue

PAGES = {
    "runs": "Runs",
    "curves": "Curves of",
    "tasks": "Tasks of",
    "episodes": "Episodes of",
    "compare": "Compare evaluations",
    "faults": "Faults of",
    "configuration": "Configuration of",
    "time": "Where the time of",
}
"""Name of a page in the address -> how its heading begins."""


class Visit:
    """One tab, and everything that it should not have done: errors, and requests that leave the page's own address."""

    def __init__(self, browser: Any, home: str) -> None:
        self.home = home
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(20_000)
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda message: self._note(message.type in ("error", "warning"), message.text))
        self.tab.on("pageerror", lambda error: self._note(True, f"{error}"))
        self.tab.on("request", self._follow)
        self.tab.on("dialog", lambda dialog: (self._note(True, f"dialog {dialog.message}"), dialog.dismiss()))

    def _note(self, bad: bool, text: str) -> None:
        if bad:
            self.troubles.append(text)

    def _follow(self, request: Any) -> None:
        self.requests.append(request.url)
        own = request.url.startswith((self.home, "data:", "blob:"))
        self._note(not own, f"asked for {request.url}")

    def open(self, page: str, **query: object) -> Any:
        """Open a page by its address and wait until its heading and its data are there."""
        address = f"#/{page}" + (f"?{urlencode(query)}" if query else "")
        if self.tab.url.startswith(self.home):
            self.tab.evaluate("address => { location.hash = address }", address)
        else:
            self.tab.goto(self.home + address)
        self.tab.wait_for_function("address => location.hash === address", arg=address)
        self.settle()
        return self.tab

    def settle(self) -> None:
        """Wait until the heading is drawn and nothing is on its way any more."""
        self.tab.wait_for_selector("main h1, main .notice")
        self.tab.wait_for_function("() => !document.querySelector('main .waiting')")

    def clean(self) -> None:
        """Nothing went wrong, and no foreign text became a script, a frame or a link that runs."""
        assert self.troubles == []
        assert self.tab.evaluate("() => globalThis.hit") is None
        assert (
            self.tab.evaluate("() => document.querySelectorAll('main :is(script, iframe, object, embed, form)').length")
            == 0
        )
        for link in self.tab.eval_on_selector_all("a", "links => links.map(link => link.href)"):
            assert link.startswith((self.home, "data:")), link


def serve(folder: Path) -> Iterator[PageServer]:
    server = PageServer(RunCatalogue([folder]), port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
