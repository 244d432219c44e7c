"""One MiniWoB++ episode in a borrowed page: reset, act, observe, reward, replay."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rollwright.contracts import (
    Attachment,
    ConfigError,
    EnvironmentFault,
    Observation,
    Split,
    StepResult,
    Task,
    attach_picture,
    split_of_seed,
    state_key,
)

from ..chromium.browser_pool import BrowserPool
from ..chromium.page import PageHung, PageLeft, PageRefused, WebPage
from ..observe import Element, read_elements, render
from ..page_actions import IN_PAGE, POINTER, Action, ActionError, parse_action
from .splits import POINTING, RELOAD_ON_RESET

log = logging.getLogger(__name__)

_DATA_MODE: dict[Split, str] = {"train": "train", "validation": "test", "test": "test"}
_DRAG_STEPS = 5
_TYPED_CHARS = 300
"""Each key takes several messages to the browser; what is longer goes on as if pasted, or the page seems to hang."""


@dataclass(frozen=True, kw_only=True)
class MiniWobOptions:
    """How episodes are played; `build` says what each option means."""

    max_turns: int = 8
    success_threshold: float = 1.0
    reward: Literal["success", "raw"] = "success"
    step_ms: int = 500
    max_chars: int = 4000
    positions: bool | None = None
    screenshots: bool | str | None = None
    draw: bool = False

    def __post_init__(self) -> None:
        if self.reward not in ("success", "raw"):
            raise ConfigError(f"reward={self.reward!r} is unknown; use 'success' or 'raw'")
        if not 0 < self.success_threshold <= 1:
            raise ConfigError(f"success_threshold={self.success_threshold} must lie in (0, 1]")
        if self.max_turns < 1 or self.step_ms < 0 or self.max_chars < 1:
            raise ConfigError("max_turns and max_chars must be at least 1, step_ms at least 0")


class MiniWobEnv:
    """One episode at a time, in a page borrowed from the world's pool. Made by `MiniWobWorld.make`."""

    def __init__(self, pool: BrowserPool, html: Path, options: MiniWobOptions) -> None:
        self._pool = pool
        self._html = html
        self._options = options
        self._page: WebPage | None = None
        self._task: Task | None = None
        self._seed = 0
        self._actions: list[str] = []
        self._goal = ""
        self._text = ""
        self._over = True
        self.elements: tuple[Element, ...] = ()

    @property
    def goal(self) -> str:
        """The instruction of the running episode."""
        return self._goal

    async def reset(self, task: Task, seed: int) -> Observation:
        """Start `task` from `seed`.

        Raises:
            ValueError: the seed belongs to another split than the task.
            EnvironmentFault: the browser or the page broke.
        """
        if split_of_seed(seed) != task.split:
            raise ValueError(
                f"seed {seed} is a {split_of_seed(seed)} seed but task {task.id!r} is of split {task.split!r}; "
                "draw seeds with episode_seed(task.split, ...)"
            )
        self._task, self._seed, self._actions, self._over = task, seed, [], False
        try:
            report = await self._begin(task, seed)
        except PageLeft as left:
            raise self._broken(f"{task.id} left its page while starting: {left}") from left
        except EnvironmentFault as fault:
            raise self._broken(str(fault)) from fault
        except asyncio.CancelledError:
            self._broken(f"{task.id}: reset was cancelled in the middle of a call")
            raise
        self._goal = " ".join(report["goal"].split())
        self._read(report)
        return Observation(text=self._text, goal=self._goal, attachments=await self._picture())

    async def step(self, action: str) -> StepResult:
        """Carry out one action; what cannot be carried out becomes an error line, and the turn is spent.

        Raises:
            EnvironmentFault: the browser or the page broke.
            RuntimeError: there is no episode to step in.
        """
        if self._over or self._page is None:
            raise RuntimeError("step() needs a running episode; call reset() first")
        self._actions.append(action)
        try:
            report = await self._perform(parse_action(action))
        except ActionError as slip:
            return await self._result(error=str(slip))
        except PageLeft:
            return self._left()
        except PageHung as hung:
            return self._stuck(str(hung))
        except EnvironmentFault as fault:
            raise self._broken(str(fault)) from fault
        except asyncio.CancelledError:
            self._broken("a step was cancelled in the middle of a call")
            raise
        # The page that answers was not begun by us: the action led to another page, or loaded this one anew.
        if report["seed"] != str(self._seed):
            return self._left()
        self._read(report)
        return await self._result(report=report, error=report["error"])

    async def fingerprint(self) -> str:
        """A key of task, goal and page text: all that the policy sees."""
        return state_key(self._task.id if self._task else "", self._goal, self._text, str(self._over))

    async def snapshot(self) -> bytes:
        """Task, seed and actions so far: enough to come back by replay."""
        task = self._running()
        record = {
            "task": task.id,
            "split": task.split,
            "params": dict(task.params),
            "seed": self._seed,
            "actions": self._actions,
            "key": await self.fingerprint(),
        }
        return json.dumps(record).encode()

    async def restore(self, state: bytes) -> None:
        """Play the recorded actions again.

        Raises:
            EnvironmentFault: the page that came out is not the one that was left.
        """
        record = json.loads(state)
        await self.reset(Task(id=record["task"], split=record["split"], params=record["params"]), record["seed"])
        for action in record["actions"]:
            await self.step(action)
        if (key := await self.fingerprint()) != record["key"]:
            raise EnvironmentFault(
                f"replaying {len(record['actions'])} actions of {record['task']} led to state {key}, "
                f"not to {record['key']}: this task does not replay"
            )

    async def screenshot(self) -> bytes:
        """The page as it looks now, PNG."""
        self._running()
        assert self._page is not None
        return await self._page.screenshot()

    async def close(self) -> None:
        """Give the page back. May be called twice."""
        self._over = True
        if self._page is not None:
            self._pool.give_back(self._page)
            self._page = None

    async def _begin(self, task: Task, seed: int) -> dict[str, Any]:
        address = (self._html / f"{task.id}.html").as_uri()
        if self._page is not None and self._page.address != address:
            await self.close()
            # `close` ends an episode, and this one has just begun.
            self._over = False
        if self._page is None:
            self._page = await self._pool.lend(address, draw=self._options.draw or task.id in POINTING)
        elif task.id in RELOAD_ON_RESET:
            await self._page.load(address)
        self._pool.count_episode(self._page)
        self._page.take_dialogs()
        await self._page.let_go()
        return await self._page.ask("([seed, mode]) => __rw.begin(seed, mode)", [str(seed), _DATA_MODE[task.split]])

    async def _perform(self, action: Action) -> dict[str, Any]:
        """What the page says after the action; one that the browser refuses costs the turn and changes nothing."""
        assert self._page is not None
        try:
            return await self._carry_out(self._page, action)
        except PageRefused as refusal:
            log.warning("%s", refusal)
            call = "([ms, error]) => __rw.finish(ms, error)"
            return await self._page.ask(call, [self._options.step_ms, refusal.told])

    async def _carry_out(self, page: WebPage, action: Action) -> dict[str, Any]:
        if action.name in IN_PAGE or (action.name in POINTER and not page.browser.draws):
            call = "([action, ms]) => __rw.act(action, ms)"
            return await page.ask(call, [action.payload(), self._options.step_ms])
        error = await self._use_devices(page, action)
        return await page.ask("([ms, error]) => __rw.finish(ms, error)", [self._options.step_ms, error])

    async def _use_devices(self, page: WebPage, action: Action) -> str:
        """Actions that need the browser's mouse or keyboard. Returns what went wrong, if anything."""
        points: list[list[float]] = []
        for element in action.ids:
            place = await page.ask("id => __rw.locate(id)", element)
            if "error" in place:
                return str(place["error"])
            points.append(place["point"])
        pairs = list(action.numbers)
        points += [pairs[i : i + 2] for i in range(0, len(pairs), 2)]
        match action.name:
            case "hover" | "mouse_move":
                await page.mouse("move", *points[0])
            case "mouse_down" | "mouse_up":
                await page.mouse("move", *points[0])
                await page.mouse(action.name.removeprefix("mouse_"))
            case "drag_and_drop" | "mouse_drag_and_drop":
                await page.mouse("move", *points[0])
                await page.mouse("down")
                await page.mouse("move", *points[1], steps=_DRAG_STEPS)
                await page.mouse("up")
            case "press":
                place = await page.ask("id => __rw.focus(id)", action.ids[0])
                if "error" in place:
                    return str(place["error"])
                await page.keyboard("press", action.text)
            case "keyboard_press":
                await page.keyboard("press", action.text)
            case "keyboard_type":
                await page.keyboard("type", action.text[:_TYPED_CHARS])
                if rest := action.text[_TYPED_CHARS:]:
                    await page.keyboard("insert_text", rest)
        return ""

    def _read(self, report: Mapping[str, Any]) -> None:
        self.elements = read_elements(report["items"])
        wanted = self._options.positions
        positions = self._task is not None and self._task.id in POINTING if wanted is None else wanted
        self._text = render(self.elements, max_chars=self._options.max_chars, positions=positions)

    async def _result(self, *, report: Mapping[str, Any] | None = None, error: str = "") -> StepResult:
        assert self._page is not None and self._task is not None
        done = bool(report and report["done"])
        raw = float(report["raw"]) if report and done else 0.0
        success = raw >= self._options.success_threshold
        limit = int(self._task.params.get("max_turns", self._options.max_turns))
        truncated = not done and len(self._actions) >= limit
        self._over = done or truncated
        lines = [f"Error: {error}"] if error else []
        lines += [f"Dialog: {dialog}" for dialog in self._page.take_dialogs()]
        text = "\n".join([*lines, "Done." if done else self._text])
        notes = {"raw_reward": f"{raw:g}", "reason": str(report["why"])} if report and done else {}
        if error:
            notes["error"] = error
        return StepResult(
            observation=Observation(text=text, attachments=await self._picture()),
            reward={"env": raw if self._options.reward == "raw" else float(success)},
            terminated=done,
            truncated=truncated,
            success=success if self._over else None,
            notes=notes,
        )

    def _left(self) -> StepResult:
        """The policy made the page go somewhere else: its own doing, so a failed episode and no fault."""
        assert self._page is not None
        self._page.address = ""
        return self._lost("The page was left.", "page left")

    def _stuck(self, reason: str) -> StepResult:
        """The policy set a script going that does not end: a failed episode and no fault either."""
        assert self._page is not None
        self._pool.discard(self._page, reason, fault=False)
        self._page = None
        return self._lost("The page stopped answering.", "page stuck")

    def _lost(self, text: str, error: str) -> StepResult:
        self._over, self._text, self.elements = True, text, ()
        return StepResult(
            observation=Observation(text=text),
            reward={"env": 0.0},
            terminated=True,
            success=False,
            notes={"error": error},
        )

    async def _picture(self) -> tuple[Attachment, ...]:
        keep = self._options.screenshots
        if not keep or self._page is None:
            return ()
        return (attach_picture(await self._page.screenshot(), keep),)

    def _broken(self, reason: str) -> EnvironmentFault:
        self._over = True
        if self._page is not None:
            self._pool.discard(self._page, reason)
            self._page = None
        return EnvironmentFault(reason)

    def _running(self) -> Task:
        if self._task is None or self._over:
            raise RuntimeError("there is no running episode; call reset() first")
        return self._task
