"""The house: rooms in the order of their imports, no circles, doors; plug-ins know the core, it knows no plug-in."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "src" / "rollwright"

ROOMS = (
    "contracts",
    "config",
    "maths",
    "run_io",
    "batching",
    "models",
    "generation",
    "store",
    "learner",
    "critics",
    "rollout",
    "curriculum",
    "methods",
    "checks",
    "evaluation",
    "view",
    "training",
    "cli",
)
"""Every folder of the core; a folder imports only from folders above it. Everything below is derived from this."""

MAY_NOT_IMPORT = {
    "src/rollwright": ("rollwright.envs", "rollwright.rewards", "rollwright.recipes"),
    "envs": ("rollwright.rewards", "rollwright.recipes"),
    "rewards": ("rollwright.envs", "rollwright.recipes"),
}

MAY_IMPORT = {"rewards": "rollwright.envs.code.sandbox"}
"""A service, no environment: what judges foreign text does it in a process of its own."""

MOST_FILES = 20


def dotted(file: Path) -> str:
    """src/rollwright/store/replay/__init__.py -> rollwright.store.replay"""
    parts = ("rollwright", *file.relative_to(CORE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


FILES = {dotted(file): file for file in sorted(CORE.rglob("*.py"))}
PACKAGES = {name for name, file in FILES.items() if file.name == "__init__.py"}


def imports_of(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every import of a file, inside functions too; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def target_of(module: str, name: str) -> str:
    """The file that an import reaches: `from package import module` reaches the module."""
    return f"{module}.{name}" if f"{module}.{name}" in FILES else module


def room_of(module: str) -> str:
    """rollwright.store.replay.replay_table -> store; nothing for the package itself."""
    return module.split(".")[1] if "." in module else ""


def where(file: Path, line: int) -> str:
    return f"{file.relative_to(ROOT)}:{line}"


def test_every_folder_of_the_core_is_a_room_with_a_door_plate() -> None:
    entries = {entry.name for entry in CORE.iterdir() if entry.name != "__pycache__"}
    assert entries == {*ROOMS, "__init__.py", "py.typed"}
    for package in sorted(PACKAGES):
        assert ast.get_docstring(ast.parse(FILES[package].read_text(encoding="utf-8"))), f"{package}: no docstring"
    for room in ROOMS:
        text = ast.get_docstring(ast.parse((CORE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "Lives here:" in text and "May import:" in text, f"{room}: say what lives there and what it may import"


def test_no_folder_holds_more_files_than_a_reader_takes_in() -> None:
    counts = {p: len([f for f in FILES[p].parent.glob("*.py") if f.name != "__init__.py"]) for p in PACKAGES}
    assert not {package: n for package, n in counts.items() if n > MOST_FILES}


def test_a_room_imports_only_from_rooms_above_it() -> None:
    wrong = [
        f"{where(file, line)}: {room_of(name)} imports {room_of(module)}"
        for name, file in FILES.items()
        for line, module, _ in imports_of(file)
        if room_of(name) and module.startswith("rollwright.") and room_of(module) in ROOMS
        if ROOMS.index(room_of(module)) > ROOMS.index(room_of(name))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_imports_inside_the_core() -> None:
    """Functions' own imports and those for type checkers count. A door re-exports its room, so doors are left out."""
    graph = {
        name: {target_of(m, n) for _, m, n in imports_of(file)} & (FILES.keys() - PACKAGES)
        for name, file in FILES.items()
        if name not in PACKAGES
    }
    try:
        circle: list[str] = []
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = error.args[1]
    assert not circle, f"import circle: {' -> '.join(circle)}"


def doors() -> dict[str, set[str]]:
    """Package -> what its `__all__` names."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for node in ast.parse(FILES[package].read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                found[package] = set(ast.literal_eval(node.value))
    return found


def test_other_rooms_and_plug_ins_come_in_by_the_door() -> None:
    """What a room gives to others is what its `__init__` exports, or one of its modules used as a namespace."""
    exported, wrong = doors(), []
    outside = [file for folder in ("envs", "rewards", "recipes") for file in sorted((ROOT / folder).rglob("*.py"))]
    for file in [*FILES.values(), *outside]:
        own = room_of(dotted(file)) if file.is_relative_to(CORE) else ""
        for line, module, name in imports_of(file):
            if room_of(module) not in ROOMS or room_of(module) == own or not module.startswith("rollwright."):
                continue
            if module not in PACKAGES or (name not in exported.get(module, ()) and f"{module}.{name}" not in FILES):
                wrong.append(f"{where(file, line)}: {module} does not give {name or 'itself'} by its door")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", MAY_NOT_IMPORT)
def test_imports_run_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = [
        f"{where(file, line)} imports {name}"
        for file in files
        for line, module, imported in imports_of(file)
        for name in {module, f"{module}.{imported}"}
        if name.startswith(MAY_NOT_IMPORT[folder]) and not name.startswith(MAY_IMPORT.get(folder, name + "."))
    ]
    assert not wrong, "\n".join(wrong)


def test_relative_imports_are_left_to_the_plug_in_folders() -> None:
    """The checks above read absolute imports only, so the core must not use the other kind."""
    wrong = [
        where(file, node.lineno)
        for file in FILES.values()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("module", ["rollwright", "rollwright.contracts", "rollwright.config", "rollwright.run_io"])
def test_the_record_and_the_contracts_import_no_torch(module: str) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'accelerate', 'vllm'}"
    code = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["envs", "rewards", "recipes", "accelerate_configs"])
def test_a_plug_in_folder_refuses_its_second_name(package: str) -> None:
    """With the repository on sys.path `import envs` would load every class twice."""
    run = subprocess.run([sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"import this package as `rollwright.{package}`" in run.stderr
