"""Real bugs as tasks of `code.repair`, from a file that `rollwright import swe-bench` wrote.

Each line holds the files of one package before the fix and after it, the tests with which the fix came, and the text of
the report. The tests are trusted as the file is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollwright.contracts import SPLITS, ConfigError, DataError, Split, Task
from rollwright.envs.code.repairs import repositories
from rollwright.envs.code.repairs.repair_world import RepairWorld
from rollwright.envs.code.repairs.repositories import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledBug:
    """One report: the repository as it should be, the files before the fix, the tests that fail on them."""

    split: Split
    repository: Repository
    broken: Mapping[str, str]
    failing: tuple[str, ...]


def read_bugs(path: Path) -> dict[str, FiledBug]:
    """The tasks of a file by id.

    Raises:
        ConfigError: there is no such file. DataError: a line is no task, or two have one id.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no file of tasks {path}: `rollwright import swe-bench FILE --into {path}` makes one"
        )
    found: dict[str, FiledBug] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            bug = _bug(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: no task of repair ({type(error).__name__}: {error})") from error
        if row["id"] in found:
            raise DataError(f"{path}, line {number}: the id {row['id']!r} was there before")
        found[row["id"]] = bug
    if not found:
        raise DataError(f"{path} holds no task")
    return found


def _bug(row: Mapping[str, Any]) -> FiledBug:
    broken, fixed, tests = (_texts(row[key]) for key in ("broken", "fixed", "tests"))
    if broken.keys() != fixed.keys() or broken == fixed or not tests:
        raise ValueError("the files before and after the fix do not belong together")
    if row["split"] not in SPLITS or not all(isinstance(row[key], str) for key in ("id", "says", "package")):
        raise ValueError("its id, split, package or text is none")
    repository = Repository(
        name=row["id"], says=row["says"], package=row["package"], files=fixed, tests=tests, hidden={}
    )
    return FiledBug(split=row["split"], repository=repository, broken=broken, failing=tuple(map(str, row["failing"])))


def _texts(value: Any) -> dict[str, str]:
    if not value or not all(isinstance(part, str) for entry in value.items() for part in entry):
        raise ValueError("files are texts by path")
    return dict(value)


class FiledRepairs(RepairWorld):
    """The reports of a file, each judged once at the start. Built by `rollwright.envs.code.repair.build`.

    Raises:
        ConfigError: the tests of a task do not pass after its fix, or pass before it.
    """

    def __init__(self, path: Path, *, max_turns: int, unsafe: bool) -> None:
        self._filed = read_bugs(path)
        super().__init__(style="tools", bugs=1, max_turns=max_turns, tasks_per_repository=1, own=None, unsafe=unsafe)
        try:
            for key, bug in self._filed.items():
                _require_bug(self, key, bug)
        except BaseException:
            self.close()
            raise

    def _list(self, split: Split) -> list[Task]:
        return [Task(id=key, split=split) for key, bug in self._filed.items() if bug.split == split]

    def _of(self, task: Task) -> FiledBug:
        if task.id not in self._filed:
            raise DataError(f"{self.name} has no task {task.id!r}: it is of another file")
        return self._filed[task.id]

    def repository(self, task: Task) -> Repository:
        """The repository as it is after the fix."""
        return self._of(task).repository

    def broken(self, task: Task) -> dict[str, str]:
        """The files before the fix."""
        return dict(self._of(task).broken)

    def places(self, task: Task) -> list[str]:
        """The modules that the fix changes."""
        bug = self._of(task)
        return [path for path, text in bug.broken.items() if text != bug.repository.files[path]]

    def failing(self, task: Task) -> list[str]:
        """The tests that fail before the fix, as the file names them."""
        return list(self._of(task).failing)


def _require_bug(world: FiledRepairs, key: str, bug: FiledBug) -> None:
    """The tests must pass after the fix and not before: else no reward could be earned, or none would say anything."""
    try:
        fails = not repositories.judge(world.boxes, bug.repository, bug.broken).success
    except ConfigError as error:
        raise ConfigError(f"the task {key!r} cannot be judged here: {error}. Take it out of the file") from error
    if not fails:
        raise ConfigError(f"the tests of task {key!r} pass before the fix as well: take it out of the file")
