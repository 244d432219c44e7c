"""MiniWoB++ in a real Chromium, driven through text: `environment: web.miniwob`.

The tasks' own pages and rewards, read from the `miniwob` package's html; everything else is ours: observation, action
grammar, splits, step limit. Wall time plays no part: the page's clock moves by `step_ms` with each action and the
tasks' time limits are off, so slow inference does not look like bad policy. Success: the page's raw reward reaches 1.

Sources: MiniWoB++, arXiv:1802.08802; action names and task split of BrowserGym, arXiv:2412.05467.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rollwright.env import Observation, StepResult, Teacher, split_of_seed, state_key
from rollwright.errors import ConfigError, EnvironmentFault, MissingDependency
from rollwright.types import Attachment, Split, Task

from .actions import IN_PAGE, Action, ActionError, parse_action
from .browser import BrowserPool, PageLeft, PageLimits, WebPage
from .observe import Element, read_elements, render
from .splits import MAX_TURNS, POINTING, RELOAD_ON_RESET, task_names

INSTRUCTIONS = "Reply: click N or fill N text"
FULL_INSTRUCTIONS = (
    "You control a web page. Lines with a number can be acted on. Reply with one action: click N, dblclick N, "
    "fill N text, select_option N option, check N, uncheck N, hover N, focus N, clear N, press N key, "
    "drag_and_drop N N, scroll dx dy, mouse_click x y, mouse_drag_and_drop x y x y, noop"
)
_SCRIPTS = ("clock.js", "walk.js", "act.js")
_DATA_MODE: dict[Split, str] = {"train": "train", "validation": "test", "test": "test"}
_DRAG_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class MiniWobOptions:
    """How episodes are played; `build` says what each option means."""

    max_turns: int = 8
    success_threshold: float = 1.0
    reward: Literal["success", "raw"] = "success"
    step_ms: int = 500
    max_chars: int = 4000
    positions: bool | None = None
    screenshots: str | None = None

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
        except EnvironmentFault as fault:
            raise self._broken(str(fault)) from fault
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
            self._over = False
        if self._page is None:
            self._page = await self._pool.lend(address)
        elif task.id in RELOAD_ON_RESET:
            await self._page.load(address)
        self._pool.count_episode(self._page)
        self._page.take_dialogs()
        return await self._page.ask("([seed, mode]) => __rw.begin(seed, mode)", [str(seed), _DATA_MODE[task.split]])

    async def _perform(self, action: Action) -> dict[str, Any]:
        assert self._page is not None
        if action.name in IN_PAGE:
            call = "([action, ms]) => __rw.act(action, ms)"
            return await self._page.ask(call, [action.payload(), self._options.step_ms])
        error = await self._use_devices(self._page, action)
        return await self._page.ask("([ms, error]) => __rw.finish(ms, error)", [self._options.step_ms, error])

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
            case "mouse_click":
                await page.mouse("click", *points[0])
            case "mouse_dblclick":
                await page.mouse("dblclick", *points[0])
            case "mouse_down" | "mouse_up":
                await page.mouse("move", *points[0])
                await page.mouse(action.name.removeprefix("mouse_"))
            case "drag_and_drop" | "mouse_drag_and_drop":
                await page.mouse("move", *points[0])
                await page.mouse("down")
                await page.mouse("move", *points[1], steps=_DRAG_STEPS)
                await page.mouse("up")
            case "press":
                await page.ask("id => __rw.focus(id)", action.ids[0])
                await page.keyboard("press", action.text)
            case "keyboard_press":
                await page.keyboard("press", action.text)
            case "keyboard_type":
                await page.keyboard("type", action.text)
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
        self._over, self._text, self.elements = True, "The page was left.", ()
        return StepResult(observation=self._text, terminated=True, success=False, notes={"error": "page left"})

    async def _picture(self) -> tuple[Attachment, ...]:
        folder = self._options.screenshots
        if folder is None or self._page is None:
            return ()
        picture = await self._page.screenshot()
        digest = hashlib.sha256(picture).hexdigest()
        path = Path(folder) / f"{digest}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
        return (Attachment(sha256=digest, media_type="image/png", path=str(path)),)

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


class MiniWobWorld:
    """The tasks by split, and the browser that all environments share. Made by `build`."""

    name = "web.miniwob"
    execution: Literal["async"] = "async"
    snapshots: Literal["replay"] = "replay"

    def __init__(
        self,
        *,
        tasks: Mapping[Split, tuple[str, ...]],
        options: MiniWobOptions,
        pool: BrowserPool,
        html: Path,
        instructions: str,
    ) -> None:
        self.instructions = instructions
        self.options = options
        self.pool = pool
        self._html = html
        self._tasks = {split: tuple(self._task(name, split) for name in names) for split, names in tasks.items()}
        limits = [task.params["max_turns"] for group in self._tasks.values() for task in group]
        self.max_turns = max(limits)

    def tasks(self, split: Split) -> Sequence[Task]:
        """The tasks of a split. Several splits may hold tasks of one name: their seeds are disjoint."""
        return self._tasks[split]

    def task(self, name: str, split: Split) -> Task:
        """One task by name.

        Raises:
            ConfigError: the split has no such task.
        """
        for task in self._tasks[split]:
            if task.id == name:
                return task
        have = ", ".join(task.id for task in self._tasks[split])
        elsewhere = [other for other, group in self._tasks.items() if any(t.id == name for t in group)]
        hint = f"; it belongs to {', '.join(elsewhere)}" if elsewhere else ""
        raise ConfigError(f"split {split!r} has no task {name!r}{hint}. Its tasks: {have}")

    def make(self) -> MiniWobEnv:
        """A fresh environment; it borrows a page when it is reset."""
        return MiniWobEnv(self.pool, self._html, self.options)

    def teacher(self, task: Task) -> Teacher | None:
        """A scripted policy for the task, where there is one."""
        return None

    async def close(self) -> None:
        """Close all pages and browsers. May be called twice."""
        await self.pool.close()

    def _task(self, name: str, split: Split) -> Task:
        return Task(id=name, split=split, params={"max_turns": max(MAX_TURNS.get(name, 0), self.options.max_turns)})


def find_html() -> Path:
    """The folder with the html of MiniWoB++.

    Raises:
        MissingDependency: the package `miniwob` is not installed.
    """
    spec = importlib.util.find_spec("miniwob")  # finds the files without running the package
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("the MiniWoB++ pages come with the package miniwob: pip install 'rollwright[web]'")
    return (Path(next(iter(spec.submodule_search_locations))) / "html").resolve()


def build(
    *,
    tasks: str | Sequence[str] = "webgum56",
    train_tasks: str | Sequence[str] | None = None,
    validation_tasks: str | Sequence[str] | None = None,
    test_tasks: str | Sequence[str] | None = None,
    max_turns: int = 8,
    success_threshold: float = 1.0,
    reward: Literal["success", "raw"] = "success",
    step_ms: int = 500,
    max_chars: int = 4000,
    positions: bool | None = None,
    screenshots: str | None = None,
    instructions: str = INSTRUCTIONS,
    deadline_s: float = 10.0,
    idle_pages: int = 64,
    episodes_per_browser: int = 5000,
) -> MiniWobWorld:
    """A MiniWoB++ world.

    Args:
        tasks: a named set (webgum56, hidden18, browsergym_train, browsergym_test, all) or task names, for every split
            that has no list of its own. Splits that share a task differ in their seeds.
        train_tasks, validation_tasks, test_tasks: the tasks of that split; name other tasks for the test split to
            measure generalisation to new tasks.
        max_turns: actions per episode; tasks that need more have their own limit.
        success_threshold: the raw reward that counts as success.
        reward: "success" pays 1 for success and else 0; "raw" pays the page's reward in [-1, 1].
        step_ms: how far the page's clock moves with each action.
        max_chars: longest observation.
        positions: show each element's centre; None does so for tasks about places on the screen.
        screenshots: a folder to keep a picture of every state in; None takes none.
        instructions: the system prompt.
        deadline_s: longest wait for any single call into a page.
        idle_pages: pages kept warm.
        episodes_per_browser: after this many a browser is replaced.

    Raises:
        ConfigError: an unknown task or setting.
        MissingDependency: the package `miniwob` is missing. A missing browser shows at the first reset.
    """
    options = MiniWobOptions(
        max_turns=max_turns,
        success_threshold=success_threshold,
        reward=reward,
        step_ms=step_ms,
        max_chars=max_chars,
        positions=positions,
        screenshots=screenshots,
    )
    own: dict[Split, str | Sequence[str] | None] = {
        "train": train_tasks,
        "validation": validation_tasks,
        "test": test_tasks,
    }
    chosen = {split: task_names(tasks if names is None else names) for split, names in own.items()}
    html = find_html()
    here = Path(__file__).parent
    scripts = "\n".join((here / script).read_text(encoding="utf-8") for script in _SCRIPTS)
    limits = PageLimits(root=html, scripts=scripts, deadline_s=deadline_s)
    pool = BrowserPool(limits, idle_pages=idle_pages, episodes_per_browser=episodes_per_browser)
    return MiniWobWorld(tasks=chosen, options=options, pool=pool, html=html / "miniwob", instructions=instructions)
