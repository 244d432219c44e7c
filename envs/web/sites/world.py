"""The world of small sites: which tasks there are, how an episode starts, with a browser or without."""

from __future__ import annotations

import difflib
import random
import re
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rollwright.contracts import (
    SPLITS,
    AuditFacts,
    ConfigError,
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    Task,
    Teacher,
    as_observation,
    episode_seed,
)

from ..chromium.browser_pool import BrowserPool
from ..chromium.page import PageLimits, page_scripts
from ..random_clicks import page_action, random_words
from ..scene import Scene, read_lines
from .catalogue import SITES, TEMPLATES
from .envs import BareEnv, BrowserEnv
from .episode import Episode, SitesOptions
from .pages.engine import populate
from .tasks.aims import Difficulty, Draw, Start, Step, Template

Mode = Literal["html", "browser"]
SplitBy = Literal["template", "seed"]

INSTRUCTIONS = (
    "You use a web site. Lines with a number can be acted on. Reply with one action: click N, fill N text, "
    "select_option N option, check N, uncheck N, press N Enter, scroll 0 300, goto /path, go_back, answer text"
)
ONE_BUTTON = frozenset({"calendar.decline"})
"""Templates done by one button of a page that search and a link lead to: for some seeds all three have one number."""
_SCRIPTS = ("walk.js", "act.js", "sites.js")
CONTROLS = ("link", "button", "textbox", "textarea", "select", "checkbox", "radio")
_VIEWPORT = (900, 640)
_CACHED_STARTS = 64
_ATTEMPTS = 20
_SAMPLED_EPISODES, _MOST_WORDS = 40, 700
_A_WORD = re.compile(r" ?\w+| ?[^\w\s]|\s")


@dataclass(slots=True)
class PlanTeacher:
    """Plays one episode after another by their plans. An observation with a goal starts a new episode."""

    plan: tuple[Step, ...] = ()
    at: int = 0

    def act(self, env: Environment, observation: Observation) -> str:
        """The plan's next action."""
        if observation.goal:
            self.plan, self.at = env.episode.start.aim.plan, 0  # type: ignore[attr-defined]
        if self.at >= len(self.plan):
            return "noop"
        text = observation.text
        scene = Scene(goal=observation.goal, text=text, lines=read_lines(text), turn=self.at, notes={})
        action = self.plan[self.at](scene)
        if action is None:
            return "scroll 0 300" if text.endswith("more lines") else "noop"
        self.at += 1
        return action


class SitesWorld:
    """The tasks by split. Made by `build`."""

    name = "web.sites"

    def __init__(
        self,
        *,
        templates: Mapping[Split, Sequence[Template]],
        options: SitesOptions,
        instructions: str,
        pool: BrowserPool | None = None,
    ) -> None:
        self.instructions = instructions
        self.options = options
        self.execution: Execution = "inline" if pool is None else "async"
        self.snapshots: SnapshotKind = "exact" if pool is None else "replay"
        self.max_turns = options.max_turns
        self.pool = pool
        self._blocked = 0
        self._tasks = {
            split: tuple(Task(id=t.id, split=split, params={"difficulty": t.difficulty}) for t in group)
            for split, group in templates.items()
        }
        self._questions: dict[str, bool] = {}
        self._starts: OrderedDict[tuple[str, int], Start] = OrderedDict()

    def tasks(self, split: Split) -> Sequence[Task]:
        """The tasks of a split, one per template."""
        return self._tasks[split]

    def task(self, name: str, split: Split) -> Task:
        """One task by the name of its template.

        Raises:
            ConfigError: the split has no such task.
        """
        for task in self._tasks[split]:
            if task.id == name:
                return task
        raise ConfigError(f"split {split!r} has no task {name!r}. Its tasks: {[t.id for t in self._tasks[split]]}")

    @property
    def requests_blocked(self) -> int:
        """Requests that wanted to leave the sites and were held back."""
        return self._blocked + (self.pool.requests_blocked if self.pool else 0)

    def make(self) -> BareEnv | BrowserEnv:
        """A fresh environment; one in a browser opens its page when it is reset."""
        if self.pool is None:
            return BareEnv(self.begin, self.count_blocked)
        return BrowserEnv(self.begin, self.count_blocked, self.pool)

    def teacher(self, task: Task) -> Teacher:
        """A fresh teacher; every template has a plan."""
        return PlanTeacher()

    def audit_facts(self, task: Task) -> AuditFacts:
        """An answer ends an episode; where none was asked for it is the declaration that the task is done."""
        told = "a question with a short answer, such as a count, can be answered right by luck"
        lucky: tuple[str, ...] = ("constant", "repeat", "loop", "random") if self._asks(task) else ()
        if task.id in ONE_BUTTON:
            told, lucky = "its one button can be reached by clicks on one number", ("constant", "repeat", "random")
        return AuditFacts(
            stop_action="answer done",
            template=task.id,
            harmless=("scroll", "noop"),
            solved_by=dict.fromkeys(lucky, told),
        )

    def _asks(self, task: Task) -> bool:
        """Whether the tasks of this template are questions."""
        if task.id not in self._questions:
            start = draw_start(TEMPLATES[task.id], episode_seed(task.split, "audit", task.id), self.options.size)
            self._questions[task.id] = bool(start.aim.answers)
        return self._questions[task.id]

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """Mostly something on the page; at times a scroll, and an answer, which ends the episode, once in twenty."""
        goal: str = env.episode.goal  # type: ignore[attr-defined]
        # A line of text may begin with a number too: `40 products`.
        lines = [line for line in read_lines(observation.text) if line.role in CONTROLS]
        kind = draws.random()
        if kind < 0.05:
            return f"answer {random_words(goal, lines, draws)}"
        if kind < 0.15:
            return f"scroll 0 {draws.choice((300, -300))}"
        return page_action(goal, lines, draws)

    def texts(self) -> list[str]:
        """What is said here, for a tokenizer made to measure: a sample over tasks and seeds."""
        world = SitesWorld(
            templates={split: [TEMPLATES[t.id] for t in self._tasks[split]] for split in SPLITS},
            options=self.options,
            instructions=self.instructions,
        )
        return frequent_words(world)

    def begin(self, task: Task, seed: int) -> Episode:
        """A new episode, its database filled and its aim drawn."""
        return Episode(self._start(task, seed), self.options, task, seed)

    def count_blocked(self, requests: int) -> None:
        """Note requests that wanted to leave the site."""
        self._blocked += requests

    def close(self) -> Awaitable[None] | None:
        """Close all pages and browsers; without a browser nothing is held. May be called twice."""
        return self.pool.close() if self.pool else None

    def _start(self, task: Task, seed: int) -> Start:
        """The start of an episode. The members of a group share one: what is drawn is kept for a while."""
        key = (task.id, seed)
        if key not in self._starts:
            self._starts[key] = draw_start(TEMPLATES[task.id], seed, self.options.size)
            if len(self._starts) > _CACHED_STARTS:
                self._starts.popitem(last=False)
        self._starts.move_to_end(key)
        return self._starts[key]


def frequent_words(world: SitesWorld) -> list[str]:
    """The frequent words of a sample of episodes, as one text; rarer ones are spelled letter by letter."""
    counts: Counter[str] = Counter(_A_WORD.findall(world.instructions))
    for split in SPLITS:
        for task in world.tasks(split):
            for number in range(_SAMPLED_EPISODES):
                counts.update(
                    word for text in _said_in_episode(world, task.id, number) for word in _A_WORD.findall(text)
                )
    for number in range(100):
        counts[f" {number}"] += 1_000_000  # the numbers of lines: every action needs one
    words = [word for word, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    return words[:_MOST_WORDS]


def _said_in_episode(world: SitesWorld, name: str, number: int) -> list[str]:
    task = next(task for split in SPLITS for task in world.tasks(split) if task.id == name)
    env, teacher = world.make(), world.teacher(task)
    observation = as_observation(env.reset(task, episode_seed(task.split, "language", name, number)))  # type: ignore[arg-type]
    said = [observation.goal, observation.text]
    for _ in range(world.max_turns):
        action = str(teacher.act(env, observation))
        result = env.step(action)
        observation = as_observation(result.observation)  # type: ignore[union-attr]
        said += [action, observation.text]
        if result.terminated or result.truncated:  # type: ignore[union-attr]
            break
    env.close()
    return said


def draw_start(template: Template, seed: int, size: str) -> Start:
    """Fill a database and draw the aim; a world in which the template finds nothing to ask about is drawn again.

    Raises:
        RuntimeError: no world of this size fits the template.
    """
    site = SITES[template.site]
    for attempt in range(_ATTEMPTS):
        db = populate(site, random.Random(f"{site.name}/{seed}/{attempt}"), site.sizes[size])
        try:
            aim = template.draw(Draw(db=db, rng=random.Random(f"{template.id}/{seed}/{attempt}")))
        except LookupError:
            db.close()
            continue
        start = Start.make(site, db, aim)
        db.close()
        return start
    raise RuntimeError(f"no world of size {size!r} has what {template.id} asks about; use a larger size")


def build(
    *,
    site: str = "all",
    mode: Mode = "html",
    difficulty: str = "all",
    templates: Sequence[str] | None = None,
    split_by: SplitBy = "template",
    size: str = "small",
    max_turns: int = 15,
    max_chars: int = 4000,
    instructions: str = INSTRUCTIONS,
    draw: bool = False,
    deadline_s: float = 20.0,
    episodes_per_browser: int = 2000,
) -> SitesWorld:
    """A world of small sites.

    Args:
        site: shop, forum, wiki, mail, calendar, or "all"; several are joined by a comma.
        mode: "html" reads the pages without a browser, "browser" in a real Chromium; what the policy sees is the same.
        difficulty: easy, medium, hard, or "all"; several are joined by a comma.
        templates: the names of single templates in place of all.
        split_by: "template" gives each split templates of its own; "seed" gives every split all of them, with seeds
            apart.
        size: how much each site holds: tiny, small, medium, large.
        max_turns: actions per episode.
        max_chars: longest window of lines; the rest of the page is reached by scrolling.
        instructions: the system prompt.
        draw: browser only: let it paint, so that `BrowserEnv.screenshot` works; costs CPU time.
        deadline_s: browser only: longest wait for any single call into a page.
        episodes_per_browser: browser only: after this many it is replaced.

    Raises:
        ConfigError: an option has no such value, or no template is left.
    """
    sites = _chosen("site", site, tuple(SITES))
    levels = _chosen("difficulty", difficulty, get_args(Difficulty))
    _one_of("mode", mode, get_args(Mode))
    _one_of("split_by", split_by, get_args(SplitBy))
    _one_of("size", size, tuple(next(iter(SITES.values())).sizes))
    named = tuple(TEMPLATES) if templates is None else tuple(templates)
    for name in named:
        _one_of("template", name, tuple(TEMPLATES))
    left = [t for name in named if (t := TEMPLATES[name]).site in sites and t.difficulty in levels]
    if not left:
        raise ConfigError(f"no template of site {site!r} has difficulty {difficulty!r}; use 'all' for one of them")
    by_split = {s: [t for t in left if split_by == "seed" or t.split == s] for s in SPLITS}
    options = SitesOptions(max_turns=max_turns, max_chars=max_chars, size=size, draw=draw)
    pool = _pool(deadline_s, episodes_per_browser) if mode == "browser" else None
    return SitesWorld(templates=by_split, options=options, instructions=instructions, pool=pool)


def _pool(deadline_s: float, episodes_per_browser: int) -> BrowserPool:
    scripts = page_scripts(*_SCRIPTS)
    limits = PageLimits(root=None, scripts=scripts, deadline_s=deadline_s, viewport=_VIEWPORT)
    # No page is kept: each episode has a context of its own.
    return BrowserPool(limits, idle_pages=0, episodes_per_browser=episodes_per_browser)


def _chosen(key: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if value == "all":
        return known
    words = tuple(word.strip() for word in value.split(","))
    for word in words:
        _one_of(key, word, (*known, "all"))
    return words


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"web.sites has no {key} {value!r}. {hint}There are: {', '.join(known)}")
