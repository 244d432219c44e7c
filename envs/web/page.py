"""One page of a real Chromium: deadlines on every call, dialogs dismissed, foreign requests blocked and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from rollwright.errors import EnvironmentFault

if TYPE_CHECKING:
    from .browser import Browser

log = logging.getLogger(__name__)

CLOSE_S = 5.0
_MAX_REDIRECTS = 10
_MAX_DIALOG_CHARS = 200
_GONE = (
    "Execution context was destroyed",
    "Cannot find context",
    "__rw is not defined",
    "frame was detached",
    "the page was left",
)
_JOURNEYS = 5  # how often a page may lead elsewhere by itself before a load of ours gives up


class PageLeft(Exception):
    """The page navigated away in the middle of a call: the episode in it is over."""


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """What a page may do.

    `root` is the only folder whose files it may load (None: no file at all), `scripts` run before those of the page,
    `deadline_s` bounds every single call into the page, `viewport` is in CSS pixels.
    """

    root: Path | None
    scripts: str
    deadline_s: float = 10.0
    viewport: tuple[int, int] = (400, 320)


class WebPage:
    """One page in a browser context of its own. Made by the pool; every call may raise `EnvironmentFault`."""

    def __init__(self, number: int, limits: PageLimits, browser: Browser) -> None:
        self.number = number
        self.browser = browser
        self.address = ""
        self.requests_blocked = 0
        self.page_errors: list[str] = []
        self._limits = limits
        self._dialogs: list[str] = []
        self._crashed = False
        self._context: Any = None
        self._page: Any = None

    async def open(self, chromium: Any) -> None:
        """Create the context and the page; nothing but files under `root` will load in it."""
        width, height = self._limits.viewport
        self._context = await chromium.new_context(
            viewport={"width": width, "height": height}, service_workers="block", accept_downloads=False
        )
        await self._context.add_init_script(script=self._limits.scripts)
        files = f"{re.escape(self._limits.root.resolve().as_uri())}/|" if self._limits.root else ""
        await self._context.route(re.compile(rf"^(?!{files}data:|blob:|about:)"), self._block)
        self._page = await self._context.new_page()
        self._page.on("crash", self._on_crash)
        self._page.on("dialog", self._on_dialog)
        self._page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        self._context.on("page", self._on_popup)

    async def load(self, address: str) -> None:
        """Go to a file of the root; where the page was on its way elsewhere by itself, that journey gives way."""
        self.address = ""
        for attempt in range(_JOURNEYS):
            try:
                await self._call(self._page.goto(address, wait_until="load"), f"loading {address}")
                break
            except EnvironmentFault as fault:
                if "interrupted by another navigation" not in str(fault) or attempt == _JOURNEYS - 1:
                    raise
            with contextlib.suppress(PageLeft):
                await self._call(self._page.wait_for_load_state("load"), "waiting for the page's own journey")
        self.address = address

    async def ask(self, function: str, argument: Any = None) -> dict[str, Any]:
        """Call a function of the page's script that returns JSON."""
        reply = dict(json.loads(await self._call(self._page.evaluate(function, argument), function)))
        self.requests_blocked += reply.get("kept", 0)  # links and forms that the page's script held back
        return reply

    async def serve(self, origin: str, answer: Callable[[str, str, str], str | None]) -> None:
        """Let our own function answer the requests to `origin`: no socket, no network.

        Args:
            answer: method, address without the origin, and body to the page's HTML; None answers "404 Not Found".
        """

        async def handle(route: Any) -> None:
            request = route.request
            try:
                page = answer(request.method, request.url.removeprefix(origin), request.post_data or "")
            except Exception:
                log.exception("page %d: our own answer to %s failed", self.number, request.url[:200])
                self._crashed = True
                await route.abort()
                return
            with contextlib.suppress(Exception):  # the page may be gone by now
                await route.fulfill(
                    status=404 if page is None else 200, content_type="text/html; charset=utf-8", body=page or ""
                )

        await self._context.route(re.compile("^" + re.escape(origin)), handle)

    async def forward(self, origins: Sequence[str]) -> None:
        """Let the page reach these origins (`http://host:port`) and no other, redirects included."""

        async def handle(route: Any) -> None:
            try:
                reply = await self._fetched(route, origins)
                if reply is None:
                    await self._block(route)
                else:
                    await route.fulfill(response=reply[0], body=reply[1])
            except Exception as error:
                log.warning("page %d: %s: %s", self.number, route.request.url[:200], first_line(error))
                with contextlib.suppress(Exception):
                    await route.abort()

        for origin in origins:
            await self._context.route(re.compile("^" + re.escape(origin) + "(/|$)"), handle)

    async def _fetched(self, route: Any, origins: Sequence[str]) -> tuple[Any, bytes] | None:
        """The reply after all redirects; None where one leads elsewhere. The page learns its own last address."""
        reply = await route.fetch(max_redirects=0)
        address = route.request.url
        for _ in range(_MAX_REDIRECTS):
            if not 300 <= reply.status < 400 or "location" not in reply.headers:
                break
            address = urljoin(address, reply.headers["location"])
            if not any(address == origin or address.startswith(f"{origin}/") for origin in origins):
                return None
            reply = await self._context.request.get(address, max_redirects=0)
        body = await reply.body()
        moved = address != route.request.url and route.request.is_navigation_request()
        if moved and "html" in reply.headers.get("content-type", ""):
            # The browser does not see the redirects that were followed for it.
            script = f"<!doctype html><script>history.replaceState(null, '', {json.dumps(address)})</script>"
            body = script.encode() + body
        return reply, body

    @property
    def current(self) -> str:
        """The address that the browser shows."""
        return str(self._page.url)

    async def travel(self, where: str) -> None:
        """Go to the page before or after in the browser's history: `go_back`, `go_forward`."""
        await self._call(getattr(self._page, where)(wait_until="domcontentloaded"), where)

    async def settle(self) -> None:
        """Wait until the page that is on its way is there."""
        await self._call(self._page.wait_for_load_state("domcontentloaded"), "waiting for the page")

    async def follow(self, function: str, argument: Any = None) -> dict[str, Any]:
        """Like `ask`, for calls that may lead to another page: if the reply says `leaving`, wait for it."""
        arrived = asyncio.Event()

        def on_load(_page: Any) -> None:
            arrived.set()

        self._page.on("domcontentloaded", on_load)
        try:
            reply = await self.ask(function, argument)
            if reply.get("leaving"):
                await self._call(arrived.wait(), f"waiting for the page after {function}")
            return reply
        finally:
            self._page.remove_listener("domcontentloaded", on_load)

    async def mouse(self, method: str, *arguments: Any, **options: Any) -> None:
        """Use the browser's own mouse: trusted events."""
        await self._call(getattr(self._page.mouse, method)(*arguments, **options), f"mouse.{method}")

    async def keyboard(self, method: str, text: str) -> None:
        """Use the browser's own keyboard: trusted events."""
        await self._call(getattr(self._page.keyboard, method)(text), f"keyboard.{method}")

    async def screenshot(self) -> bytes:
        """The viewport as PNG.

        Raises:
            RuntimeError: the page is not drawn.
        """
        if not self.browser.draws:
            raise RuntimeError("this page is not drawn; build the world with draw=True or with a screenshots folder")
        picture: bytes = await self._call(self._page.screenshot(), "screenshot")
        return picture

    def take_dialogs(self) -> list[str]:
        """The dialogs that were dismissed since the last call."""
        taken, self._dialogs = self._dialogs, []
        return taken

    async def close(self) -> bool:
        """Close page and context; False where the browser did not answer in time."""
        if self._context is None:
            return True
        try:
            await asyncio.wait_for(self._context.close(), CLOSE_S)
        except Exception as error:
            log.warning("page %d did not close: %s", self.number, first_line(error))
            return False
        return True

    async def _call(self, call: Awaitable[Any], what: str) -> Any:
        from playwright.async_api import Error

        if self._crashed:
            _drop(call)
            raise EnvironmentFault(f"page {self.number} has crashed; it is replaced")
        try:
            return await asyncio.wait_for(call, self._limits.deadline_s)
        except TimeoutError as error:
            raise EnvironmentFault(
                f"page {self.number} did not answer within {self._limits.deadline_s:g} s ({what}); it is replaced"
            ) from error
        except Error as error:
            if any(sign in str(error) for sign in _GONE) and not self._crashed:
                self.address = ""
                raise PageLeft(first_line(error)) from error
            raise EnvironmentFault(f"page {self.number} failed ({what}): {first_line(error)}") from error

    def _on_crash(self, _page: Any) -> None:
        self._crashed = True

    async def _on_dialog(self, dialog: Any) -> None:
        message = " ".join(dialog.message.split())[:_MAX_DIALOG_CHARS]
        self._dialogs.append(f"{dialog.type} {message!r} was dismissed")
        with contextlib.suppress(Exception):  # the page may be gone by now
            await dialog.dismiss()

    async def _on_popup(self, page: Any) -> None:
        if page is self._page:
            return
        self.requests_blocked += 1
        with contextlib.suppress(Exception):
            await page.close()

    async def _block(self, route: Any) -> None:
        self.requests_blocked += 1
        log.warning("page %d: blocked a request to %s", self.number, route.request.url[:200])
        with contextlib.suppress(Exception):
            await route.abort()


def _drop(call: Awaitable[Any]) -> None:
    if asyncio.iscoroutine(call):
        call.close()


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message: Playwright's messages carry whole call logs."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
