"""`confirm` and `prompt` of a page wait until the policy answers, and the work that they interrupt waits too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

_ANSWER_S = 3.0
_MAX_SHOWN = 200


class Questions:
    """At most one open question. While it is open the page's script stands still, and so does all that reads it."""

    def __init__(self) -> None:
        self.holding = True
        self._dialog: Any = None
        self._opened = asyncio.Event()
        self._answered = asyncio.Event()
        self._work: asyncio.Future[str] | None = None

    @property
    def line(self) -> str:
        """The open question for the policy; empty where there is none."""
        if self._dialog is None:
            return ""
        kind, message = self._dialog.type, " ".join(self._dialog.message.split())[:_MAX_SHOWN]
        text, given = " text" if kind == "prompt" else "", self._dialog.default_value[:_MAX_SHOWN]
        preset = f" with {given!r} filled in" if text and given else ""
        return f"Dialog: {kind} {message!r}{preset} is open; answer it with accept_dialog{text} or dismiss_dialog"

    def take(self, dialog: Any) -> bool:
        """Hold a dialog; False where nobody would answer it, or where another one is open."""
        if not self.holding or self._dialog is not None or dialog.type not in ("confirm", "prompt"):
            return False
        self._dialog = dialog
        self._answered.clear()
        self._opened.set()
        return True

    def forget(self) -> None:
        """The page is gone, and its question with it."""
        self._dialog = None
        self._opened.clear()
        self._answered.set()

    def close(self) -> None:
        """Give up what was set aside."""
        self.forget()
        if self._work is not None:
            self._work.cancel()
        self._work = None

    async def idle(self) -> None:
        """Wait until no question is open."""
        while self._dialog is not None:
            await self._answered.wait()

    async def until_asked(self, work: Awaitable[str]) -> str:
        """Do something with the page; where a question opens over it, set it aside and return nothing."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._opened.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            asked.cancel()
        if task.done():
            return task.result()
        self._work = task
        return ""

    async def answer(self, accept: bool, text: str) -> str:
        """Answer the open question, then end what it interrupted; returns what went wrong with that, else nothing."""
        dialog, work, self._work = self._dialog, self._work, None
        given = (text or dialog.default_value,) if dialog.type == "prompt" else ()
        self.forget()
        with contextlib.suppress(Exception):  # the page may be gone by now
            await asyncio.wait_for(dialog.accept(*given) if accept else dialog.dismiss(), _ANSWER_S)
        return await self.until_asked(work) if work is not None else ""
