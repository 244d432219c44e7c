"""What a visitor without a plan does on a page: a well-formed action by chance, on an element that the page shows."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from .scene import Line

_FIELDS = ("textbox", "textarea")
_DEAD_STATES = frozenset(["disabled", "readonly"])
_FILLED = 0.75
"""Share of the fields drawn that are filled; the others are clicked, which gives them the focus."""


def page_action(goal: str, lines: Sequence[Line], draws: random.Random) -> str:
    """Fill a field, choose from a list or click; `noop` where nothing can be acted on."""
    alive = [line for line in lines if not _DEAD_STATES & set(line.states)]
    if not alive:
        return "noop"
    line = draws.choice(alive)
    if line.role in _FIELDS and draws.random() < _FILLED:
        return f"fill {line.id} {random_words(goal, lines, draws)}"
    options = [option for option in line.options if not option.startswith("... ")]
    if line.role == "select" and options:
        return f"select_option {line.id} {draws.choice(options)}"
    return f"click {line.id}"


def random_words(goal: str, lines: Sequence[Line], draws: random.Random) -> str:
    """A word of the goal or of the page, or what the goal has in quotes."""
    names = " ".join(line.name for line in lines)
    found = [*re.findall(r'"([^"]+)"', goal), *re.findall(r"\w+", f"{goal} {names}")]
    return draws.choice(found or ["hello"])
