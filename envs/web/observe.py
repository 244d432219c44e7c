"""From the page's one walk to the few lines that the policy reads. Pure functions.

One element, one line: `3 checkbox TC0ephL (on)`, `5 textbox Username = bob`, `4 select Size = M [S, M, L]`. Plain text
has no number. The numbers are what actions take; they stay with their element for the whole episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SILENT_STATES = frozenset(["focused"])
"""Shown for fields that take text only: elsewhere the focus says nothing and costs a token a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One line of the observation. `id` is None for plain text; `box` is x, y, width, height in CSS pixels."""

    id: int | None
    role: str
    name: str
    value: str | None = None
    states: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    more_options: int = 0
    box: tuple[int, ...] = ()
    clickable: bool = False


def read_elements(items: Sequence[Mapping[str, Any]]) -> tuple[Element, ...]:
    """What `walk.js` returned, typed."""
    return tuple(
        Element(
            id=item.get("id"),
            role=item["role"],
            name=item["name"],
            value=item.get("value"),
            states=tuple(item.get("states", ())),
            options=tuple(item.get("options", ())),
            more_options=item.get("more", 0),
            box=tuple(item.get("box", ())),
            clickable=item.get("clickable", False),
        )
        for item in items
    )


def render(elements: Sequence[Element], *, max_chars: int = 4000, positions: bool = False) -> str:
    """The page as text, one element a line.

    Args:
        max_chars: lines beyond this are left out, and a last line says how many.
        positions: add each element's centre as `@x,y`, for tasks that are solved by pointing.
    """
    lines: list[str] = []
    used = 0
    for index, element in enumerate(elements):
        line = _line(element, positions=positions)
        used += len(line) + 1
        if used > max_chars:
            lines.append(f"... {len(elements) - index} more lines")
            break
        lines.append(line)
    return "\n".join(lines)


def _line(element: Element, *, positions: bool) -> str:
    parts = [] if element.id is None else [str(element.id), element.role]
    if element.name:
        parts.append(element.name)
    if element.value:
        parts.append(f"= {element.value}")
    if element.options:
        more = f", ... {element.more_options} more" if element.more_options else ""
        parts.append(f"[{', '.join(element.options)}{more}]")
    states = [s for s in element.states if s not in _SILENT_STATES or element.role in ("textbox", "textarea")]
    if states:
        parts.append(f"({', '.join(states)})")
    if positions and element.box:
        x, y, width, height = element.box
        parts.append(f"@{x + width // 2},{y + height // 2}")
    return " ".join(parts)
