"""The configurations that ship: every key is explained and read by somebody, every YAML loads."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from rollwright.config import Config, Presets, Readers, build, dump
from rollwright.config.named_parts import keys_of_parts
from rollwright.config.schema import all_keys, section_of
from rollwright.contracts.errors import ConfigError
from rollwright.training.preflight import require_components, require_siblings, require_trackers

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted((ROOT / "recipes").rglob("*.yaml"))
EXTENDED = {word for file in YAMLS for word in file.read_text(encoding="utf-8").split() if word.endswith(".yaml")}


def recipe_names() -> list[str]:
    package = importlib.import_module("rollwright.recipes")
    return sorted(i.name for i in pkgutil.iter_modules(package.__path__) if not i.ispkg and not i.name.startswith("_"))


def recipe_config(name: str) -> type[Config] | None:
    """The whole configuration of a recipe: the `Config` of its module that is no section of another; None for none."""
    module = importlib.import_module(f"rollwright.recipes.{name}")
    own = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Config)]
    own = [cls for cls in own if cls.__module__ == module.__name__]
    sections = {section_of(field.annotation) for cls in own for field in cls.model_fields.values()}
    whole = [cls for cls in own if cls not in sections]
    assert len(whole) <= 1, f"{name}: which of {[cls.__name__ for cls in whole]} is the recipe's configuration?"
    return whole[0] if whole else None


def names_read() -> set[str]:
    """Every name that the core or a recipe reads as an attribute, or spells in a list of names inside a function."""
    names: set[str] = set()
    for folder in ("src/rollwright", "recipes"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
            for function in ast.walk(tree):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    names |= set(_listed_names(function))
    return names


def _listed_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.split()
            if all(word.isidentifier() for word in words):
                yield from words


def option_keys(cls: type[Config]) -> set[str]:
    """The keys that hold the options of named parts: `build_part` reads them by the name that the kind of part says."""
    inside = [section for field in cls.model_fields.values() if (section := section_of(field.annotation))]
    own = {parts.options for _, parts in keys_of_parts(cls.model_fields)}
    return own.union(*map(option_keys, inside))


@pytest.mark.long
@pytest.mark.parametrize("name", recipe_names())
def test_every_key_is_read_by_somebody_and_explained(name: str) -> None:
    cls = recipe_config(name)
    if cls is None:
        return  # a recipe made of other recipes has no keys of its own
    keys = dict(all_keys(cls))
    read = names_read() | option_keys(cls)
    unread = [key for key in keys if key.rpartition(".")[2] not in read]
    unexplained = [key for key, field in keys.items() if not field.description]
    assert not unread, f"read by nobody: {unread}"
    assert not unexplained, f"without a meaning: {unexplained}"


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: file.stem)
def test_every_yaml_that_ships_loads(file: Path) -> None:
    """`miniwob_grpo.yaml` belongs to `grpo.py`, `miniwob_eval.yaml` to `evaluate.py`: the last word tells."""
    method = file.stem.rpartition("_")[2]
    recipe = next((name for name in recipe_names() if name.startswith(method)), None)
    if recipe is None and any(Path(word).name == file.name for word in EXTENDED):
        return  # the common part of others, loaded with them
    assert recipe, f"{file.name}: its last word begins no name of {recipe_names()}, and no file extends it"
    cls = recipe_config(recipe)
    assert cls is not None
    config = build(cls, file)
    assert dump(config)
    for check in (require_components, require_siblings, require_trackers):
        check(config)


# --- presets -------------------------------------------------------------------------------------------------------


class Shaped(Config):
    """A section whose preset decides the shape."""

    preset: Literal["round", "square"] = "round"
    shape: Literal["circle", "box"] = "circle"
    corner: int = 0

    only_for: ClassVar[Readers] = {"corner": {"shape": ("box",)}}
    presets: ClassVar[Presets] = {
        "round": {"shape": "circle", "corner": 1},
        "square": {"shape": "box", "corner": 2},
    }


class Holder(Config):
    """The whole."""

    part: Shaped = Shaped()


@pytest.mark.parametrize(
    ("given", "shape", "corner"),
    [
        ({}, "circle", 1),
        ({"preset": "square"}, "box", 2),
        ({"preset": "square", "corner": 7}, "box", 7),
        ({"preset": "square", "shape": "circle"}, "circle", 2),  # the corner was filled in: nobody has set it
        ({"shape": "box"}, "box", 1),
    ],
)
def test_a_preset_fills_in_what_nobody_set(given: dict[str, Any], shape: str, corner: int) -> None:
    config = build(Holder, {"part": given})
    assert (config.part.shape, config.part.corner) == (shape, corner)
    assert config.part.model_fields_set == set(given)
    assert build(Holder, {"part": dict(given)}) == config


def test_a_set_key_that_the_preset_leaves_idle_is_still_an_error() -> None:
    with pytest.raises(ConfigError, match=r"`part\.corner` has no effect with `part\.shape=circle`"):
        build(Holder, {"part": {"preset": "square", "shape": "circle", "corner": 3}})
    with pytest.raises(ConfigError, match=r"`part\.preset` must be round \| square, got 'squar'"):
        build(Holder, {"part": {"preset": "squar"}})


def test_a_preset_of_keys_that_are_none_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="presets names `edge`"):
        type("Wrong", (Shaped,), {"presets": {"round": {"edge": 1}}, "__module__": __name__})
