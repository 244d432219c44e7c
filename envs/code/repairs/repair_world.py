"""The world behind `code.repair`: an episode with its tools, a teacher that knows the bugs, and the tasks.

Our five repositories are split among train, validation and test; an installed package of the user's is split by module.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard

from rollwright.contracts import (
    SPLITS,
    DataError,
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    state_key,
)
from rollwright.envs.code.judging import clean_text
from rollwright.envs.code.repairs import repositories
from rollwright.envs.code.repairs.bugs import Bug, find, known, with_bugs
from rollwright.envs.code.repairs.repositories import Repository
from rollwright.envs.code.repairs.repository_tools import (
    EditError,
    apply_edit,
    find_code,
    find_definitions,
    parse_action,
    show_file,
)
from rollwright.envs.code.sandbox import BoxPool, pytest_packages

Style = Literal["tools", "patch"]

MAX_SHOWN = 6000
"""Characters of an observation; more is cut, and the cut is marked."""
MAX_FILE = 60_000
COMMANDS = "list, read, search_class, search_method, search_code, test, edit, submit"
INSTRUCTIONS = """A repository has a bug. Find it, correct it, submit.
One action per answer; the first line is the command:
list
read PATH [FIRST LAST]
search_class NAME
search_method NAME [PATH]
search_code TEXT
test [PATH or PATH::NAME]
edit PATH
submit
After the line of `edit` come one or more blocks; what is searched must occur exactly once, whole lines:
<<<<<<< SEARCH
old lines
=======
new lines
>>>>>>> REPLACE"""
PATCH_INSTRUCTIONS = """A repository has a bug. Think between <think> and </think>,
then give your edits between <solution> and </solution>, each in a fenced block of this form:
```
### path/of/file.py
<<<<<<< SEARCH
old lines
=======
new lines
>>>>>>> REPLACE
```"""


class RepairEnvironment:
    """One repository with a bug. Its state is the files, kept as text; the tests run on copies in the sandbox."""

    def __init__(self, world: RepairWorld) -> None:
        self.world = world
        self.task: Task | None = None
        self.files: dict[str, str] = {}
        self.used = 0
        self._shown = ""
        self._over = True

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin with the broken files."""
        self.files = self.world.broken(task)
        self.task, self.used, self._over = task, 0, False
        observation = self.world.observe(task, self.files)
        self._shown = observation.text
        return observation

    def step(self, action: str) -> StepResult:
        """Carry out one command; `submit`, or a patch, ends the episode. Raises RuntimeError after the end."""
        if self._over or self.task is None:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        self.used, action = self.used + 1, clean_text(action)
        name, argument, rest = parse_action(action)
        if self.world.style == "patch" or name == "submit":
            return self._submit(action)
        text = self._do(name, argument, rest)
        self._shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}\n... cut, {len(text)} characters in all"
        return StepResult(observation=self._shown)

    def _do(self, name: str, argument: str, rest: str) -> str:
        shown = {**self.files, **self._repository.tests}
        try:
            if name == "list":
                return "\n".join(f"{path} ({len(text.splitlines())} lines)" for path, text in sorted(shown.items()))
            if name == "read":
                return show_file(shown, argument)
            if name == "search_class":
                return find_definitions(shown, argument, "class")
            if name == "search_method":
                return find_definitions(shown, argument, "function")
            if name == "search_code":
                return find_code(shown, argument)
            if name == "edit":
                return self._edit(argument, rest)
            if name == "test":
                return repositories.run_tests(self.world.boxes, self._repository, self.files, argument.split()[:4]).text
        except EditError as error:
            return str(error)
        return f"No such command: {name[:40]!r}. Commands: {COMMANDS}."

    def _edit(self, path: str, rest: str) -> str:
        if path in self._repository.tests:
            raise EditError("The tests cannot be edited.")
        if path not in self.files:
            raise EditError(f"No such file: {path[:80]!r}. `list` names them.")
        changed = apply_edit(self.files[path], rest)
        if len(changed) > MAX_FILE:
            raise EditError(f"The file would have {len(changed)} characters; {MAX_FILE} are allowed.")
        self.files[path] = changed
        return f"Edited {path}."

    def _submit(self, action: str) -> StepResult:
        self._over = True
        if self.world.style == "patch":
            try:
                self.files = apply_patch(self.files, action)
            except EditError as error:
                self._shown = str(error)
                return StepResult(observation=self._shown, reward={"tests": 0.0}, terminated=True, success=False)
        verdict = repositories.judge(self.world.boxes, self._repository, self.files)
        self._shown = "All tests pass." if verdict.success else f"Wrong. {verdict.message}"
        parts = {"tests": float(verdict.success)}
        return StepResult(observation=self._shown, reward=parts, terminated=True, success=verdict.success)

    @property
    def _repository(self) -> Repository:
        assert self.task is not None
        return self.world.repository(self.task)

    def fingerprint(self) -> str:
        """Task, files, what is shown."""
        return state_key(self.task.id if self.task else "", json.dumps(self.files, sort_keys=True), self._shown)

    def snapshot(self) -> bytes:
        """The task, the files and what is shown, as JSON. Raises RuntimeError before the first reset."""
        if self.task is None:
            raise RuntimeError("there is no episode yet: call `reset` before `snapshot`")
        task = {"id": self.task.id, "split": self.task.split, "params": dict(self.task.params)}
        state = {"task": task, "files": self.files, "used": self.used, "shown": self._shown, "over": self._over}
        return json.dumps(state).encode()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        saved = json.loads(state)
        self.task, self.files = Task(**saved["task"]), dict(saved["files"])
        self.used, self._shown, self._over = saved["used"], saved["shown"], saved["over"]

    def close(self) -> None:
        """The boxes are the world's."""


def apply_patch(files: Mapping[str, str], text: str) -> dict[str, str]:
    """Files after a patch in SWE-RL's format (edit blocks inside <solution>).

    Raises:
        EditError: no solution, no block, an unknown file, a search that does not occur exactly once.
    """
    _, _, solution = text.partition("<solution>")
    solution, end, _ = solution.partition("</solution>")
    changed = dict(files)
    blocks = solution.split("### ")[1:] if end else []
    if not blocks:
        raise EditError("Wrong. There is no edit between <solution> and </solution>.")
    for block in blocks:
        path, _, rest = block.partition("\n")
        if path.strip() not in changed:
            raise EditError(f"Wrong. No such file: {path.strip()[:80]!r}.")
        changed[path.strip()] = apply_edit(changed[path.strip()], rest)
    return changed


class Planner:
    """Looks at the failing tests, finds where the bugs are, undoes them, looks again, submits."""

    def __init__(self, world: RepairWorld, task: Task) -> None:
        right, broken = world.repository(task).files, world.broken(task)
        edits = [(path, undo(right[path], broken[path])) for path in world.places(task)]
        self._script = ["test"]
        for path, block in edits:
            self._script += [f"read {path}", f"edit {path}\n{block}"]
        self._script += ["test", "submit"]
        if world.style == "patch":
            blocks = "".join(f"```\n### {path}\n{block}\n```\n" for path, block in edits)
            self._script = [f"<think>\nThe failing tests point at it.\n</think>\n<solution>\n{blocks}</solution>"]

    def act(self, env: Environment, observation: Observation) -> str:
        """The next line of the script. Raises TypeError in another world's environment."""
        if not isinstance(env, RepairEnvironment):
            raise TypeError(f"this teacher repairs repositories, not {type(env).__name__}")
        return self._script[min(env.used, len(self._script) - 1)]


def undo(fixed: str, broken: str) -> str:
    """A search/replace block from `broken` to `fixed`, which differ in one run of lines. The search occurs once."""
    old, new = broken.splitlines(), fixed.splitlines()
    first = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    tail = next(i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b)
    start, end = first, len(old) - tail
    while start > 0 and f"\n{broken}".count("\n" + "\n".join(old[start:end]) + "\n") != 1:
        start -= 1
    search, replacement = old[start:end], new[start : len(new) - tail]
    return "\n".join(["<<<<<<< SEARCH", *search, "=======", *replacement, ">>>>>>> REPLACE"])


class RepairWorld:
    """Bugs in repositories as tasks. Build it with `build`."""

    name = "code.repair"
    execution: Execution = "thread"
    snapshots: SnapshotKind = "exact"

    def __init__(
        self,
        *,
        style: Style,
        bugs: int,
        max_turns: int,
        tasks_per_repository: int,
        own: Repository | None,
        unsafe: bool,
    ) -> None:
        self.style, self.bugs, self.max_turns = style, bugs, max_turns if style == "tools" else 1
        self.instructions = INSTRUCTIONS if style == "tools" else PATCH_INSTRUCTIONS
        self.boxes = BoxPool(limits=repositories.LIMITS, preload=("pytest",), packages=pytest_packages(), unsafe=unsafe)
        self._own, self._count = own, tasks_per_repository
        self._own_bugs = _judged_bugs(own, self.boxes, 3 * tasks_per_repository) if own else []
        self._tasks = {split: self._list(split) for split in SPLITS}

    def tasks(self, split: Split) -> list[Task]:
        """The tasks of a split."""
        return list(self._tasks[split])

    def _list(self, split: Split) -> list[Task]:
        if self._own is not None:
            here = [bug for bug in self._own_bugs if _split_of_module(bug.path) == split]
            return self._make_tasks(self._own, here, split)
        names = [name for name, home in repositories.SPLIT_OF.items() if home == split]
        return [t for name in names for t in self._make_tasks(repositories.load(name), known(name), split)]

    def _make_tasks(self, repository: Repository, found: Sequence[Bug], split: Split) -> list[Task]:
        """Sets of bugs in different modules, in a fixed random order."""
        sets = [s for s in itertools.combinations(found, self.bugs) if len({bug.path for bug in s}) == self.bugs]
        random.Random(f"{repository.name}/{self.bugs}").shuffle(sets)
        return [self._task(repository, chosen, split) for chosen in sets[: self._count]]

    def _task(self, repository: Repository, chosen: Sequence[Bug], split: Split) -> Task:
        where = [[bug.path, bug.index, list(bug.failing)] for bug in chosen]
        params: dict[str, object] = {"repository": repository.name, "bugs": where}
        if self.style == "patch":  # what a similarity reward compares with
            broken = with_bugs(repository, chosen)
            params["files"] = {bug.path: broken[bug.path] for bug in chosen}
            params["oracle"] = {bug.path: repository.files[bug.path] for bug in chosen}
        places = "+".join(f"{bug.path}:{bug.index}" for bug in chosen)
        return Task(id=f"{repository.name}/{places}", split=split, params=params)

    def repository(self, task: Task) -> Repository:
        """The repository of a task, without bugs."""
        name = str(task.params["repository"])
        return self._own if self._own is not None and name == self._own.name else repositories.load(name)

    def bugs_of(self, task: Task) -> list[Bug]:
        """The task's bugs, each one that this world knows: params come from disk as well.

        Raises:
            DataError: the repository has no such bug.
        """
        repository = self.repository(task)
        known_ones = self._own_bugs if repository is self._own else known(repository.name)
        by_row = {(bug.path, bug.index): bug for bug in known_ones}
        rows = task.params.get("bugs")
        found = [by_row.get((row[0], row[1])) if _is_row(row) else None for row in rows] if _is_rows(rows) else []
        if not found or None in found:
            raise DataError(
                f"task {task.id!r} names bugs that repository {repository.name!r} does not have: it was made by "
                "another version of this world, or edited"
            )
        return [bug for bug in found if bug is not None]

    def broken(self, task: Task) -> dict[str, str]:
        """The files as the policy is given them."""
        return with_bugs(self.repository(task), self.bugs_of(task))

    def places(self, task: Task) -> list[str]:
        """The modules with a bug."""
        return [bug.path for bug in self.bugs_of(task)]

    def failing(self, task: Task) -> list[str]:
        """The visible tests that fail for the task's bugs."""
        return sorted({name for bug in self.bugs_of(task) for name in bug.failing})

    def observe(self, task: Task, files: Mapping[str, str]) -> Observation:
        """The failing tests as the goal; the tree, or for a patch the modules."""
        repository, failing = self.repository(task), self.failing(task)
        goal = f"{repository.says} These tests fail:\n" + "\n".join(failing[:10])
        if self.style == "tools":
            listed = "\n".join(sorted([*files, *repository.tests]))
            return Observation(text=f"Files:\n{listed}", goal=goal)
        shown = "\n".join(f"### {path}\n{files[path]}" for path in repository.modules)
        return Observation(text=shown, goal=goal)

    def make(self) -> RepairEnvironment:
        """A fresh environment; all share the world's boxes."""
        return RepairEnvironment(self)

    def teacher(self, task: Task) -> Planner:
        """Undoes the task's bugs, since it knows them."""
        return Planner(self, task)

    def close(self) -> None:
        """Close the boxes. May be called twice."""
        self.boxes.close()


def _is_rows(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _is_row(row: object) -> bool:
    """A bug as it lies in params: its module, its number there, the tests that fail for it."""
    return _is_rows(row) and len(row) == 3 and isinstance(row[0], str) and type(row[1]) is int


def _judged_bugs(repository: Repository, pool: BoxPool, limit: int) -> list[Bug]:
    """Bugs that the visible tests notice under pytest and in the judge's box too, which can do less with a program."""
    repositories.judge(pool, repository, repository.files)  # tests that cannot judge the package are refused here
    found = find(repository, pool, limit=limit)
    return [bug for bug in found if not repositories.judge(pool, repository, with_bugs(repository, [bug])).success]


def _split_of_module(path: str) -> Split:
    bucket = int(hashlib.sha256(path.encode()).hexdigest()[:8], 16) % 5
    return "validation" if bucket == 0 else "test" if bucket == 1 else "train"
