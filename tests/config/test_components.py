"""Names in the configuration find their builder, or an error that says what there is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from rollwright.config.components import Kind, available, create, load
from rollwright.contracts.errors import ConfigError, UnknownComponent


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody else's package on the import path."""
    (tmp_path / "their_worlds.py").write_text(
        "LIMIT = 3\n"
        "class Guess:\n"
        "    def __init__(self, size, limit=10):\n"
        "        self.size, self.limit = size, limit\n"
    )
    (tmp_path / "their_broken.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("their_worlds", "their_broken"):
        sys.modules.pop(name, None)


def test_shipped_components_are_found_by_their_place() -> None:
    names = available("envs")
    assert "text.maze" in names
    assert "web.miniwob" in names
    assert names == sorted(names)


def test_helper_modules_are_no_components() -> None:
    """`envs/web/page_actions.py` and its like lie beside worlds, or in rooms of their own, and build nothing."""
    names = set(available("envs"))
    assert not {"web", "text", "web.page_actions", "web.chromium", "text.game", "text.house", "device.adb"} & names
    assert all(len(name.split(".")) == 2 for name in names), "what a world is made of lies deeper"


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_listed_component_loads(kind: Kind) -> None:
    names = available(kind)
    assert names
    assert all(callable(load(kind, name)) for name in names)


def test_listing_imports_no_component() -> None:
    import subprocess

    code = (
        "import sys; from rollwright.config.components import available; available('envs'); "
        "print([m for m in sys.modules if m.startswith('rollwright.envs.')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("typed", "meant"), [("text.maz", "text.maze"), ("maze", "text.maze"), ("web.minwob", "web.miniwob")]
)
def test_an_unknown_name_gets_the_nearest_one(typed: str, meant: str) -> None:
    with pytest.raises(UnknownComponent, match=rf"no environment named `{typed}`. Did you mean `{meant}`\?") as caught:
        load("envs", typed)
    assert all(name in str(caught.value) for name in available("envs"))


@pytest.mark.usefixtures("foreign")
def test_somebody_elses_class_is_named_by_its_module() -> None:
    world = create("envs", "their_worlds:Guess", {"size": 16})
    assert (world.size, world.limit) == (16, 10)


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_world:Guess", "no module `their_world` on the import path"),
        ("their_worlds:Gues", "Did you mean `their_worlds:Guess`"),
        ("their_worlds:LIMIT", "has no callable `LIMIT`"),
        (":Guess", "must read `package.module:Attribute`"),
    ],
)
def test_a_wrong_foreign_name_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(UnknownComponent, match=message):
        load("envs", name)


@pytest.mark.usefixtures("foreign")
def test_what_a_foreign_module_fails_to_import_is_not_blamed_on_its_name() -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        load("envs", "their_broken:Guess")


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1, "limti": 3}, r"takes no option `limti`. Did you mean `limit`\? Options: size, limit"),
        ({"limit": 3}, "needs the option size"),
    ],
)
def test_options_are_checked_against_the_builder(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create("envs", "their_worlds:Guess", options)
