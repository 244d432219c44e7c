"""Which mutations are worth a task: those that a visible test notices. Found once, kept in `bugs.json`.

`python -c "from rollwright.envs.code import bugs; bugs.write()"` finds them again after a repository has changed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rollwright.contracts import DataError
from rollwright.envs.code.repairs import repositories
from rollwright.envs.code.repairs.mutation import Mutation, mutations
from rollwright.envs.code.repairs.repositories import Repository
from rollwright.envs.code.sandbox import BoxPool, pytest_packages

FILE = Path(__file__).with_name("bugs.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One mutation in one module: `index` among the mutations of `path`, and the visible tests that fail for it."""

    path: str
    index: int
    failing: tuple[str, ...]

    def mutation(self, repository: Repository) -> Mutation:
        """The change that makes this bug."""
        return mutations(repository.files[self.path])[self.index]


def with_bugs(repository: Repository, found: Sequence[Bug]) -> dict[str, str]:
    """The repository's files with these bugs, at most one per module."""
    files = dict(repository.files)
    for bug in found:
        files[bug.path] = bug.mutation(repository).apply(files[bug.path])
    return files


def find(repository: Repository, pool: BoxPool, *, limit: int = 0) -> list[Bug]:
    """Try the mutations of every module; keep those that a visible test notices without running out of time.

    Args:
        limit: stop after so many, drawn in a fixed random order; 0 for all.
    """
    places = [(path, i) for path in repository.modules for i in range(len(mutations(repository.files[path])))]
    random.Random(repository.name).shuffle(places)
    found: list[Bug] = []
    for path, index in places:
        bug = Bug(path=path, index=index, failing=())
        report = repositories.run_tests(pool, repository, with_bugs(repository, [bug]))
        if report.failed and report.passed:
            found.append(Bug(path=path, index=index, failing=tuple(report.failed)))
        if limit and len(found) >= limit:
            break
    return sorted(found, key=lambda b: (b.path, b.index))


def digest(repository: Repository) -> str:
    """Changes when a file or a visible test does: the indices then mean other mutations."""
    texts = json.dumps([sorted(repository.files.items()), sorted(repository.tests.items())])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


@cache
def known(name: str) -> tuple[Bug, ...]:
    """The bugs of a repository that ships with this world.

    Raises:
        DataError: the repository has changed since they were found.
    """
    saved: Mapping[str, dict[str, object]] = json.loads(FILE.read_text(encoding="utf-8"))
    if saved[name]["digest"] != digest(repositories.load(name)):
        raise DataError(
            f"repository {name!r} has changed since its bugs were found: run rollwright.envs.code.repairs.bugs.write()"
        )
    rows = saved[name]["bugs"]
    assert isinstance(rows, list)
    return tuple(Bug(path=row[0], index=row[1], failing=tuple(row[2])) for row in rows)


def write(*, unsafe: bool = False) -> None:
    """Find the bugs of all repositories that ship with this world; takes a minute or two."""
    pool = BoxPool(limits=repositories.LIMITS, preload=("pytest",), packages=pytest_packages(), unsafe=unsafe)
    saved = {}
    for name in repositories.SPLIT_OF:
        repository = repositories.load(name)
        rows = [[bug.path, bug.index, list(bug.failing)] for bug in find(repository, pool)]
        saved[name] = {"digest": digest(repository), "bugs": rows}
    pool.close()
    FILE.write_text(json.dumps(saved, separators=(",", ":")) + "\n", encoding="utf-8")
