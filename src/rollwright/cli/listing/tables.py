"""Tables in a terminal, and the catalogues of methods and worlds that ship beside them."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml

_NARROWEST, _WIDEST = 16, 160


def method_catalogue() -> list[dict[str, Any]]:
    """One entry per method: name, recipe, preset (of GRPO's family), papers, data, needs, settings."""
    found: list[dict[str, Any]] = json.loads(_text("recipes", "methods.json"))
    return found


def world_catalogue() -> dict[str, dict[str, Any]]:
    """Of every shipped world: what is done there, what it needs, whether a teacher plays it, its page."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(_text("envs", "catalogue.yaml"))
    return found


def format_columns(heading: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """Rows under a heading, in columns; the widest column is wrapped where the terminal is too narrow.

    Args:
        width: characters in a line; None = the terminal's, or 160 where there is none.
    """
    total = min(width or shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    widths = [max(len(row[i]) for row in (heading, *rows)) for i in range(len(heading))]
    too_much = sum(widths) + 2 * (len(widths) - 1) - total
    # One character at a time off the widest column, so that wide columns end up alike.
    while too_much > 0 and max(widths) > _NARROWEST:
        widest = widths.index(max(widths))
        widths[widest] -= 1
        too_much -= 1
    return "\n".join(line for row in (heading, *rows) for line in _lines(row, widths))


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    # `wrap` makes no line at all of an empty text.
    cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    count = max(map(len, cells))
    padded = [cell + [""] * (count - len(cell)) for cell in cells]
    return [
        "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for parts in zip(*padded, strict=True)
    ]


def _text(package: str, name: str) -> str:
    return files(f"rollwright.{package}").joinpath(name).read_text(encoding="utf-8")
