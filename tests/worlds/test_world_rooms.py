"""Worlds have rooms: imports form no circle, no folder is crowded, and every folder says what lives there."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("envs", "rewards")
MOST_FILES, MOST_LINES, MOST_LINES_OF_A_FUNCTION = 20, 400, 70
Graph = dict[str, set[str]]


def name_of(file: Path, root: Path) -> str:
    """The module's name once installed, such as `rollwright.envs.text.maze`."""
    parts = ("rollwright", *file.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the worlds and the rewards, by name."""
    return {name_of(file, root): file for kind in KINDS for file in sorted((root / kind).rglob("*.py"))}


def imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Every name that is imported anywhere in a file: in functions and under `TYPE_CHECKING` as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph_of(root: Path = ROOT) -> Graph:
    """Which module imports which; what is imported out of a module counts as the module."""
    files, graph = sources(root), Graph()
    for name, file in files.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        found = set(imported(ast.parse(file.read_text(encoding="utf-8")), package))
        graph[name] = {known for one in found if (known := one if one in files else one.rpartition(".")[0]) in files}
        graph[name].discard(name)
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of imports, first and last name equal; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def rooms(graph: Graph, depth: int) -> Graph:
    """The same between folders that are `depth` names deep: which room imports from which."""
    found: Graph = {}
    for name, others in graph.items():
        for other in others:
            here, there = name.split(".")[:depth], other.split(".")[:depth]
            if len(here) == len(there) == depth and here != there and here[:-1] == there[:-1]:
                found.setdefault(".".join(here), set()).add(".".join(there))
    return found


@pytest.fixture(scope="module")
def graph() -> Graph:
    """The imports of all worlds and rewards, read once."""
    return graph_of()


def test_modules_form_no_circle(graph: Graph) -> None:
    assert not circle(graph)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_rooms_that_stand_side_by_side_form_no_circle(graph: Graph, depth: int) -> None:
    assert not circle(rooms(graph, depth))


@pytest.mark.parametrize(
    "way_back",
    [
        "from .one import x",
        "from . import one",
        "from rollwright.envs.text import one",
        "import rollwright.envs.text.one",
        "def f():\n    from .one import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .one import x",
    ],
)
def test_a_circle_is_seen_however_it_is_closed(way_back: str, tmp_path: Path) -> None:
    folder = tmp_path / "envs" / "text"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("from .two import y\nx = 1\n", encoding="utf-8")
    (folder / "two.py").write_text("y = 1\n", encoding="utf-8")
    assert not circle(graph_of(tmp_path))
    (folder / "two.py").write_text(way_back + "\ny = 1\n", encoding="utf-8")
    assert set(circle(graph_of(tmp_path))) == {"rollwright.envs.text.one", "rollwright.envs.text.two"}


def test_no_folder_is_crowded() -> None:
    counts = Counter(file.parent.relative_to(ROOT).as_posix() for file in sources().values())
    assert not {folder: number for folder, number in counts.items() if number > MOST_FILES}


def test_every_folder_says_what_lives_there() -> None:
    silent = []
    for folder in sorted({file.parent for file in sources().values()}):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        if len(text.split()) < 8 or "import" not in text.casefold():
            silent.append(folder.relative_to(ROOT).as_posix())
    assert not silent, "say in its __init__.py what lives there, what it may import and what it gives"


def test_a_file_of_the_worlds_has_its_name_to_itself() -> None:
    counts = Counter(file.name for name, file in sources().items() if name.startswith("rollwright.envs."))
    del counts["__init__.py"]
    assert not [name for name, number in counts.items() if number > 1]


def test_no_file_and_no_function_is_too_long() -> None:
    long = []
    for name, file in sources().items():
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > MOST_LINES:
            long.append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > MOST_LINES_OF_A_FUNCTION:
                long.append(f"{name}.{node.name}")
    assert not long


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, decorators not counted."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_everything_public_says_what_it_gives() -> None:
    silent = [f"{name}: {what}" for name, file in sources().items() for what in undocumented(file)]
    assert not silent


def undocumented(file: Path) -> Iterator[str]:
    """The module, and its public classes, functions and methods without a docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    waiting: list[ast.Module | ast.ClassDef] = [tree]
    if ast.get_docstring(tree) is None:
        yield "the module"
    while waiting:
        for node in waiting.pop().body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_"
            if public and ast.get_docstring(node) is None:
                yield node.name
            if public and isinstance(node, ast.ClassDef):
                waiting.append(node)
