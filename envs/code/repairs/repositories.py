"""Small repositories with their tests: our own five, or an installed pure-Python package with tests of yours."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rollwright.contracts import ConfigError, Split
from rollwright.envs.code.judging import Verdict, judge_tests
from rollwright.envs.code.sandbox import BoxPool, Limits

# A repository belongs to one split: no bug of a held-out one is ever in a module that was trained on.
SPLIT_OF: dict[str, Split] = {
    "shop": "train",
    "words": "train",
    "graphs": "train",
    "planner": "validation",
    "bank": "test",
}
LIMITS = Limits(wall_s=20.0, cpu_s=3, memory_mib=512, file_mib=4, output_kib=64, answers_kib=1024, disk_mib=16)
_MARK = re.compile(r"^=== (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A package, its visible tests, and the hidden ones. All by path, as text."""

    name: str
    says: str
    package: str
    files: Mapping[str, str]
    tests: Mapping[str, str]
    hidden: Mapping[str, str]

    @property
    def modules(self) -> list[str]:
        """Paths of the modules in which bugs may lie."""
        return [path for path, text in self.files.items() if "def " in text]


@cache
def load(name: str) -> Repository:
    """One of the repositories that ship with this world.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in SPLIT_OF:
        raise ConfigError(f"no repository is called {name!r}; expected one of {', '.join(SPLIT_OF)}")
    text = Path(__file__).with_name(f"repo_{name}.txt").read_text(encoding="utf-8")
    says, *rest = _MARK.split(text)
    parts = {path: body.lstrip("\n") for path, body in zip(rest[::2], rest[1::2], strict=True)}
    hidden = {"hidden": parts.pop("hidden")}
    tests = {path: body for path, body in parts.items() if path.startswith("tests/")}
    files = {path: body for path, body in parts.items() if path not in tests}
    return Repository(name=name, says=says.strip(), package=name, files=files, tests=tests, hidden=hidden)


def installed(package: str, tests: Mapping[str, str]) -> Repository:
    """An installed pure-Python package as a repository. `tests` are pytest sources by file name, yours and trusted.

    Raises:
        ConfigError: there is no such package, or nothing in it is Python source.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"there is no installed package {package!r} whose modules could be given bugs")
    root = Path(next(iter(spec.submodule_search_locations)))
    files = {
        f"{package}/{path.relative_to(root)}": path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*.py"))
        if not {"test", "tests"} & set(path.relative_to(root).parts)
    }
    if not files or not tests:
        raise ConfigError(f"package {package!r} has {len(files)} modules and {len(tests)} test files; both are needed")
    named = {f"tests/{name}": text for name, text in tests.items()}
    says = f"The package {package}."
    return Repository(name=package, says=says, package=package, files=files, tests=named, hidden={})


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReport:
    """What a run of the visible tests showed: what failed and why. It is feedback; a verdict comes from `judge`."""

    failed: Mapping[str, str]
    passed: int
    trouble: str = ""

    @property
    def text(self) -> str:
        """For an observation."""
        if self.trouble:
            return self.trouble
        lines = [f"{len(self.failed)} failed, {self.passed} passed", *(f"{n}: {why}" for n, why in self.failed.items())]
        return "\n".join(lines)


def run_tests(
    pool: BoxPool, repository: Repository, files: Mapping[str, str], select: Sequence[str] = ()
) -> TestReport:
    """Run pytest on the visible tests (all, or the selected paths and node ids) inside one box."""
    order = {
        "mode": "pytest",
        "files": {**files, **repository.tests},
        "folder": "/tmp/work",
        "args": ["-q", "-p", "no:cacheprovider", "--color=no", "--rootdir=/tmp/work", *(select or ["tests"])],
    }
    with pool.box() as box:
        answers, ended = box.run(order, limits=LIMITS)
    found = answers[-1] if answers and isinstance(answers[-1], dict) else {}
    outcomes = found.get("outcomes")
    if not isinstance(outcomes, dict):
        return TestReport(failed={}, passed=0, trouble=f"The tests did not come to an end: {ended.said}.")
    if not outcomes:
        return TestReport(failed={}, passed=0, trouble="No such test.")
    failed = {str(name): _first_line(str(why)) for name, why in sorted(outcomes.items()) if why and why != "skipped"}
    return TestReport(failed=failed, passed=len(outcomes) - len(failed))


def _first_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return re.sub(r"0x[0-9a-f]+", "0x", lines[0])[:200] if lines else "failed"


def judge(pool: BoxPool, repository: Repository, files: Mapping[str, str]) -> Verdict:
    """The verdict on changed files: visible and hidden tests, run in another box than the repository.

    Where the repository as it should be gives plain data to its tests, so must the changed one.

    Raises:
        ConfigError: the repository as it should be does not pass its tests.
    """
    return _judge(pool, repository, files, _objects(pool, repository))


def _judge(pool: BoxPool, repository: Repository, files: Mapping[str, str], objects: Collection[str] | None) -> Verdict:
    with pool.pair() as (program, tests):
        return judge_tests(
            program,
            tests,
            program={"files": dict(files), "folder": "/tmp/work"},
            tests={**repository.tests, **repository.hidden},
            packages=[repository.package],
            limits=LIMITS,
            objects=objects,
        )


_known: dict[int, tuple[Repository, frozenset[str]]] = {}


def _objects(pool: BoxPool, repository: Repository) -> frozenset[str]:
    """The places at which the right repository gives objects of its own classes to its tests. Found once."""
    if id(repository) not in _known:
        verdict = _judge(pool, repository, repository.files, None)
        if not verdict.success:
            raise ConfigError(
                f"the package {repository.package!r} does not pass its tests in the sandbox: "
                f"{verdict.message or 'there are none'}. They must be functions without arguments, named test..., that "
                "compare plain data"
            )
        _known[id(repository)] = (repository, verdict.objects)
    return _known[id(repository)][1]
