"""The tabs of one episode: windows that its pages open are followed, listed by number, switched and closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..chromium.page import WebPage
from ..chromium.processes import CLOSE_S

MAX_TABS = 8
_MAX_SHOWN = 100
_BLANK = ("", "about:blank")


@dataclass(frozen=True, slots=True)
class Tab:
    """A page of Playwright's, its session of the DevTools protocol, and the name of its main frame there."""

    handle: Any
    tools: Any
    frame: str


class Tabs:
    """All tabs of a context; the one that is shown is `page.handle`.

    Args:
        page: of the pool; new tabs take its place.
        prepare: called once with each new page, to listen to it.
        refused: why the last journey came to nothing: a window that stays blank for that reason is closed.

    `windows` counts what the page has opened since `begin`, `opened` is set as soon as one is there, and
    `closed` as soon as a tab is gone.
    """

    def __init__(self, page: WebPage, prepare: Callable[[Any], None], refused: Callable[[], str]) -> None:
        self.windows = 0
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self._page = page
        self._prepare = prepare
        self._refused = refused
        self._tabs: list[Tab] = []
        self._coming = 0

    @property
    def shown(self) -> Tab:
        """The tab that is shown."""
        return next((tab for tab in self._tabs if tab.handle is self._page.handle), self._tabs[-1])

    @property
    def line(self) -> str:
        """The tabs by number; empty where there is only one."""
        if len(self._tabs) < 2:
            return ""
        marks = {True: " (shown)", False: ""}
        told = [
            f"{number} {str(tab.handle.url)[:_MAX_SHOWN]}{marks[tab is self.shown]}"
            for number, tab in enumerate(self._tabs, start=1)
        ]
        return f"Tabs: {', '.join(told)}; tab_focus N shows another one, tab_close closes this one"

    def begin(self) -> None:
        """Begin to count the windows that an action opens."""
        self.windows = 0
        self.opened.clear()
        self.closed.clear()

    async def start(self) -> None:
        """Begin with the page of the pool alone."""
        self._tabs = [await self._attached(self._page.handle)]

    async def adopt(self, handle: Any) -> None:
        """Show a window that a page has opened; close it where it stayed blank or is one too many."""
        try:
            self._coming += 1
            if len(self._tabs) + self._coming > MAX_TABS:
                self._page.tell(f"a further window was closed: there are {MAX_TABS} tabs")
                raise ValueError(handle)
            if self._refused() and handle.url in _BLANK:
                raise ValueError(handle)
            self._page.adopt(handle)
            self._tabs.append(await self._attached(handle))
            self._page.show(handle)
        except Exception:  # it is not wanted, or gone by now
            self._page.requests_blocked += 1
            with contextlib.suppress(Exception):
                await asyncio.wait_for(handle.close(), CLOSE_S)
        finally:
            self._coming -= 1
            self.opened.set()

    def focus(self, number: int) -> str:
        """Show the tab of this number; returns what went wrong, else nothing."""
        if not 1 <= number <= len(self._tabs):
            return f"there is no tab {number}; there {'is one' if len(self._tabs) == 1 else f'are {len(self._tabs)}'}"
        self._page.show(self._tabs[number - 1].handle)
        return ""

    async def close(self) -> str:
        """Close the tab that is shown; returns what went wrong, else nothing."""
        if len(self._tabs) < 2:
            return "the only tab cannot be closed"
        closing = self.shown
        self._drop(closing.handle)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(closing.handle.close(), CLOSE_S)
        return ""

    def left(self, handle: Any) -> bool:
        """Whether this page has closed itself while another tab is there, which is shown then."""
        if not handle.is_closed():
            return False
        self._drop(handle)
        return self._page.handle is not handle

    async def _attached(self, handle: Any) -> Tab:
        self._prepare(handle)
        handle.on("close", self._drop)
        tools = await self._page.context.new_cdp_session(handle)
        tools.on("Page.windowOpen", self._on_open)
        await tools.send("Page.enable")
        return Tab(handle, tools, (await tools.send("Target.getTargetInfo"))["targetInfo"]["targetId"])

    def _on_open(self, _what: Any) -> None:
        self.windows += 1

    def _drop(self, handle: Any) -> None:
        self.closed.set()
        rest = [tab for tab in self._tabs if tab.handle is not handle]
        if not rest:
            return
        self._tabs = rest
        if self._page.handle is handle:
            self._page.show(rest[-1].handle)
