"""A JavaScript world of our own in a page of somebody else's, and the time that a step has left for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ..chromium.page import PageRefused, WebPage, page_scripts
from .questions import Questions
from .tabs import Tabs

_NAME = "rollwright"
_SCRIPTS = ("foreign.js", "walk.js", "act.js", "sites.js")
_QUESTION = "__RW_QUESTION__"


def ears(question: str) -> str:
    """The script for the page's own world."""
    return page_scripts("ears.js").replace(_QUESTION, question)


class IsolatedWorld:
    """Asks the tab that is shown. No call outlasts the step; while a question of the page is open, no time passes.

    Args:
        question: the name by which our world asks the page's own, as for `ears`.
    """

    def __init__(self, page: WebPage, tabs: Tabs, questions: Questions, question: str) -> None:
        self._page = page
        self._tabs = tabs
        self._questions = questions
        self._scripts = page_scripts(*_SCRIPTS).replace(_QUESTION, question)
        self._end = float("inf")

    def begin(self, limit_s: float) -> None:
        """Begin a step of this many seconds."""
        self._end = asyncio.get_running_loop().time() + limit_s

    @property
    def left_s(self) -> float:
        """What is left of the step, in seconds; endless before the first one."""
        return self._end - asyncio.get_running_loop().time()

    async def ask(self, function: str, argument: Any, wait_s: float) -> dict[str, Any]:
        """Call a function in our own world that returns JSON. Text goes there as a value, never as source.

        Raises:
            TimeoutError: no answer in time.
        """
        reply = await self.call(self._evaluated(function, argument), wait_s)
        if "exceptionDetails" in reply:
            raised = reply["exceptionDetails"].get("exception", {}).get("description", "the script raised")
            raise PageRefused("a script of ours in the page", str(raised).split("\n", 1)[0][:200])
        return dict(json.loads(reply["result"]["value"]))

    async def _evaluated(self, function: str, argument: Any) -> dict[str, Any]:
        tab = self._tabs.shown
        made = await tab.tools.send("Page.createIsolatedWorld", {"frameId": tab.frame, "worldName": _NAME})
        context = made["executionContextId"]
        there = {"contextId": context, "returnByValue": True}
        known = await tab.tools.send(
            "Runtime.evaluate", {**there, "expression": "Object.hasOwn(globalThis, '__rwSites')"}
        )
        if not known["result"].get("value"):
            await tab.tools.send("Runtime.evaluate", {**there, "expression": self._scripts})
        call = {
            "functionDeclaration": function,
            "executionContextId": context,
            "arguments": [{"value": argument}],
            "awaitPromise": True,
            "returnByValue": True,
            "userGesture": True,
        }
        return dict(await tab.tools.send("Runtime.callFunctionOn", call))

    async def call(self, call: Any, wait_s: float) -> Any:
        """As `WebPage.call`; what silence means is decided here.

        Raises:
            TimeoutError: no answer in time.
        """
        answer = asyncio.ensure_future(self._page.answer(call, "a foreign page"))
        try:
            while True:
                if (await asyncio.wait({answer}, timeout=max(0.5, min(wait_s, self.left_s))))[0]:
                    return answer.result()
                if not self._questions.line:
                    raise TimeoutError
                await self._questions.idle()  # the policy's time does not count
        finally:
            answer.cancel()
