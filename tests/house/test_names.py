"""Names: one for one thing, and nothing public without a user."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "src" / "rollwright"
USERS = ("src/rollwright", "recipes", "envs", "rewards", "scripts", "benchmarks")

ENTRY_POINTS = ("main", "build", "add", "run")
"""What a loader or a shell looks up under this very name in many modules."""


@cache
def sources() -> Mapping[Path, str]:
    """Every file of the core but the doors, which only hand on."""
    files = sorted(file for file in CORE.rglob("*.py") if file.name not in ("__init__.py", "__main__.py"))
    return {file: file.read_text(encoding="utf-8") for file in files}


def public_definitions(text: str) -> Iterator[str]:
    """Names of public top-level functions and classes."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def repeated(places: Mapping[str, Sequence[Path]]) -> dict[str, list[str]]:
    return {name: [str(f.relative_to(CORE)) for f in files] for name, files in places.items() if len(files) > 1}


def test_no_two_modules_have_one_name() -> None:
    places = defaultdict(list)
    for file in sources():
        places[file.stem].append(file)
    assert not repeated(places)


def test_no_two_public_functions_or_classes_have_one_name() -> None:
    places = defaultdict(list)
    for file, text in sources().items():
        for name in public_definitions(text):
            if name not in ENTRY_POINTS:
                places[name].append(file)
    assert not repeated(places)


def test_everything_public_has_a_user_that_is_no_test() -> None:
    """A user is another place in the code, or a page of the documentation that tells a reader to call it."""
    counts: dict[str, int] = defaultdict(int)
    for folder in USERS:
        for file in (ROOT / folder).rglob("*.py"):
            if file.name != "__init__.py" or not file.is_relative_to(CORE):
                for word in words(file.read_text(encoding="utf-8")):
                    counts[word] += 1
    told = {word for page in (ROOT / "docs").rglob("*.md") for word in words(page.read_text(encoding="utf-8"))}
    idle = [
        f"{file.relative_to(CORE)}: {name}"
        for file, text in sources().items()
        for name in public_definitions(text)
        if counts[name] < 2 and name not in told
    ]
    assert not idle, f"only tests use these: {idle}"
