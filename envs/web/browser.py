"""Pages of a real Chromium, lent to environments and taken back.

Making a page costs 0.15 s and loading a task 0.1 s, resetting it in place 10 ms: so pages are kept, and an environment
gets, if it can, one that has its task loaded. Every call into a page has a deadline. A page that crashed or hangs is
thrown away and its environment gets an `EnvironmentFault`; a browser is replaced after a number of episodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollwright.errors import EnvironmentFault, MissingDependency

from .processes import FLAGS, Watchdog, find_browser

log = logging.getLogger(__name__)

_CLOSE_S = 5.0
_MAX_DIALOG_CHARS = 200
_GONE = ("Execution context was destroyed", "Cannot find context", "__rw is not defined", "frame was detached")


class PageLeft(Exception):
    """The page navigated away in the middle of a call: the episode in it is over."""


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """What a page may do.

    `root` is the only folder whose files it may load, `scripts` run before those of the page, `deadline_s` bounds every
    single call into the page, `viewport` is in CSS pixels.
    """

    root: Path
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
        allowed = re.escape(self._limits.root.resolve().as_uri() + "/")
        await self._context.route(re.compile(rf"^(?!{allowed}|data:|blob:|about:)"), self._block)
        self._page = await self._context.new_page()
        self._page.on("crash", self._on_crash)
        self._page.on("dialog", self._on_dialog)
        self._page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        self._context.on("page", self._on_popup)

    async def load(self, address: str) -> None:
        """Go to a file of the root."""
        self.address = ""
        await self._call(self._page.goto(address, wait_until="load"), f"loading {address}")
        self.address = address

    async def ask(self, function: str, argument: Any = None) -> dict[str, Any]:
        """Call a function of the page's script that returns JSON."""
        text = await self._call(self._page.evaluate(function, argument), function)
        return dict(json.loads(text))

    async def mouse(self, method: str, *arguments: Any, **options: Any) -> None:
        """Use the browser's own mouse: trusted events."""
        await self._call(getattr(self._page.mouse, method)(*arguments, **options), f"mouse.{method}")

    async def keyboard(self, method: str, text: str) -> None:
        """Use the browser's own keyboard: trusted events."""
        await self._call(getattr(self._page.keyboard, method)(text), f"keyboard.{method}")

    async def screenshot(self) -> bytes:
        """The viewport as PNG."""
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
            await asyncio.wait_for(self._context.close(), _CLOSE_S)
        except Exception as error:
            log.warning("page %d did not close: %s", self.number, _first_line(error))
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
                raise PageLeft(_first_line(error)) from error
            raise EnvironmentFault(f"page {self.number} failed ({what}): {_first_line(error)}") from error

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


class Browser:
    """One Chromium process with its count of pages and episodes."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.pages = 0
        self.episodes = 0
        self.retired = False


class BrowserPool:
    """Lends pages. Belongs to one event loop; starts its browser when the first page is asked for.

    Args:
        limits: what each page may do.
        idle_pages: pages kept warm; more are closed when they come back.
        episodes_per_browser: a browser older than this gets no new pages and is closed when its last one is back.
        pages_per_browser: with more pages than this at once, another browser is started.
    """

    def __init__(
        self,
        limits: PageLimits,
        *,
        idle_pages: int = 64,
        episodes_per_browser: int = 5000,
        pages_per_browser: int = 128,
    ) -> None:
        self.faults: list[str] = []
        self.requests_blocked = 0
        self._limits = limits
        self._idle_pages = idle_pages
        self._episodes_per_browser = episodes_per_browser
        self._pages_per_browser = pages_per_browser
        self._idle: list[WebPage] = []
        self._lent: set[WebPage] = set()
        self._browsers: list[Browser] = []
        self._numbers = itertools.count(1)
        self._starting: asyncio.Lock | None = None
        self._playwright: Any = None
        self._watchdog: Watchdog | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._closed = False

    async def lend(self, address: str) -> WebPage:
        """A page that shows `address`, warm if there is one.

        Raises:
            MissingDependency: Playwright or a Chromium is missing.
            EnvironmentFault: the browser or the page could not be started.
        """
        page = self._pick(address)
        if page is None:
            page = await self._new_page()
        self._lent.add(page)
        if page.address != address:
            try:
                await page.load(address)
            except BaseException as error:
                self.discard(page, str(error))
                raise
        return page

    def give_back(self, page: WebPage) -> None:
        """Take a page back in good order."""
        if page not in self._lent:
            return
        self._lent.discard(page)
        self._count(page)
        if page.browser.retired or len(self._idle) >= self._idle_pages or self._closed:
            self._later(self._dispose(page))
        else:
            self._idle.append(page)

    def discard(self, page: WebPage, reason: str) -> None:
        """Throw a broken page away, and write down why."""
        self.faults.append(reason)
        log.warning("%s", reason)
        self._lent.discard(page)
        self._count(page)
        self._later(self._dispose(page, broken=True))

    def count_episode(self, page: WebPage) -> None:
        """Note that an episode began; retires the browser when it has had its share."""
        page.browser.episodes += 1
        if page.browser.episodes >= self._episodes_per_browser and not page.browser.retired:
            self._retire(page.browser)

    async def close(self) -> None:
        """Close everything. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for page in [*self._idle, *self._lent]:
            self._count(page)
        self._idle.clear()
        self._lent.clear()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await asyncio.gather(*(_quietly(browser.handle.close()) for browser in self._browsers))
        if self._playwright is not None:
            await _quietly(self._playwright.stop())
        if self._watchdog is not None:
            await asyncio.to_thread(self._watchdog.close)

    def _pick(self, address: str) -> WebPage | None:
        usable = [page for page in self._idle if page.browser.handle.is_connected()]
        self._idle = usable
        same = next((page for page in usable if page.address == address), None)
        page = same or (usable[0] if usable else None)
        if page is not None:
            usable.remove(page)
        return page

    async def _new_page(self) -> WebPage:
        browser = await self._browser()
        page = WebPage(next(self._numbers), self._limits, browser)
        browser.pages += 1
        try:
            await asyncio.wait_for(page.open(browser.handle), 6 * self._limits.deadline_s)
        except Exception as error:
            browser.pages -= 1
            self._retire(browser)
            self.faults.append(f"no new page: {_first_line(error)}")
            raise EnvironmentFault(f"the browser gave no new page: {_first_line(error)}") from error
        return page

    async def _browser(self) -> Browser:
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._closed:
                raise EnvironmentFault("the web world is closed; build a new one")
            for browser in self._browsers:
                if not browser.retired and browser.handle.is_connected() and browser.pages < self._pages_per_browser:
                    return browser
            browser = Browser(await self._launch())
            self._browsers = [b for b in self._browsers if b.handle.is_connected()] + [browser]
            return browser

    async def _launch(self) -> Any:
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError as error:
            raise MissingDependency("the web world needs Playwright: pip install 'rollwright[web]'") from error
        if self._watchdog is None:
            self._watchdog = Watchdog()
        try:
            if self._playwright is None:
                self._playwright = await async_playwright().start()
            return await self._playwright.chromium.launch(
                executable_path=find_browser(),
                args=list(FLAGS),
                env=self._watchdog.environment(),
                artifacts_dir=self._watchdog.artifacts,
                handle_sigint=False,
                handle_sigterm=False,
                handle_sighup=False,
            )
        except Error as error:
            if "Executable doesn't exist" in str(error):
                raise MissingDependency(
                    "no Chromium found: apt install chromium-headless-shell, or playwright install chromium"
                ) from error
            raise EnvironmentFault(f"Chromium did not start: {_first_line(error)}") from error

    def _count(self, page: WebPage) -> None:
        self.requests_blocked += page.requests_blocked
        page.requests_blocked = 0

    def _retire(self, browser: Browser) -> None:
        browser.retired = True
        stale = [page for page in self._idle if page.browser is browser]
        self._idle = [page for page in self._idle if page.browser is not browser]
        for page in stale:
            self._later(self._dispose(page))
        if browser.pages == 0:
            self._later(_quietly(browser.handle.close()))

    async def _dispose(self, page: WebPage, *, broken: bool = False) -> None:
        closed = await page.close()
        page.browser.pages -= 1
        if not closed and broken and not page.browser.retired:
            self._retire(page.browser)  # whatever keeps the page alive may cost a core: replace the whole browser
        if page.browser.retired and page.browser.pages == 0:
            await _quietly(page.browser.handle.close())

    def _later(self, chore: Any) -> None:
        task = asyncio.ensure_future(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


async def _quietly(call: Awaitable[Any]) -> None:
    """Close something that may be gone already."""
    try:
        await asyncio.wait_for(call, _CLOSE_S)
    except Exception as error:
        log.debug("while closing: %s", _first_line(error))


def _drop(call: Awaitable[Any]) -> None:
    if asyncio.iscoroutine(call):
        call.close()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
