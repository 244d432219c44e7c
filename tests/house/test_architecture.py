"""docs/architecture.md is true: every file that it names is there, every folder is in it, the picture is the code's."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import BY_TEST

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "src" / "rollwright"
PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")


def named() -> list[str]:
    """Every path of the page: words in backticks with a slash, and what its links lead to."""
    words = [word for word in re.findall(r"`([^`\n]+)`", TEXT) if "<" not in word]
    paths = [part for word in words for part in word.split() if "/" in part]
    return sorted({*paths, *(f"docs/{target}" for target in re.findall(r"\]\(([^)#]+)\)", TEXT))})


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_house", ROOT / "scripts" / "draw_house.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw_house"] = module
    spec.loader.exec_module(module)
    return module


def test_what_the_page_names_is_there() -> None:
    """A path counts from the repository's root or, for a folder of the core, from `src/rollwright`."""
    assert len(named()) > 40
    gone = [path for path in named() if not (ROOT / path).exists() and not (CORE / path).is_dir()]
    assert not gone, f"{PAGE.name} names what is gone: {', '.join(gone)}"


def test_the_files_whose_tests_are_handed_out_one_by_one_are_there() -> None:
    found = [list(ROOT.glob(f"{place}*")) for place in BY_TEST]
    assert found and all(found)


def test_every_folder_stands_in_the_page() -> None:
    core = {f"`{file.parent.relative_to(CORE)}/`" for file in CORE.rglob("__init__.py") if file.parent != CORE}
    plug_ins = {f"`{folder}/`" for folder in ("envs", "rewards", "recipes", "accelerate_configs")}
    worlds = {f"`envs/{file.parent.name}/`" for file in (ROOT / "envs").glob("*/__init__.py")}
    missing = sorted(name for name in core | plug_ins | worlds if name not in TEXT)
    assert not missing, f"{PAGE.name} lacks {', '.join(missing)}"


def test_the_picture_is_what_the_code_says(house: ModuleType) -> None:
    assert house.draw() == house.draw(), "the same code gives the same picture"
    assert house.PICTURE.read_text(encoding="utf-8") == house.draw(), "run scripts/draw_house.py"


def test_arrows_lead_upwards_and_none_repeats_a_longer_way(house: ModuleType) -> None:
    names = house.rooms()
    graph = {room: house.imports_of(room, names) for room in names}
    edges = house.reduced(graph)
    assert all(names.index(to) < names.index(room) for room, to in edges)
    for room, others in graph.items():  # whoever is imported is still reached by arrows
        reached, last = set(), {room}
        while last:
            last = {to for start, to in edges if start in last} - reached
            reached |= last
        assert others <= reached


def test_a_longer_way_replaces_a_shorter_one(house: ModuleType) -> None:
    assert house.reduced({"a": set(), "b": {"a"}, "c": {"a", "b"}}) == [("b", "a"), ("c", "b")]


def test_arrows_that_pass_the_same_row_keep_apart(house: ModuleType) -> None:
    spans = [(0, 1), (1, 2), (0, 2), (1, 4)]
    lanes = house.lanes(spans)
    assert lanes[0] == lanes[1] == 0, "they touch in a row, and pass none together"
    assert len({lanes[0], lanes[2]}) == 2 and len({lanes[1], lanes[2], lanes[3]}) == 3
