"""Pages of a real Chromium, lent to environments and taken back.

Making a page costs 0.15 s and loading a task 0.1 s, resetting it in place 10 ms: so pages are kept, and an environment
gets, if it can, one that has its task loaded. Every call into a page has a deadline. A page that crashed or hangs is
thrown away and its environment gets an `EnvironmentFault`; a browser is replaced after a number of episodes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from typing import Any

from rollwright.contracts import EnvironmentFault, MissingDependency

from .page import PageLimits, WebPage
from .processes import FLAGS, UNDRAWN, Browser, Watchdog, closes_quietly, find_browser, first_line, starter

log = logging.getLogger(__name__)


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

    async def lend(self, address: str, *, draw: bool = False, state: dict[str, Any] | None = None) -> WebPage:
        """A page that shows `address`, warm if there is one; from a browser that paints if `draw`.

        Args:
            state: cookies and local storage that a fresh page begins with, as Playwright saves them.

        Raises:
            MissingDependency: Playwright or a Chromium is missing.
            EnvironmentFault: the browser or the page could not be started.
        """
        page = self._pick(address, draw) if state is None else None
        if page is None:
            page = await self._new_page(draw, state)
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

    def discard(self, page: WebPage, reason: str, *, fault: bool = True) -> None:
        """Throw a broken page away, and write down why; `fault` is False where the policy broke it."""
        if fault:
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
        await asyncio.gather(*(browser.close() for browser in self._browsers))
        if self._playwright is not None:
            await closes_quietly(self._playwright.stop())
        if self._watchdog is not None:
            await asyncio.to_thread(self._watchdog.close)

    def _pick(self, address: str, draw: bool) -> WebPage | None:
        self._idle = [page for page in self._idle if page.browser.handle.is_connected()]
        usable = [page for page in self._idle if page.browser.draws == draw]
        same = next((page for page in usable if page.address == address), None)
        page = same or (usable[0] if usable else None)
        if page is not None:
            self._idle.remove(page)
        return page

    async def _new_page(self, draw: bool, state: dict[str, Any] | None) -> WebPage:
        browser = await self._browser(draw)
        page = WebPage(next(self._numbers), self._limits, browser)
        browser.pages += 1
        try:
            await asyncio.wait_for(page.open(browser.handle, state), 6 * self._limits.deadline_s)
        except asyncio.CancelledError:
            self._later(self._dispose(page))
            raise
        except Exception as error:
            browser.pages -= 1
            self._retire(browser)
            self.faults.append(f"no new page: {first_line(error)}")
            raise EnvironmentFault(f"the browser gave no new page: {first_line(error)}") from error
        return page

    async def _browser(self, draw: bool) -> Browser:
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._closed:
                raise EnvironmentFault("the web world is closed; build a new one")
            for browser in self._browsers:
                fits = browser.draws == draw and not browser.retired and browser.handle.is_connected()
                if fits and browser.pages < self._pages_per_browser:
                    return browser
            mark = secrets.token_hex(8)
            browser = Browser(await self._launch(draw, mark), draws=draw, mark=mark)
            self._browsers = [b for b in self._browsers if b.handle.is_connected()] + [browser]
            return browser

    async def _launch(self, draw: bool, mark: str) -> Any:
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError as error:
            raise MissingDependency("the web world needs Playwright: pip install 'rollwright[web]'") from error
        if self._watchdog is None:
            self._watchdog = Watchdog()
        try:
            if self._playwright is None:
                self._playwright = await async_playwright().start()
            program = find_browser()  # Playwright's own is started by Playwright alone, and held by the flags
            return await self._playwright.chromium.launch(
                executable_path=await asyncio.to_thread(starter, program, self._watchdog.artifacts)
                if program
                else None,
                args=[*FLAGS, *(() if draw else UNDRAWN)],
                env=self._watchdog.environment(mark),
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
            raise EnvironmentFault(f"Chromium did not start: {first_line(error)}") from error

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
            self._later(browser.close())

    async def _dispose(self, page: WebPage, *, broken: bool = False) -> None:
        closed = await page.close()
        page.browser.pages -= 1
        if not closed and broken and not page.browser.retired:
            self._retire(page.browser)  # whatever keeps the page alive may cost a core: replace the whole browser
        if page.browser.retired and page.browser.pages == 0:
            await page.browser.close()

    def _later(self, chore: Any) -> None:
        task = asyncio.ensure_future(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
