"""What a recipe or command does on a mistake of the user: one paragraph, exit code 2, nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rollwright.training.recipe_entry import run_recipe


def told(recipe: Any, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a recipe says on these words: exit code 2, one paragraph, no traceback, no file or folder more."""
    before = sorted(Path().rglob("*"))
    monkeypatch.setattr(sys, "argv", ["recipe.py", *words])
    with pytest.raises(SystemExit) as stop:
        run_recipe(recipe.main)
    said = capsys.readouterr()
    assert stop.value.code == 2, said.err
    assert said.err.startswith("rollwright: ") and said.out == "", (said.err, said.out)
    assert "Traceback" not in said.err and "\n\n" not in said.err and "hunter2" not in said.err
    assert len(said.err) < 2000
    assert sorted(Path().rglob("*")) == before
    return said.err
