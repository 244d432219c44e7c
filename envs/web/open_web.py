"""Somebody else's sites by address, with tasks in WebArena's format: `environment: web.open_web`.

A task file lists tasks with `task_id`, `start_url`, `intent` and `eval` as WebArena has them. Pages open in a real
Chromium, each episode in a context of its own; only hosts that are named may be reached. What the policy sees and does
is as on the small sites. The sites keep their state between episodes: who runs them resets them.

Source: WebArena, arXiv:2307.13854.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rollwright.contracts import SPLITS, ConfigError, EnvironmentFault, Observation, Split, StepResult, Task, state_key

from .chromium.browser_pool import BrowserPool
from .chromium.page import PageLeft, PageLimits
from .observe import Element, read_elements, render
from .open_pages.aria import TOO_MANY
from .open_pages.evaluators import content_match, string_match, total, url_match
from .open_pages.foreign_page import UNFINISHED, ForeignPage, new_question
from .open_pages.isolated import ears
from .open_pages.webarena import origin_of, read_storage_state, read_task_file
from .page_actions import Action, ActionError, Kind, parse_action
from .sites.episode import GRAMMAR

INSTRUCTIONS = (
    "You use a web site. Lines with a number can be acted on. Reply with one action: click N, fill N text, "
    "select_option N option, check N, uncheck N, press N Enter, goto url, go_back, answer text. "
    "End with: answer text"
)
ACTIONS: dict[str, tuple[Kind, ...]] = {
    **GRAMMAR,
    "accept_dialog": ("text",),
    "dismiss_dialog": (),
    "tab_focus": ("id",),
    "tab_close": (),
}
"""Those of the small sites, and what only other people's pages need: the observation names them where they apply."""

OBSERVATIONS = ("lines", "aria")
_LOAD_S = 5.0


class OpenWebEnv:
    """One episode at a time in a context of its own. Made by `OpenWebWorld.make`."""

    def __init__(self, world: OpenWebWorld) -> None:
        self._world = world
        self._page: ForeignPage | None = None
        self._task: Task | None = None
        self._text = ""
        self._turns = 0
        self._over = True
        self.elements: tuple[Element, ...] = ()

    async def reset(self, task: Task, seed: int) -> Observation:
        """Open the task's first page. The seed changes nothing: these tasks have no chance of their own.

        Raises:
            EnvironmentFault: the browser broke, or the site does not answer.
        """
        await self.close()
        self._task, self._turns, self._over = task, 0, False
        page = self._page = await self._world.lend(task)
        try:
            await page.open()
            page.begin()
            trouble = await page.goto(str(task.params["start_url"]))
            unread = await self._look()
        except (EnvironmentFault, PageLeft) as fault:
            raise self._broken(f"{task.id}: {fault}") from fault
        except asyncio.CancelledError:
            self._broken(f"{task.id}: reset was cancelled in the middle of a call")
            raise
        if unread or trouble not in ("", UNFINISHED):
            raise self._broken(f"{task.id} cannot begin: {trouble or unread}")
        return Observation(text="\n".join([*self._dialogs(), self._text]), goal=str(task.params["intent"]))

    async def step(self, action: str) -> StepResult:
        """Carry out one action; what cannot be carried out becomes an error line, and the turn is spent.

        So does what a page does to the policy: hanging, crashing, closing itself, leading nowhere, never answering.

        Raises:
            EnvironmentFault: the browser broke.
            RuntimeError: there is no episode to step in.
        """
        if self._over or self._page is None or self._task is None:
            raise RuntimeError("step() needs a running episode; call reset() first")
        self._turns += 1
        self._page.begin()
        error, answer = "", None
        try:
            parsed = parse_action(action, ACTIONS)
            if parsed.name in ("answer", "send_msg_to_user", "report_infeasible"):
                answer = "N/A" if parsed.name == "report_infeasible" else parsed.text
            else:
                error = await self._do(self._page, parsed)
        except ActionError as slip:
            error = str(slip)
        except EnvironmentFault as fault:
            raise self._broken(str(fault)) from fault
        except asyncio.CancelledError:
            self._broken("a step was cancelled in the middle of a call")
            raise
        return await self._result(error, answer)

    async def fingerprint(self) -> str:
        """A key of all that the policy sees."""
        return state_key(self._task.id if self._task else "", self._text, str(self._over))

    async def close(self) -> None:
        """Let the page and its context go. May be called twice."""
        if self._page is not None:
            self._page.questions.close()
            self._world.pool.give_back(self._page.page)
        self._page, self._over = None, True

    async def _do(self, page: ForeignPage, action: Action) -> str:
        error, answers = "", action.name in ("accept_dialog", "dismiss_dialog")
        if answers != bool(page.questions.line):
            raise ActionError(page.questions.line or "no dialog is open")
        match action.name:
            case "accept_dialog" | "dismiss_dialog":
                error = await page.respond(action.name == "accept_dialog", action.text)
            case "goto":
                if origin_of(action.text) not in self._world.origins:
                    raise ActionError(f"only these sites can be opened: {', '.join(self._world.origins)}")
                error = await page.goto(action.text)
            case "go_back" | "go_forward":
                error = await page.travel(-1 if action.name == "go_back" else 1)
            case "tab_focus":
                error = await page.switch(action.ids[0])
            case "tab_close":
                error = await page.tabs.close()
            case "scroll" | "noop":
                pass
            case _:
                error = await page.act(action.payload())
        unread = await self._look()
        return error or unread

    async def _look(self) -> str:
        """Read the page; returns what stood in the way, if anything."""
        assert self._page is not None
        shown, trouble, self.elements = "", "", ()
        if self._world.observation == "aria" and not self._page.questions.line:
            shown, trouble = await self._page.snapshot(self._world.max_chars)
        if not shown and not trouble and not self._page.questions.line:
            items, trouble = await self._page.look()
            self.elements = read_elements(items)
            note = f"{TOO_MANY}\n" if self._world.observation == "aria" else ""
            shown = note + render(self.elements, max_chars=self._world.max_chars)
        shown = self._page.questions.line or shown
        tabs = f"{self._page.tabs.line}\n" if self._page.tabs.line else ""
        self._text = _whole(f"At {self._page.address}\n{tabs}{shown}")
        return trouble

    def _dialogs(self) -> list[str]:
        assert self._page is not None
        return [_whole(f"Dialog: {dialog}") for dialog in self._page.page.take_dialogs()]

    async def _result(self, error: str, answer: str | None) -> StepResult:
        assert self._task is not None
        done = answer is not None
        score = await self._judge(str(answer)) if done else 0.0
        truncated = not done and self._turns >= self._world.max_turns
        self._over = done or truncated
        lines = [*([f"Error: {_whole(error)}"] if error else []), *self._dialogs(), "Done." if done else self._text]
        return StepResult(
            observation=Observation(text="\n".join(lines)),
            reward={"env": score},
            terminated=done,
            truncated=truncated,
            success=score == 1.0 if self._over and self._task.params["eval"]["eval_types"] else None,
            notes={"error": error} if error else {},
        )

    async def _judge(self, answer: str) -> float:
        """The product of the evaluators. A page of the task's own that cannot be opened is a fault, never a score."""
        assert self._page is not None and self._task is not None
        evaluation = self._task.params["eval"]
        if not evaluation["eval_types"]:  # a written task: somebody else has to say how it went
            return 0.0
        self._page.questions.holding = False
        if self._page.questions.line:
            await self._page.respond(False, "")
        scores = []
        address = self._page.address
        if "string_match" in evaluation["eval_types"]:
            scores.append(string_match(answer, evaluation["reference_answers"]))
        if "url_match" in evaluation["eval_types"]:
            scores.append(url_match(address, evaluation["reference_url"]))
        if "program_html" in evaluation["eval_types"]:
            for target in evaluation["program_html"]:
                scores.append(content_match(await self._content(target), target["required_contents"]))
        return total(scores)

    async def _content(self, target: Mapping[str, Any]) -> str:
        """What the locator finds; nothing, as in WebArena, where it raises or the policy left no page to read."""
        assert self._page is not None
        self._page.begin()
        try:
            if (address := str(target.get("url") or "last")) != "last":
                trouble = await self._page.goto(address)
                if trouble not in ("", UNFINISHED):
                    raise EnvironmentFault(trouble)
            return await self._page.evaluate(target.get("locator") or "document.documentElement.outerHTML")
        except (EnvironmentFault, PageLeft) as fault:
            raise self._broken(f"the evaluator could not read its page: {fault}") from fault

    def _broken(self, reason: str) -> EnvironmentFault:
        if self._page is not None:
            self._page.questions.close()
            self._world.pool.discard(self._page.page, reason)
        self._page, self._over = None, True
        return EnvironmentFault(reason)


class OpenWebWorld:
    """Tasks on given sites. Made by `build`. `refused` says of each task that was left out why."""

    name = "web.open_web"
    execution: Literal["async"] = "async"
    snapshots: Literal["none"] = "none"

    def __init__(
        self,
        *,
        tasks: Mapping[Split, Sequence[Task]],
        origins: Sequence[str],
        pool: BrowserPool,
        question: str,
        max_turns: int,
        max_chars: int,
        deadline_s: float,
        load_s: float,
        instructions: str,
        observation: str = "lines",
        refused: Sequence[str] = (),
    ) -> None:
        self.instructions = instructions
        self.observation = observation
        self.max_turns = max_turns
        self.max_chars = max_chars
        self.deadline_s = deadline_s
        self.load_s = load_s
        self.origins = tuple(origins)
        self.refused = tuple(refused)
        self.pool = pool
        self._question = question
        self._tasks = {split: tuple(group) for split, group in tasks.items()}

    def tasks(self, split: Split) -> Sequence[Task]:
        """The tasks of a split."""
        return self._tasks[split]

    def instruction_of(self, task: Task) -> str:
        """What the task asks for."""
        return str(task.params["intent"])

    def place_of(self, task: Task) -> str:
        """The site."""
        return origin_of(str(task.params["start_url"]))

    def task_of(self, instruction: str, like: Task) -> Task:
        """A training task with this instruction, begun on the page of `like`; its episodes end without a verdict."""
        start = str(like.params["start_url"])
        name = hashlib.sha256(f"{start}\n{instruction}".encode()).hexdigest()[:12]
        login = {key: like.params[key] for key in ("storage_state",) if key in like.params}
        params = {"start_url": start, "intent": instruction, "eval": {"eval_types": []}, **login}
        return Task(id=f"written/{name}", split="train", params=params)

    def make(self) -> OpenWebEnv:
        """A fresh environment; it opens its page when it is reset."""
        return OpenWebEnv(self)

    async def lend(self, task: Task) -> ForeignPage:
        """A page in a new context, with the task's login, for one episode.

        Raises:
            EnvironmentFault: the browser or the page could not be started, or the login is not there any more.
        """
        page = await self.pool.lend("", draw=True, state=_login_of(task))
        self.pool.count_episode(page)
        waits = {"load_s": self.load_s, "wait_s": self.deadline_s}
        return ForeignPage(page, self.origins, question=self._question, **waits)

    async def close(self) -> None:
        """Close all pages and browsers. May be called twice."""
        await self.pool.close()


def _login_of(task: Task) -> dict[str, Any] | None:
    if "storage_state" not in task.params:
        return None
    try:
        return read_storage_state(Path(str(task.params["storage_state"])))
    except ConfigError as error:
        raise EnvironmentFault(f"{task.id}: {error}") from error


def _whole(text: str) -> str:
    """The text without halves of letters, which a page may hold and no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def build(
    *,
    tasks: str,
    origins: Sequence[str] = (),
    sites: Mapping[str, str] | None = None,
    ignore_logins: bool = False,
    max_turns: int = 30,
    max_chars: int = 8000,
    deadline_s: float = 12.0,
    load_s: float = _LOAD_S,
    instructions: str = INSTRUCTIONS,
    observation: str = "lines",
) -> OpenWebWorld:
    """A world of given sites.

    Args:
        tasks: a file of WebArena tasks, each with a `split` besides (train where it has none): a JSON list, or JSON
            Lines. A task that cannot be played or judged is left out, and the log says why.
        origins: further origins that may be reached, such as `http://127.0.0.1:7770`, besides those of the start pages.
        sites: addresses by placeholder: `{SHOPPING: http://127.0.0.1:7770}` is put in place of `__SHOPPING__`.
        ignore_logins: play the tasks without their `storage_state` and `require_login`.
        max_turns: actions per episode.
        max_chars: longest observation.
        deadline_s: longest wait for a page to open by address, and for one to be read. With `load_s` and nine seconds
            it must stay below the run's `rollout.env_call_s`, or a page that never answers becomes a fault.
        load_s: how long to wait for the page that a click leads to.
        instructions: the system prompt.
        observation: `lines`, or `aria` for Playwright's aria snapshot, whose numbers in brackets the actions take.

    Raises:
        ConfigError: the observation is another one, the file cannot be read, or no task in it can be played.
    """
    if observation not in OBSERVATIONS:
        raise ConfigError(f"web.open_web: observation must be {' or '.join(OBSERVATIONS)}, got {observation!r}")
    read = read_task_file(tasks, sites=sites or {}, origins=origins, ignore_logins=ignore_logins)
    by_split: dict[Split, list[Task]] = {split: [t for t in read.tasks if t.split == split] for split in SPLITS}
    question = new_question()
    limits = PageLimits(root=None, scripts=ears(question), deadline_s=deadline_s, viewport=(1280, 720), errors=False)
    return OpenWebWorld(
        tasks=by_split,
        origins=read.origins,
        pool=BrowserPool(limits, idle_pages=0),
        question=question,
        max_turns=max_turns,
        max_chars=max_chars,
        deadline_s=deadline_s,
        load_s=load_s,
        instructions=instructions,
        observation=observation,
        refused=read.refused,
    )
