"""MiniWoB++ in a real Chromium, driven through text: `environment: web.miniwob`.

The tasks' own pages and rewards, read from the `miniwob` package's html; everything else is ours: observation, action
grammar, splits, step limit. Wall time plays no part: the page's clock moves by `step_ms` with each action and the
tasks' time limits are off, so slow inference does not look like bad policy. Success: the page's raw reward reaches 1.

Sources: MiniWoB++, arXiv:1802.08802; action names and task split of BrowserGym, arXiv:2412.05467.
"""

from __future__ import annotations

import difflib
import importlib.util
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rollwright.contracts import (
    AuditFacts,
    ConfigError,
    Environment,
    MissingDependency,
    Observation,
    Split,
    Task,
    Teacher,
)

from .chromium.browser_pool import BrowserPool
from .chromium.page import PageLimits, page_scripts
from .miniwob_tasks.miniwob_episode import MiniWobEnv, MiniWobOptions
from .miniwob_tasks.scripts import teacher_for
from .miniwob_tasks.splits import MAX_TURNS, ONE_CLICK, task_names
from .random_clicks import page_action
from .scene import read_lines

INSTRUCTIONS = "Reply: click N or fill N text"
_SCRIPTS = ("clock.js", "walk.js", "act.js")


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
        proposals: tuple[str, ...] = (),
    ) -> None:
        self.instructions = instructions
        self.options = options
        self.pool = pool
        self._html = html
        self._tasks = {split: tuple(self._task(name, split) for name in names) for split, names in tasks.items()}
        limits = [task.params["max_turns"] for group in self._tasks.values() for task in group]
        self.proposals = proposals
        self.max_turns = max([*limits, *(self._limit(name) for name in proposals)])

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

    def propose(self, task: Task, count: int, seed: int) -> list[Task]:
        """Tasks of the declared pool, those with the most similar name first: MiniWoB++ names families so."""
        names = [name for name in self.proposals if name != task.id]
        random.Random(seed).shuffle(names)
        names.sort(key=lambda name: -difflib.SequenceMatcher(None, task.id, name).ratio())
        return [self._task(name, "train") for name in names[:count]]

    def make(self) -> MiniWobEnv:
        """A fresh environment; it borrows a page when it is reset."""
        return MiniWobEnv(self.pool, self._html, self.options)

    def teacher(self, task: Task) -> Teacher | None:
        """A scripted policy for the task, where there is one; each call gives a fresh one."""
        return teacher_for(task.id)

    def audit_facts(self, task: Task) -> AuditFacts:
        """On some pages one click decides, so that the number of an element is right on one page in a few."""
        told = "one click decides this page, and a fixed element is the right one for some seeds"
        lucky = ("constant", "repeat", "loop", "wrong step", "random") if task.id in ONE_CLICK else ()
        return AuditFacts(solved_by=dict.fromkeys(lucky, told))

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A click, a choice or a word, on any element of the page."""
        if not isinstance(env, MiniWobEnv):
            raise TypeError(f"this world plays MiniWoB++, not {type(env).__name__}")
        ids = {element.id for element in env.elements}  # a line of text may begin with a number too
        return page_action(env.goal, [line for line in read_lines(observation.text) if line.id in ids], draws)

    async def close(self) -> None:
        """Close all pages and browsers. May be called twice."""
        await self.pool.close()

    def _task(self, name: str, split: Split) -> Task:
        return Task(id=name, split=split, params={"max_turns": self._limit(name)})

    def _limit(self, name: str) -> int:
        return max(MAX_TURNS.get(name, 0), self.options.max_turns)


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
    proposals: str | Sequence[str] = (),
    max_turns: int = 8,
    success_threshold: float = 1.0,
    reward: Literal["success", "raw"] = "success",
    step_ms: int = 500,
    max_chars: int = 4000,
    positions: bool | None = None,
    screenshots: bool | str | None = None,
    draw: bool = False,
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
        proposals: tasks that an evolving curriculum may add to the train split, a set or names.
        max_turns: actions per episode; tasks that need more have their own limit.
        success_threshold: the raw reward that counts as success.
        reward: "success" pays 1 for success and else 0; "raw" pays the page's reward in [-1, 1].
        step_ms: how far the page's clock moves with each action.
        max_chars: longest observation.
        positions: show each element's centre; None does so for tasks about places on the screen.
        screenshots: take a picture of every state: True keeps it in the store of the run, beside the turn that saw it;
            a folder keeps it there.
        draw: let the browser paint, so that `MiniWobEnv.screenshot` works; costs twice the CPU time. Implied by
            `screenshots`.
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
        draw=draw or bool(screenshots),
    )
    chosen = names_by_split(tasks, train=train_tasks, validation=validation_tasks, test=test_tasks)
    pool_of = proposed_names(proposals, chosen)
    html = find_html()
    limits = PageLimits(root=html, scripts=page_scripts(*_SCRIPTS), deadline_s=deadline_s)
    pool = BrowserPool(limits, idle_pages=idle_pages, episodes_per_browser=episodes_per_browser)
    return MiniWobWorld(
        tasks=chosen,
        options=options,
        pool=pool,
        html=html / "miniwob",
        instructions=instructions,
        proposals=pool_of,
    )


def names_by_split(
    tasks: str | Sequence[str],
    *,
    train: str | Sequence[str] | None,
    validation: str | Sequence[str] | None,
    test: str | Sequence[str] | None,
) -> dict[Split, tuple[str, ...]]:
    """The tasks of each split: its own set or list where it has one, else `tasks`.

    Raises:
        ConfigError: an unknown task or set.
    """
    own: dict[Split, str | Sequence[str] | None] = {"train": train, "validation": validation, "test": test}
    return {split: task_names(tasks if names is None else names) for split, names in own.items()}


def proposed_names(proposals: str | Sequence[str], chosen: Mapping[Split, tuple[str, ...]]) -> tuple[str, ...]:
    """The tasks that may be added to the train split.

    Raises:
        ConfigError: an unknown task, or one that another split keeps for judging what was never trained on.
    """
    names = task_names(proposals) if proposals else ()
    kept = {name for split in ("validation", "test") for name in chosen[split]} - set(chosen["train"])
    if held_out := sorted(kept & set(names)):
        raise ConfigError(f"proposals hold {', '.join(held_out)}, which only held-out splits have: leave them out")
    return names
