"""A page of somebody else's site, which may be hostile: every wait is bounded, and nothing it does is a fault of ours.

Reading and acting happen in a JavaScript world of our own inside the page (an isolated world of the DevTools
protocol): it shares the page's DOM and nothing else, so a page that replaces `querySelector` or `JSON` is read all the
same. A page that hangs, crashes or closes itself is replaced by an empty one in the same context; where even that
cannot be had, the browser is broken, and only that is a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from rollwright.contracts import EnvironmentFault

from ..chromium.page import PageLeft, PageRefused, WebPage
from ..chromium.processes import CLOSE_S
from .aria import MAX_ELEMENTS, Numbers
from .forwarding import Forwarder
from .isolated import IsolatedWorld
from .questions import Questions
from .tabs import Tabs

log = logging.getLogger(__name__)

_READ_TRIES = 5
_RENEW_S = 6.0
_PAUSE_S = 3.0
_MARK_S = 2.0
_READ_LIMITS = {"items": 5000, "chars": 200_000}
_READ_S = 6.0
_MAX_ADDRESS = 2000
LOST = "the page stopped answering and was closed; open another one with goto"
UNFINISHED = "the page has not finished loading"


def new_question() -> str:
    """A name for the events by which our world asks the page's own: nobody can guess it."""
    return f"rw{secrets.token_hex(8)}"


class ForeignPage:
    """One page in a context of its own. From one `begin` to the next, all waits together stay below the sum of
    `wait_s`, `load_s` and nine seconds.

    Args:
        page: fresh from the pool, with `ears(question)` among its scripts.
        origins: the only sites that it may reach.
        question: as for `ears`.
        load_s: longest wait for the page that a click leads to.
        wait_s: longest wait for a page to open by address, and for one to be read.
    """

    def __init__(self, page: WebPage, origins: Sequence[str], *, question: str, load_s: float, wait_s: float) -> None:
        self.page = page
        self.questions = Questions()
        self._load_s = load_s
        self._wait_s = wait_s
        self._network = Forwarder(page, origins, wait_s, self._on_flood)
        self.tabs = Tabs(page, self._listen, lambda: self._network.refusal)
        self._world = IsolatedWorld(page, self.tabs, self.questions, question)
        self._chores: set[asyncio.Future[Any]] = set()
        self._files_told = False
        self.numbers = Numbers()
        self._mark = new_question()

    def begin(self) -> None:
        """Begin a step: its time runs from now."""
        self._world.begin(self._wait_s + self._load_s + _PAUSE_S)

    async def open(self) -> None:
        """Take over the page's requests, and listen to what it does besides.

        Raises:
            EnvironmentFault: the browser broke.
        """
        self.page.on_question = self.questions.take
        self.page.follows = True
        self.page.context.on("page", self._on_window)
        await self.page.call(self._network.attach(), "taking over the network")
        await self.page.call(self.tabs.start(), "attaching to the page")

    @property
    def address(self) -> str:
        """What the browser shows as the page's address."""
        return str(self.page.handle.url)[:_MAX_ADDRESS]

    def allows(self, address: str) -> bool:
        """Whether the address lies on one of the sites."""
        return self._network.allows(address)

    async def goto(self, address: str) -> str:
        """Open an address; returns why that failed, else nothing.

        Raises:
            EnvironmentFault: the browser broke.
        """
        return await self.questions.until_asked(self._surviving(self._goto(address)))

    async def travel(self, by: int) -> str:
        """Go back (-1) or forward (1) in the browser's history; returns why that failed, else nothing."""
        return await self.questions.until_asked(self._surviving(self._travel(by)))

    async def act(self, action: Mapping[str, Any]) -> str:
        """Carry out an action on the page and wait for where it leads; returns what went wrong, else nothing."""
        return await self.questions.until_asked(self._surviving(self._act(action)))

    async def respond(self, accept: bool, text: str) -> str:
        """Answer the open question; returns what went wrong with what it had interrupted, else nothing."""
        return await self.questions.answer(accept, text)

    async def switch(self, number: int) -> str:
        """Show the tab of this number; returns what went wrong, else nothing."""
        wrong = self.tabs.focus(number)
        self._later(self.page.handle.bring_to_front())
        return wrong

    async def look(self) -> tuple[list[dict[str, Any]], str]:
        """What is on the page, as `walk.js` tells it, and what stood in the way of reading, if anything."""
        found: list[dict[str, Any]] = []

        async def read() -> str:
            limits = {**_READ_LIMITS, "ms": 1000 * min(_READ_S, self._wait_s / 2)}
            found.extend((await self._read("limits => __rwSites.look(limits)", limits))["items"])
            return ""

        return found, await self.questions.until_asked(self._surviving(read()))

    async def snapshot(self, max_chars: int) -> tuple[str, str]:
        """Playwright's aria snapshot with numbers, empty for a page of too many elements; and what stood in the way."""
        found: list[str] = []
        limit_s = min(_READ_S, self._wait_s / 2)

        async def read() -> str:
            if (await self._read("() => __rwSites.size()", None))["elements"] <= MAX_ELEMENTS:
                made = self.page.handle.aria_snapshot(mode="ai", timeout=1000 * limit_s)
                found.append(self.numbers.rewritten(await self._world.call(made, limit_s + 1), max_chars))
            return ""

        self.numbers.put_away()
        trouble = await self.questions.until_asked(self._surviving(read()))
        return (found[0] if found else ""), trouble

    async def evaluate(self, expression: str) -> str:
        """What a JavaScript expression gives on the page, as text; empty where it raises or the page is lost."""
        found: list[str] = []

        async def read() -> str:
            source = f"() => JSON.stringify({{ content: String(((\n{expression}\n)) ?? '') }})"
            found.append((await self._read(source, None))["content"])
            return ""

        await self._surviving(read())
        return found[0] if found else ""

    # What may fail

    async def _goto(self, address: str) -> str:
        self._network.forget()
        try:
            await self._world.call(self.page.handle.goto(address, wait_until="load", timeout=0), self._wait_s)
        except PageLeft:
            return ""
        except PageRefused as refusal:
            if "interrupted by another navigation" in refusal.told:
                await self._settle()
                return ""
            return self._network.refusal or f"{address[:_MAX_ADDRESS]} could not be opened: {refusal.told}"
        except TimeoutError:
            return await self._give_up()
        return ""

    async def _travel(self, by: int) -> str:
        history = await self._world.call(self.tabs.shown.tools.send("Page.getNavigationHistory"), self._wait_s)
        place = history["currentIndex"] + by
        entries = history["entries"]
        if not 0 <= place < len(entries) or entries[place]["url"] == "about:blank":
            return f"there is no {'earlier' if by < 0 else 'later'} page"
        self._network.forget()
        method = self.page.handle.go_back if by < 0 else self.page.handle.go_forward
        try:
            await self._world.call(method(wait_until="domcontentloaded", timeout=0), self._wait_s)
        except (PageLeft, PageRefused):
            return self._network.refusal
        except TimeoutError:
            return await self._give_up()
        return ""

    async def _act(self, action: Mapping[str, Any]) -> str:
        self._network.forget()
        self.tabs.begin()
        arrived, framed = asyncio.Event(), asyncio.Event()

        def on_arrival(_page: Any) -> None:
            arrived.set()

        def on_frame(frame: Any) -> None:
            if frame.parent_frame is not None:
                framed.set()

        page = self.page.handle
        page.on("domcontentloaded", on_arrival)
        page.on("framenavigated", on_frame)
        try:
            if self.numbers.in_use:
                if (unknown := self.numbers.unknown(action["id"], action["to"])) is not None:
                    return f"no element {unknown} on this page"
                action = {**action, **{key: await self._own_number(action[key]) for key in ("id", "to")}}
            reply = await (self._press(action) if action["name"] == "press" else self._touch(action))
            self.page.requests_blocked += reply["foreign"]
            self._files_told = reply["files"]
            if self.tabs.windows:
                await self._first_of(self.tabs.opened)
                await self._settle()
            elif reply["closing"]:
                await self._first_of(self.tabs.closed)
            elif reply["leaving"] or self._network.pending:
                await self._first_of(arrived, self._network.refused)
            elif reply["framing"]:
                await self._first_of(framed, arrived, self._network.refused)
            if self._network.pending:
                return await self._give_up()
            return str(reply["error"]) or (
                "" if arrived.is_set() or self.page.handle is not page else self._network.refusal
            )
        except PageLeft:
            return self._network.refusal
        except PageRefused as refusal:
            return refusal.told
        finally:
            page.remove_listener("domcontentloaded", on_arrival)
            page.remove_listener("framenavigated", on_frame)

    async def _own_number(self, number: int) -> int:
        """Our number of what the last aria snapshot shows with this one; 0, which nothing has, where it is gone."""
        if not (reference := self.numbers.reference(number)):
            return 0
        await self._world.ask("name => __rwSites.mark(name)", self._mark, self._load_s)
        sent = self.page.handle.locator(f"aria-ref={reference}").evaluate(
            "(element, name) => { element.dispatchEvent(new Event(name, { composed: true })); }",
            self._mark,
            timeout=1000 * _MARK_S,
        )
        with contextlib.suppress(PageRefused):
            await self._world.call(sent, _MARK_S + 1)
        return int((await self._world.ask("() => __rwSites.marked()", None, self._load_s))["id"])

    async def _touch(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out an action by our own script; what it led to."""
        return await self._world.ask("action => __rwSites.act(action, false)", dict(action), self._load_s)

    async def _press(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """Press a key of the browser's own keyboard, which pages cannot tell from a hand; what it led to."""
        reply = await self._world.ask("id => __rwSites.aim(id)", action["id"], self._load_s)
        if reply["error"]:
            return {**reply, "leaving": False, "framing": False, "closing": False, "foreign": 0, "files": False}
        await self._world.call(self.page.handle.keyboard.press(action["text"]), self._load_s)
        return await self._world.ask("() => __rwSites.left()", None, self._load_s)

    async def _first_of(self, *events: asyncio.Event) -> None:
        """Wait until one is set, `load_s` at most."""
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(
            waits, timeout=max(0.5, min(self._load_s, self._world.left_s)), return_when=asyncio.FIRST_COMPLETED
        )
        for wait in waits:
            wait.cancel()

    async def _give_up(self) -> str:
        """Stop a journey that takes too long; the page stays where it is, or half loaded.

        Raises:
            TimeoutError: the page itself is silent.
        """
        address = self._network.pending
        self._later(self.tabs.shown.tools.send("Page.stopLoading"))
        await self._world.ask("() => '{}'", None, _PAUSE_S)
        return (
            f"{address[:_MAX_ADDRESS]} did not answer in time; the page stays where it was" if address else UNFINISHED
        )

    async def _read(self, function: str, argument: Any) -> dict[str, Any]:
        """Ask the page where it has come to rest.

        Raises:
            PageRefused: it never does.
        """
        for _ in range(_READ_TRIES):
            try:
                return await self._world.ask(function, argument, self._wait_s)
            except PageLeft:
                await self._settle()
        raise PageRefused("reading the page", "it leads on to another page without end")

    async def _settle(self) -> None:
        with contextlib.suppress(PageLeft, PageRefused, TimeoutError):
            await self._world.call(self.page.handle.wait_for_load_state("domcontentloaded"), self._load_s)

    # A page that is lost

    async def _surviving(self, work: Any) -> str:
        """Do something with the page; one that is lost over it is replaced.

        Raises:
            EnvironmentFault: there is no other page to be had.
        """
        began = self.page.handle
        try:
            return str(await work)
        except PageRefused as refusal:
            return refusal.told
        except (EnvironmentFault, PageLeft, TimeoutError) as trouble:
            if self.tabs.left(began):
                return ""
            log.warning("page %d is replaced: %s", self.page.number, trouble or type(trouble).__name__)
        await self._renew()
        return LOST

    async def _renew(self) -> None:
        self.questions.forget()
        self._later(
            self.tabs.shown.tools.send("Page.crash")
        )  # ends a script without end; a page that hangs never answers it
        left_s = 0.0 if self._world.left_s == float("inf") else self._world.left_s
        try:
            async with asyncio.timeout(max(0.0, left_s) + _RENEW_S):
                await self.page.replace()
                await self.tabs.start()
            for other in self.page.context.pages:
                if other is not self.page.handle:
                    self._later(other.close())
        except Exception as error:
            raise EnvironmentFault(f"the browser gives no new page: {type(error).__name__}: {error}") from error
        self._network.forget()

    def _listen(self, page: Any) -> None:
        page.on("download", self._on_download)
        page.on("filechooser", self._on_chooser)

    def _later(self, call: Any) -> None:
        async def quietly() -> None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(call, CLOSE_S)

        chore = asyncio.ensure_future(quietly())
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    def _on_flood(self) -> None:
        log.warning("page %d asks for too much at once; it is ended", self.page.number)
        self.page.crashed = True
        self._later(self.tabs.shown.tools.send("Page.crash"))

    def _on_download(self, download: Any) -> None:
        self._network.refuse(f"{str(download.url)[:200]} is a file to download; files are not opened here")

    def _on_chooser(self, _chooser: Any) -> None:
        if not self._files_told:
            self.page.tell("a choice of files was closed: files cannot be chosen here")

    def _on_window(self, page: Any) -> None:
        if page is not self.page.handle and not self.page.opening:
            self._later(self.tabs.adopt(page))
