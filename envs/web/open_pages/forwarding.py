"""What a page of somebody else's site may fetch: the named origins, through Playwright's own client; nothing else.

The browser itself has no network. Each request comes here, redirects are followed here, and a journey of the page's
main frame that comes to nothing leaves the page where it was, with a sentence for the policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from ..chromium.page import WebPage
from ..chromium.processes import first_line

log = logging.getLogger(__name__)

_MAX_REDIRECTS = 10
_MAX_RUNNING = 1000
"""Requests of one page at once. More is a flood, which would hold up all other pages: its page is ended."""
_LINES = 16
"""Of these, how many are on their way to a site at once, besides journeys."""
_MAX_LOGGED = 20
_MAX_SHOWN = 200
_SHOWN_TYPES = re.compile(
    r"|text/(html|plain|xml|css|javascript)|application/(xhtml\+xml|xml|json|javascript|[\w.-]+\+(xml|json))|image/.*"
    r"|(audio|video)/.*"
)


class Refusal(Exception):
    """Why a journey comes to nothing, written for the policy."""


class Forwarder:
    """Answers the requests of one page, which may be hostile.

    Args:
        page: in the pages' main frame a refused request is a journey that the policy asked for.
        origins: `http://host:port`; the only ones that are reached, redirects included.
        patience_s: longest wait for any single answer of a site.
        on_flood: called once when the page asks for more at a time than any honest one.

    `refusal` is why the last journey of the main frame came to nothing; `refused` is set as soon as one has.
    """

    def __init__(self, page: WebPage, origins: Sequence[str], patience_s: float, on_flood: Callable[[], None]) -> None:
        self.refusal = ""
        self.pending = ""
        self.refused = asyncio.Event()
        self._page = page
        self._origins = tuple(origins)
        self._patience_ms = 1000 * patience_s
        self._logged = 0
        self._running = 0
        self._lines = asyncio.Semaphore(_LINES)
        self._on_flood = on_flood

    async def attach(self) -> None:
        """Take over all requests of the page's context."""
        await self._page.context.route(re.compile("^(?!data:|blob:|about:)"), self._handle)

    def forget(self) -> None:
        """Begin a new journey."""
        self.refusal = self.pending = ""
        self.refused.clear()

    def refuse(self, why: str) -> None:
        """Note that the journey comes to nothing."""
        self.refusal, self.pending = why, ""
        self.refused.set()

    def allows(self, address: str) -> bool:
        """Whether the address lies on one of the origins."""
        return any(address == origin or address.startswith(f"{origin}/") for origin in self._origins)

    async def _handle(self, route: Any) -> None:
        self._running += 1
        try:
            if self._running == _MAX_RUNNING and not self._page.crashed:
                self._on_flood()
            if self._running < _MAX_RUNNING and not self._page.crashed:
                await self._forward(route)
            else:
                with contextlib.suppress(Exception):  # a route that nobody settles is kept for ever
                    await route.abort()
        finally:
            self._running -= 1

    async def _forward(self, route: Any) -> None:
        window, journey = self._is_of_a_window(route.request), self._is_journey(route.request)
        if journey:
            self.pending = route.request.url
        try:
            options = await self._answer(route, window)
            if journey:
                self.pending = ""
            await route.fulfill(**options)
        except Refusal as refusal:
            await self._turn_away(route, str(refusal), window, journey)
        except Exception as error:  # the site is down, is silent, talks nonsense; or the page is gone
            self._note(f"{route.request.url[:_MAX_SHOWN]}: {first_line(error)}")
            silent = "Timeout" in type(error).__name__
            why = f"it does not answer {'in time' if silent else 'as a site does'}"
            await self._turn_away(route, why, window, journey)

    async def _turn_away(self, route: Any, why: str, window: bool, journey: bool) -> None:
        if journey:
            self.refuse(f"{route.request.url[:_MAX_SHOWN]} could not be opened: {why}")
        with contextlib.suppress(Exception):  # the page may be gone by now
            await route.abort("aborted" if window else "failed")  # a window whose journey is aborted stays where it was

    async def _answer(self, route: Any, window: bool) -> dict[str, Any]:
        self._check_allowed(route.request.url)
        async with contextlib.nullcontext() if window else self._lines:
            reply, address = await self._fetched(route)
        body = await reply.body()
        if window:
            _check_shown(reply.status, reply.headers)
            if reply.status >= 400 and not body:  # the browser would put a page of its own there
                return {"status": reply.status, "content_type": "text/plain", "body": f"{reply.status}"}
            if address != route.request.url and "html" in reply.headers.get("content-type", ""):
                body = _at(address) + body
        return {"response": reply, "body": body}

    async def _fetched(self, route: Any) -> tuple[Any, str]:
        """The reply after all redirects, and the address that it came from."""
        address = route.request.url
        reply = await route.fetch(max_redirects=0, timeout=self._patience_ms)
        for _ in range(_MAX_REDIRECTS):
            if not 300 <= reply.status < 400 or "location" not in reply.headers:
                return reply, address
            address = urljoin(address, reply.headers["location"])
            self._check_allowed(address)
            reply = await self._page.context.request.get(address, max_redirects=0, timeout=self._patience_ms)
        raise Refusal("it sends from one address to the next without end")

    def _check_allowed(self, address: str) -> None:
        if not self.allows(address):
            self._page.count_blocked(address)
            raise Refusal(f"only these sites can be opened: {', '.join(self._origins)}")

    def _is_journey(self, request: Any) -> bool:
        """Whether the window that is shown wants to go somewhere, or a new one."""
        try:
            return self._is_of_a_window(request) and request.frame.page is self._page.handle
        except Exception:  # a window that the page opens has no frame yet
            return True

    def _is_of_a_window(self, request: Any) -> bool:
        """Whether any window wants to go somewhere: the one that is shown, another tab, or a new one."""
        travels = False
        try:
            travels = bool(request.is_navigation_request())
            return travels and request.frame.parent_frame is None
        except Exception:  # as above
            return travels

    def _note(self, what: str) -> None:
        self._logged += 1
        if self._logged <= _MAX_LOGGED:
            log.warning("page %d: %s", self._page.number, what)


def _check_shown(status: int, headers: Mapping[str, str]) -> None:
    """Refuse what a browser would not show as a page.

    Raises:
        Refusal: an answer without a page, or a file to download.
    """
    if status in (204, 205):
        raise Refusal(f"it answers without a page ({status})")
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    attached = headers.get("content-disposition", "").strip().lower().startswith("attachment")
    if attached or not _SHOWN_TYPES.fullmatch(kind):
        raise Refusal(f"it is a file to download ({kind or 'of no type'}); files are not opened here")


def _at(address: str) -> bytes:
    """The browser does not see the redirects that were followed for it: the page learns its own address."""
    written = json.dumps(address).replace("<", "\\u003c")  # an address must not end the script that it stands in
    return f"<!doctype html><script>history.replaceState(null, '', {written})</script>".encode()
