"""One page of a real Chromium: deadlines on every call, dialogs dismissed, foreign requests blocked and counted.

What goes wrong with a page is either ours or the policy's doing, and `WebPage.call` decides which for all web worlds.
Ours is a browser that died, a page that crashed, and silence of the whole browser: `EnvironmentFault`. The policy's is
what the living browser refuses (`PageRefused`: a key that no keyboard has, a script that raises, an address that
cannot be opened), a page that left (`PageLeft`), and a page that alone is silent (`PageHung`). A world turns the
latter into an observation and a lost turn when they happen in a step, and into a fault when they happen in a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollwright.contracts import EnvironmentFault

from .processes import CLOSE_S, Browser, first_line

log = logging.getLogger(__name__)

PROBE_S = 3.0
_MAX_SHOWN = 200
_MAX_DIALOGS = 20
_MAX_LOGGED = 20
_MAX_ERRORS = 20
_GONE = (
    "Execution context was destroyed",
    "Inspected target navigated or closed",
    "Cannot find context",
    "__rw is not defined",
    "frame was detached",
    "the page was left",
)
_JOURNEYS = 5  # how often a page may lead elsewhere by itself before a load of ours gives up


_BROKEN = ("has been closed", "crashed", "Connection closed", "Target closed")
_CALLED = re.compile(r"^Error: (\w+\.\w+: )?(Error: )?")


def page_scripts(*names: str) -> str:
    """The JavaScript files of those names beside this module, joined: what runs in a page before its own scripts."""
    here = Path(__file__).parent
    return "\n".join((here / name).read_text(encoding="utf-8") for name in names)


class PageLeft(Exception):
    """The page navigated away in the middle of a call: the episode in it is over."""


class PageRefused(EnvironmentFault):
    """The living browser did not do what was asked. `told` says it to the policy, without numbers of pages."""

    def __init__(self, what: str, told: str) -> None:
        super().__init__(f"{what}: {told}")
        self.told = f"the browser could not do this: {told}"


class PageHung(EnvironmentFault):
    """The page does not answer while its browser does: a script in it does not end."""


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """What a page may do.

    `root` is the only folder whose files it may load (None: no file at all), `scripts` run before those of the page,
    `deadline_s` bounds every single call into the page, `viewport` is in CSS pixels. `errors` keeps the errors of the
    page's own scripts, which of somebody else's page might be without number.
    """

    root: Path | None
    scripts: str
    deadline_s: float = 10.0
    viewport: tuple[int, int] = (400, 320)
    errors: bool = True


class WebPage:
    """One page in a browser context of its own. Made by the pool; every call may raise `EnvironmentFault`."""

    def __init__(self, number: int, limits: PageLimits, browser: Browser) -> None:
        self.number = number
        self.browser = browser
        self.address = ""
        self.requests_blocked = 0
        self.page_errors: deque[str] = deque(maxlen=_MAX_ERRORS)
        self.crashed = False
        self._limits = limits
        self.opening = False
        self.follows = False
        self.on_question: Callable[[Any], bool] | None = None
        self._dialogs: list[str] = []
        self._more_dialogs = 0
        self._button_held = False
        self._context: Any = None
        self._page: Any = None

    async def open(self, chromium: Any, state: dict[str, Any] | None = None) -> None:
        """Create the context, with cookies and local storage, and the page; only files under `root` load in it."""
        width, height = self._limits.viewport
        self._context = await chromium.new_context(
            viewport={"width": width, "height": height},
            service_workers="block",
            accept_downloads=False,
            storage_state=state,
        )
        await self._context.add_init_script(script=self._limits.scripts)
        files = f"{re.escape(self._limits.root.resolve().as_uri())}/|" if self._limits.root else ""
        await self._context.route(re.compile(rf"^(?!{files}data:|blob:|about:)"), self._block)
        await self.replace()
        self._context.on("page", self._on_popup)

    async def replace(self) -> None:
        """Put a fresh page into the context, in place of the one that was there, which is not waited for."""
        self.opening = True
        try:
            page = await self._context.new_page()
        finally:
            self.opening = False
        self.adopt(page)
        self._page, self.crashed, self.address = page, False, ""

    def adopt(self, page: Any) -> None:
        """Listen to a page of the context."""
        page.on("crash", self._on_crash)
        page.on("dialog", self._on_dialog)
        if self._limits.errors:
            page.on("pageerror", lambda error: self.page_errors.append(str(error)[:_MAX_SHOWN]))
        page.on("websocket", self._on_socket)

    def show(self, page: Any) -> None:
        """Go on with another page of the context."""
        self._page = page

    @property
    def context(self) -> Any:
        """Playwright's browser context."""
        return self._context

    @property
    def handle(self) -> Any:
        """Playwright's page."""
        return self._page

    async def load(self, address: str) -> None:
        """Go to a file of the root; where the page was on its way elsewhere by itself, that journey gives way."""
        self.address = ""
        for attempt in range(_JOURNEYS):
            try:
                await self.call(self._page.goto(address, wait_until="load"), f"loading {address}")
                break
            except EnvironmentFault as fault:
                if "interrupted by another navigation" not in str(fault) or attempt == _JOURNEYS - 1:
                    raise
            with contextlib.suppress(PageLeft):
                await self.call(self._page.wait_for_load_state("load"), "waiting for the page's own journey")
        self.address = address

    async def ask(self, function: str, argument: Any = None) -> dict[str, Any]:
        """Call a function of the page's script that returns JSON."""
        reply = dict(json.loads(await self.call(self._page.evaluate(function, argument), function)))
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
                self.crashed = True
                await route.abort()
                return
            with contextlib.suppress(Exception):  # the page may be gone by now
                await route.fulfill(
                    status=404 if page is None else 200, content_type="text/html; charset=utf-8", body=page or ""
                )

        await self._context.route(re.compile("^" + re.escape(origin)), handle)

    async def settle(self) -> None:
        """Wait until the page that is on its way is there."""
        await self.call(self._page.wait_for_load_state("domcontentloaded"), "waiting for the page")

    async def follow(self, function: str, argument: Any = None) -> dict[str, Any]:
        """Like `ask`, for calls that may lead to another page: if the reply says `leaving`, wait for it."""
        arrived = asyncio.Event()

        def on_load(_page: Any) -> None:
            arrived.set()

        self._page.on("domcontentloaded", on_load)
        try:
            reply = await self.ask(function, argument)
            if reply.get("leaving"):
                await self.call(arrived.wait(), f"waiting for the page after {function}")
            return reply
        finally:
            self._page.remove_listener("domcontentloaded", on_load)

    async def mouse(self, method: str, *arguments: Any, **options: Any) -> None:
        """Use the browser's own mouse: trusted events."""
        self._button_held = method == "down" or (self._button_held and method != "up")
        await self.call(getattr(self._page.mouse, method)(*arguments, **options), f"mouse.{method}")

    async def let_go(self) -> None:
        """Release a mouse button that the last episode left pressed."""
        if self._button_held:
            await self.mouse("up")

    async def keyboard(self, method: str, text: str) -> None:
        """Use the browser's own keyboard: trusted events."""
        await self.call(getattr(self._page.keyboard, method)(text), f"keyboard.{method}")

    async def screenshot(self) -> bytes:
        """The viewport as PNG.

        Raises:
            RuntimeError: the page is not drawn.
        """
        if not self.browser.draws:
            raise RuntimeError("this page is not drawn; build the world with draw=True or with a screenshots folder")
        picture: bytes = await self.call(self._page.screenshot(), "screenshot")
        return picture

    def take_dialogs(self) -> list[str]:
        """The dialogs that were dismissed since the last call."""
        taken, more = self._dialogs, self._more_dialogs
        self._dialogs, self._more_dialogs = [], 0
        return [*taken, f"{more} more"] if more else taken

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

    async def call(self, call: Awaitable[Any], what: str, wait_s: float | None = None) -> Any:
        """Wait for an answer of the browser; see the top of this file for who is to blame where there is none.

        Args:
            wait_s: instead of the page's own deadline.

        Raises:
            EnvironmentFault: the browser died or is silent, or the page crashed.
            PageHung: the page alone is silent.
            PageLeft: the page navigated away.
            PageRefused: the browser lives and did not do it.
        """
        limit_s = self._limits.deadline_s if wait_s is None else wait_s
        try:
            return await asyncio.wait_for(self.answer(call, what), limit_s)
        except TimeoutError as error:
            kind = PageHung if await self._browser_answers() else EnvironmentFault
            reason = f"page {self.number} did not answer within {limit_s:g} s ({what[:_MAX_SHOWN]}); it is replaced"
            raise kind(reason) from error

    async def answer(self, call: Awaitable[Any], what: str) -> Any:
        """As `call`, without a deadline."""
        from playwright.async_api import Error

        if self.crashed:
            _drop(call)
            raise EnvironmentFault(f"page {self.number} has crashed; it is replaced")
        try:
            return await call
        except Error as error:
            raise self._judged(error, f"page {self.number} failed ({what[:_MAX_SHOWN]})") from error

    def _judged(self, error: Exception, what: str) -> Exception:
        text = str(error)
        lives = self.browser.handle.is_connected() and not self.crashed
        if lives and any(sign in text for sign in _GONE):
            self.address = ""
            return PageLeft(first_line(error))
        if lives and not any(sign in text for sign in _BROKEN):
            return PageRefused(what, _CALLED.sub("", first_line(error)))
        return EnvironmentFault(f"{what}: {first_line(error)}")

    async def _browser_answers(self) -> bool:
        """Whether another page of the browser answers at once: then the silent one has itself to blame."""
        try:
            async with asyncio.timeout(PROBE_S):
                context = await self.browser.handle.new_context()
                try:
                    return bool(await (await context.new_page()).evaluate("1") == 1)
                finally:
                    await context.close()
        except Exception:
            return False

    def _on_crash(self, page: Any) -> None:
        self.crashed = self.crashed or page is self._page

    async def _on_dialog(self, dialog: Any) -> None:
        """Dismiss it, so that the page goes on; accept the one that asks whether to leave, for leaving was asked."""
        if self.on_question is not None and self.on_question(dialog):
            return
        leaving = dialog.type == "beforeunload"
        message = " ".join(dialog.message.split())[:_MAX_SHOWN]
        self.tell(f"{dialog.type} {message!r} was {'accepted' if leaving else 'dismissed'}")
        with contextlib.suppress(Exception):  # the page may be gone by now
            await (dialog.accept() if leaving else dialog.dismiss())

    def tell(self, what: str) -> None:
        """Keep a line on what was shown besides the page."""
        if len(self._dialogs) < _MAX_DIALOGS:
            self._dialogs.append(what)
        else:
            self._more_dialogs += 1

    async def _on_popup(self, page: Any) -> None:
        if page is self._page or self.opening or self.follows:
            return
        self.requests_blocked += 1
        with contextlib.suppress(Exception):
            await page.close()

    def _on_socket(self, socket: Any) -> None:
        """Count a web socket; the browser itself cannot reach anybody with it."""
        self.count_blocked(socket.url)

    def count_blocked(self, address: str) -> None:
        """Note a request that was not let through."""
        self.requests_blocked += 1
        if self.requests_blocked <= _MAX_LOGGED:
            log.warning("page %d: blocked a request to %s", self.number, address[:_MAX_SHOWN])

    async def _block(self, route: Any) -> None:
        self.count_blocked(route.request.url)
        with contextlib.suppress(Exception):
            await route.abort()


def _drop(call: Awaitable[Any]) -> None:
    if asyncio.iscoroutine(call):
        call.close()
