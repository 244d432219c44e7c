"""Any BrowserGym task as a world of ours: `environment: web.browsergym`.

BrowserGym runs in a Python of its own (its pinned versions clash with ours), one process per environment, reached over
lines of JSON (`bridge.py`). Actions go through by BrowserGym's names; `click 12` is turned into `click('12')`. What
goes through is always one call with literal arguments: there it becomes code.

Source: BrowserGym, arXiv:2412.05467.
"""

from __future__ import annotations

import ast
import json
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rollwright.contracts import SPLITS, ConfigError, EnvironmentFault, Observation, Split, StepResult, Task, state_key

from . import bridge
from .page_actions import ActionError

INSTRUCTIONS = (
    "You control a web page. Elements have an id in brackets. Reply with one action: click 12, fill 12 text, "
    "select_option 12 option, press 12 Enter, scroll 0 300, goto url, go_back, send_msg_to_user text"
)
_CALL = re.compile(r"[a-z_]+\(.*\)", re.DOTALL)
_TEXT_LAST = {"fill": 2, "select_option": 2, "press": 2, "keyboard_type": 1, "keyboard_press": 1, "goto": 1}
_TEXT_LAST |= {"send_msg_to_user": 1, "report_infeasible": 1}
_NUMBERS = frozenset(["scroll", "mouse_click", "mouse_move", "mouse_dblclick", "tab_focus", "noop"])
_MAX_ACTION_CHARS = 2000
_SEEDS = 1 << 31
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_PLAIN = (str, int, float, bool, type(None))


def as_call(action: str) -> str:
    """The action as BrowserGym writes it: the first line; a terse form becomes a call with quoted arguments.

    Raises:
        ActionError: it is no call of a name with literal arguments.
    """
    line = next((line.strip() for line in action[:_MAX_ACTION_CHARS].splitlines() if line.strip()), "")
    if not line:
        return line
    if _CALL.fullmatch(line):
        _check_literal(line)
        return line
    name, _, rest = line.partition(" ")
    if not _NAME.fullmatch(name):
        raise ActionError(f"{name[:60]!r} is no name of an action; expected for example: click 12")
    most = _TEXT_LAST.get(name, 0)
    values = rest.split(None, most - 1) if most > 1 else ([rest.strip()] if most else rest.split())
    shown = [
        value if name in _NUMBERS and _NUMBER.fullmatch(value) else repr(value.strip("[]") if i == 0 else value)
        for i, value in enumerate(values)
    ]
    return f"{name}({', '.join(shown)})"


def _check_literal(line: str) -> None:
    """Read a call without running it.

    Raises:
        ActionError: an argument is anything but text, a number or a list of them.
    """
    try:
        call = ast.parse(line, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("not one call")
        for node in [*call.args, *(keyword.value for keyword in call.keywords)]:
            value = ast.literal_eval(node)
            if not all(isinstance(one, _PLAIN) for one in (value if isinstance(value, list) else [value])):
                raise ValueError("not plain")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ActionError("an action is one call with text, numbers or lists of them, such as click('12')") from error


class BrowserGymEnv:
    """One episode at a time in a process of its own. Blocks: for worker threads."""

    def __init__(self, world: BrowserGymWorld) -> None:
        self._world = world
        self._process: subprocess.Popen[str] | None = None
        self._made = ""
        self._over = True
        self._goal = self._text = ""

    def reset(self, task: Task, seed: int) -> Observation:
        """Start `task` from `seed`.

        Raises:
            EnvironmentFault: the process, the browser behind it, or the task broke.
        """
        if self._made != task.id:
            self.close()
            request = {"modules": list(self._world.modules), "id": task.id, "options": dict(self._world.make_options)}
            self._ask("make", **request)
            self._made = task.id
        seen = self._ask("reset", seed=seed % _SEEDS)
        self._over, self._goal, self._text = False, seen["goal"], seen["text"]
        return Observation(text=self._text, goal=self._goal)

    def step(self, action: str) -> StepResult:
        """Carry out one action; what BrowserGym refuses becomes an error line.

        Raises:
            EnvironmentFault: the process, the browser behind it, or the task broke.
            RuntimeError: there is no episode to step in.
        """
        if self._over:
            raise RuntimeError("step() needs a running episode; call reset() first")
        try:
            seen = self._ask("step", action=as_call(action) or "noop()")
        except ActionError as slip:
            return self._slip(str(slip))
        if "refused" in seen:
            return self._slip(seen["refused"])
        self._text, done = seen["text"], seen["terminated"]
        self._over = done or seen["truncated"]
        text = f"Error: {seen['error']}\n{self._text}" if seen["error"] else self._text
        return StepResult(
            observation=Observation(text=text),
            reward={"env": seen["reward"]},
            terminated=done,
            truncated=seen["truncated"] and not done,
            success=seen["reward"] >= self._world.success_threshold if self._over else None,
            notes={"error": seen["error"]} if seen["error"] else {},
        )

    def _slip(self, error: str) -> StepResult:
        """The turn is lost; what is shown stays."""
        return StepResult(observation=Observation(text=f"Error: {error}\n{self._text}"), notes={"error": error})

    def fingerprint(self) -> str:
        """A key of goal and page text."""
        return state_key(self._made, self._goal, self._text, str(self._over))

    def close(self) -> None:
        """End the process. May be called twice."""
        process, self._process, self._made, self._over = self._process, None, "", True
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()  # the bridge closes its environment and ends
        try:
            process.wait(timeout=self._world.deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _ask(self, call: str, **values: Any) -> dict[str, Any]:
        if self._process is None:
            self._process = self._start()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"call": call, **values}) + "\n")
            process.stdin.flush()
            line = self._line(process)
        except OSError as error:
            raise self._broken(f"the BrowserGym process is gone ({error})") from error
        reply: dict[str, Any] = json.loads(line) if line else {"ok": False, "error": "its process ended"}
        if not reply["ok"]:
            raise self._broken(f"BrowserGym failed in {call}: {reply['error']}")
        return reply

    def _line(self, process: subprocess.Popen[str]) -> str:
        """The next reply, waited for no longer than the deadline."""
        end = time.monotonic() + self._world.deadline_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            if not selector.select(max(0.0, end - time.monotonic())):
                raise self._broken(f"BrowserGym did not answer within {self._world.deadline_s:g} s")
        return process.stdout.readline()  # type: ignore[union-attr]

    def _start(self) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                [self._world.python, bridge.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise EnvironmentFault(f"cannot start {self._world.python}: {error}; see the option `python`") from error

    def _broken(self, reason: str) -> EnvironmentFault:
        process, self._process, self._made, self._over = self._process, None, "", True
        if process is not None:
            process.kill()
            process.wait()
        return EnvironmentFault(reason)


class BrowserGymWorld:
    """BrowserGym tasks by split. Made by `build`."""

    name = "web.browsergym"
    execution: Literal["thread"] = "thread"
    snapshots: Literal["none"] = "none"

    def __init__(
        self,
        *,
        tasks: Mapping[Split, Sequence[str]],
        modules: Sequence[str],
        python: str,
        make_options: Mapping[str, Any],
        max_turns: int,
        success_threshold: float,
        deadline_s: float,
        instructions: str,
    ) -> None:
        self.instructions = instructions
        self.max_turns = max_turns
        self.modules = tuple(modules)
        self.python = python
        self.make_options = dict(make_options)
        self.success_threshold = success_threshold
        self.deadline_s = deadline_s
        self._tasks = {split: tuple(Task(id=name, split=split) for name in names) for split, names in tasks.items()}

    def tasks(self, split: Split) -> Sequence[Task]:
        """The tasks of a split."""
        return self._tasks[split]

    def make(self) -> BrowserGymEnv:
        """A fresh environment; its process starts with the first reset."""
        return BrowserGymEnv(self)

    def close(self) -> None:
        """Nothing is held: each environment ends its own process."""


def build(
    *,
    train_tasks: Sequence[str] = (),
    validation_tasks: Sequence[str] = (),
    test_tasks: Sequence[str] = (),
    modules: Sequence[str] = ("browsergym.miniwob",),
    python: str = sys.executable,
    make_options: Mapping[str, Any] | None = None,
    max_turns: int = 10,
    success_threshold: float = 1.0,
    deadline_s: float = 120.0,
    instructions: str = INSTRUCTIONS,
) -> BrowserGymWorld:
    """A world of BrowserGym tasks.

    Args:
        train_tasks, validation_tasks, test_tasks: Gymnasium ids, such as `browsergym/miniwob.click-test`. A task
            belongs to one split.
        modules: what registers the ids when it is imported.
        python: the interpreter of the virtual environment that has BrowserGym.
        make_options: keyword arguments of `gymnasium.make`, as JSON.
        max_turns: actions per episode; BrowserGym itself sets no limit.
        success_threshold: the reward that counts as success.
        deadline_s: longest wait for any single reply.
        instructions: the system prompt.

    Raises:
        ConfigError: no task at all, or one in two splits.
    """
    chosen: dict[Split, Sequence[str]] = {"train": train_tasks, "validation": validation_tasks, "test": test_tasks}
    names = [name for split in SPLITS for name in chosen[split]]
    if not names:
        raise ConfigError(
            "web.browsergym needs tasks: list Gymnasium ids under train_tasks, validation_tasks, test_tasks"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"web.browsergym: these tasks are listed twice: {', '.join(twice)}; a task has one split")
    return BrowserGymWorld(
        tasks=chosen,
        modules=modules,
        python=python,
        make_options=make_options or {},
        max_turns=max_turns,
        success_threshold=success_threshold,
        deadline_s=deadline_s,
        instructions=instructions,
    )
