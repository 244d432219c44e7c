"""The two environments: without a browser, and in one. Both play the same `Episode`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from rollwright.contracts import EnvironmentFault, Observation, StepResult, Task, split_of_seed

from ..chromium.browser_pool import BrowserPool
from ..chromium.page import PageLeft, PageRefused, WebPage
from ..observe import Element, read_elements
from ..page_actions import ActionError
from .bare import BarePage
from .episode import Episode, Move, read_header

log = logging.getLogger(__name__)

Begin = Callable[[Task, int], Episode]
NO_EPISODE = "step() needs a running episode; call reset() first"


def check_seed(task: Task, seed: int) -> None:
    """Keep the splits apart.

    Raises:
        ValueError: the seed belongs to another split than the task.
    """
    if split_of_seed(seed) != task.split:
        raise ValueError(
            f"seed {seed} is a {split_of_seed(seed)} seed but task {task.id!r} is of split {task.split!r}; "
            "draw seeds with episode_seed(task.split, ...)"
        )


class BareEnv:
    """One episode at a time without a browser. Made by `SitesWorld.make`."""

    def __init__(self, begin: Begin, count_blocked: Callable[[int], None]) -> None:
        self._begin = begin
        self._count_blocked = count_blocked
        self._page: BarePage | None = None
        self.episode: Episode | None = None

    def reset(self, task: Task, seed: int) -> Observation:
        """Start `task` from `seed`.

        Raises:
            ValueError: the seed belongs to another split than the task.
        """
        check_seed(task, seed)
        self.close()
        self.episode = self._begin(task, seed)
        self.episode.server.open("GET", "/")
        self._page = BarePage(self.episode.server)
        return self.episode.begin(self._page.elements())

    def step(self, action: str) -> StepResult:
        """Carry out one action; what cannot be carried out becomes an error line, and the turn is spent.

        Raises:
            RuntimeError: there is no episode to step in.
        """
        episode, page = self.episode, self._page
        if episode is None or page is None or episode.over:
            raise RuntimeError(NO_EPISODE)
        visits, writes, error = episode.server.visits, episode.server.writes, ""
        try:
            move = episode.decide(action)
            if move.address is not None:
                page.visit(move.address)
            elif move.action is not None:
                error = page.act(move.action)
        except ActionError as slip:
            error = str(slip)
        if episode.server.visits > visits:
            episode.arrived()
        if episode.server.writes > writes:
            episode.judge()
        self._count_blocked(episode.blocked + page.blocked)
        episode.blocked = page.blocked = 0
        return episode.result(page.elements(), error)

    def fingerprint(self) -> str:
        """A key of all that the policy sees."""
        return self.episode.fingerprint() if self.episode else "none"

    def snapshot(self) -> bytes:
        """Everything: database, page, what was filled in, counters."""
        if self.episode is None or self._page is None:
            raise RuntimeError("there is no running episode; call reset() first")
        return self.episode.pack(self._page.filled())

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot, of this environment or another one, with or without a browser."""
        header, data = read_header(state)
        task = Task(**header["task"])
        if self.episode is None or (self.episode.task, self.episode.seed) != (task, header["seed"]):
            self.close()
            self.episode = self._begin(task, header["seed"])
        self.episode.unpack(header, data)
        self._page = BarePage(self.episode.server)
        self._page.put(header["filled"])

    def close(self) -> None:
        """Let the episode go. May be called twice."""
        if self.episode is not None:
            self.episode.close()
        self.episode = self._page = None


class BrowserEnv:
    """One episode at a time, each in a browser context of its own. Made by `SitesWorld.make`."""

    def __init__(self, begin: Begin, count_blocked: Callable[[int], None], pool: BrowserPool) -> None:
        self._begin = begin
        self._count_blocked = count_blocked
        self._pool = pool
        self._page: WebPage | None = None
        self._saved: str | None = None
        self._elements: tuple[Element, ...] = ()
        self.episode: Episode | None = None

    async def reset(self, task: Task, seed: int) -> Observation:
        """Start `task` from `seed`.

        Raises:
            ValueError: the seed belongs to another split than the task.
            EnvironmentFault: the browser or the page broke.
        """
        check_seed(task, seed)
        await self.close()
        episode = self.episode = self._begin(task, seed)
        await self._guarded(self._open(episode))
        self._elements = await self._guarded(self._visit("/"))
        return episode.begin(self._elements)

    async def step(self, action: str) -> StepResult:
        """Carry out one action; what cannot be carried out becomes an error line, and the turn is spent.

        Raises:
            EnvironmentFault: the browser or the page broke.
            RuntimeError: there is no episode to step in.
        """
        episode = self.episode
        if episode is None or self._page is None or episode.over:
            raise RuntimeError(NO_EPISODE)
        visits, writes, error = episode.server.visits, episode.server.writes, ""
        try:
            error = await self._guarded(self._do(episode.decide(action)))
        except ActionError as slip:
            error = str(slip)
        if episode.server.visits > visits:
            episode.arrived()
        if episode.server.writes > writes:
            episode.judge()
        self._count_blocked(episode.blocked)
        episode.blocked = 0
        return episode.result(self._elements, error)

    async def fingerprint(self) -> str:
        """A key of all that the policy sees."""
        return self.episode.fingerprint() if self.episode else "none"

    async def snapshot(self) -> bytes:
        """Everything: database, page, what was filled in, counters."""
        if self.episode is None or self._page is None:
            raise RuntimeError("there is no running episode; call reset() first")
        return self.episode.pack(await self._guarded(self._page.ask("() => __rwSites.filled()")))

    async def restore(self, state: bytes) -> None:
        """Go on from a snapshot, of this environment or another one, with or without a browser.

        Raises:
            EnvironmentFault: the page that came out is not the one that was left.
        """
        header, data = read_header(state)
        task = Task(**header["task"])
        if self.episode is None or (self.episode.task, self.episode.seed) != (task, header["seed"]):
            await self.close()
            self.episode = self._begin(task, header["seed"])
        episode = self.episode
        if self._page is None:
            await self._guarded(self._open(episode))
        episode.unpack(header, data)
        self._elements = await self._guarded(self._show_again(header))
        if not episode.shows(self._elements):
            raise self._broken(f"{task.id}: the page that was restored is not the one that was left")

    async def screenshot(self) -> bytes:
        """The page as it looks now, PNG; needs a world built with `draw`."""
        if self._page is None:
            raise RuntimeError("there is no running episode; call reset() first")
        return await self._page.screenshot()

    async def close(self) -> None:
        """Let the page and its context go. May be called twice."""
        if self._page is not None:
            self._pool.give_back(self._page)
        if self.episode is not None:
            self.episode.close()
        self.episode = self._page = None

    async def _open(self, episode: Episode) -> None:
        self._page = await self._pool.lend("", draw=episode.options.draw)
        self._pool.count_episode(self._page)
        await self._page.serve(f"http://{episode.server.site.host}", self._answer)

    def _answer(self, method: str, address: str, body: str) -> str | None:
        if self.episode is None or address == "/favicon.ico":
            return None
        return self._saved or self.episode.server.open(method, address, body)

    async def _do(self, move: Move) -> str:
        """Carry out a move and look; what the browser refuses becomes an error line."""
        assert self._page is not None
        try:
            return await self._carry_out(self._page, move)
        except PageRefused as refusal:
            log.warning("%s", refusal)
            self._elements = await self._look()
            return refusal.told
        except PageLeft:  # faster than its own answer
            await self._page.settle()
            self._elements = await self._look()
            return ""

    async def _carry_out(self, page: WebPage, move: Move) -> str:
        if move.address is not None:
            self._elements = await self._visit(move.address)
        elif move.action is not None:
            reply = await page.follow("action => __rwSites.act(action)", move.action.payload())
            self._count_blocked(reply["foreign"])
            self._elements = await self._look() if reply["leaving"] else read_elements(reply["items"])
            return str(reply["error"])
        return ""

    async def _visit(self, address: str) -> tuple[Element, ...]:
        assert self._page is not None and self.episode is not None
        await self._page.load(f"http://{self.episode.server.site.host}{address}")
        return await self._look()

    async def _look(self) -> tuple[Element, ...]:
        assert self._page is not None
        return read_elements((await self._page.ask("() => __rwSites.look()"))["items"])

    async def _show_again(self, header: dict[str, Any]) -> tuple[Element, ...]:
        """Load the page as it was served then, without asking the site again, and fill in what was filled in."""
        assert self._page is not None
        self._saved = header["html"]
        try:
            await self._visit(header["address"])
        finally:
            self._saved = None
        return read_elements((await self._page.ask("state => __rwSites.put(state)", header["filled"]))["items"])

    async def _guarded(self, work: Any) -> Any:
        """Await something that may break; a page that broke is thrown away."""
        try:
            return await work
        except PageLeft as left:
            raise self._broken(f"the page was left in the middle of a call: {left}") from left
        except EnvironmentFault as fault:
            raise self._broken(str(fault)) from fault
        except asyncio.CancelledError:
            self._broken("a call was cancelled")
            raise

    def _broken(self, reason: str) -> EnvironmentFault:
        if self._page is not None:
            self._pool.discard(self._page, reason)
        self._page = None
        return EnvironmentFault(reason)
