"""`rollwright methods`, `worlds` and `components`: what they list is what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.cli.launching.recipe_names import recipe_names, yaml_names
from rollwright.cli.listing.tables import format_columns, method_catalogue, world_catalogue
from rollwright.cli.listing.worlds_command import settings_of
from rollwright.config import available
from rollwright.learner import METHODS

DOCS = Path(__file__).resolve().parents[2] / "docs"
NO_METHOD = {"collect", "evaluate", "demo"}


def test_every_world_is_in_the_catalogue_with_a_page() -> None:
    worlds = world_catalogue()
    assert list(worlds) == available("envs")
    assert [name for name, of in worlds.items() if not (DOCS / of["page"]).is_file()] == []
    assert {name for name, of in worlds.items() if set(of) != {"what", "needs", "teacher", "page"}} == set()


def test_every_recipe_and_preset_is_in_the_catalogue_of_methods() -> None:
    methods = method_catalogue()
    assert {entry["recipe"] for entry in methods} == set(recipe_names()) - NO_METHOD
    presets = {entry["preset"]: entry["papers"] for entry in methods if "preset" in entry}
    assert presets == {name: method.source for name, method in METHODS.items()}
    assert {name for entry in methods for name in entry["settings"]} <= set(yaml_names())


def test_methods_and_worlds_print_one_table_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal breaks cells over lines
    assert cli.main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "algorithm.preset=gspo" in shown and "arXiv:2406.11896" in shown
    assert cli.main(["worlds"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in available("envs"))


def test_one_world_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["worlds", "text.wordle"]) == 0
    shown = capsys.readouterr().out
    assert "rollwright audit text.wordle" in shown and "rollwright train sft text/wordle_sft" in shown
    assert cli.main(["worlds", "text.wordel"]) == 2
    assert "Did you mean `text.wordle`?" in capsys.readouterr().err
    assert {"text/maze", "text/maze_grpo", "text/maze_sft"} <= set(settings_of("text.maze"))
    assert settings_of("text.wordle") == ["text/wordle", "text/wordle_grpo", "text/wordle_sft"]


def test_components_lists_every_kind_of_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["components"]) == 0
    kinds: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  "):
            kinds[next(reversed(kinds))].append(line.strip())
        else:
            kinds[line.partition(" (")[0]] = []
    assert {"text.maze", "web.miniwob"} <= set(kinds["worlds"]) and "env" in kinds["rewards"]
    assert {"gigpo", "rloo"} <= set(kinds["advantage estimators of train grpo"])
    assert "turn_gae" in kinds["advantage estimators of train ppo"] and "ppo" in kinds["policy losses"]
    assert "squared" in kinds["critic losses"] and "uniform" in kinds["curricula"] and kinds["engines"]


@pytest.mark.parametrize("installed", [True, False])
def test_components_says_which_package_an_engine_lacks(
    installed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every engine, and the package that it needs: its own name is none."""
    from importlib import util

    from rollwright.config import components

    real = util.find_spec
    known = {"vllm": installed or None, "transformers": installed or None}
    monkeypatch.setattr(
        components.importlib.util, "find_spec", lambda name: known[name] if name in known else real(name)
    )
    assert cli.main(["components"]) == 0
    lines = capsys.readouterr().out.split("engines (engine.name):\n")[1].splitlines()[:-1]
    notes = [
        "",
        " (vllm is not installed)",
        " (vllm is not installed: only with engine.urls)",
        " (transformers is not installed)",
    ]
    names = ["  auto", "  vllm", "  vllm_server", "  transformers"]
    assert lines == [name + ("" if installed else note) for name, note in zip(names, notes, strict=True)]


def test_columns_wrap_where_the_terminal_is_narrow() -> None:
    table = format_columns(("name", "what"), [("a", "one two three four five six")], width=24)
    assert table.splitlines() == ["name  what", "a     one two three four", "      five six"]
    assert format_columns(("name", "what"), [("a", "b")], width=24) == "name  what\na     b"
