"""What somebody does with a phone who knows its gestures and has no plan: a well-formed action by chance."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from .apps import installed
from .screen.tree import Element

_TAPS, _GESTURES, _KEYS = 12, 4, 3
"""How often each is drawn beside one opening of an app."""
_LAST_WORDS = 0.02
"""Share of the actions that end the episode; every template allows ten turns or more."""


def phone_action(goal: str, elements: Sequence[Element], draws: random.Random) -> str:
    """Mostly a tap or, on a field, a text; at times a gesture, a key, another app, and now and then `done`."""
    if draws.random() < _LAST_WORDS:
        return "done"
    drawn = draws.randrange(_TAPS + _GESTURES + _KEYS + 1)
    if drawn < _TAPS:
        return _touch(goal, elements, draws)
    if drawn < _TAPS + _GESTURES:
        return f"{draws.choice(('scroll', 'swipe'))} {draws.choice(('up', 'down', 'left', 'right'))}"
    if drawn < _TAPS + _GESTURES + _KEYS:
        return draws.choice(("back", "home", "enter", "wait"))
    return f"open {draws.choice([app.name for app in installed()])}"


def _touch(goal: str, elements: Sequence[Element], draws: random.Random) -> str:
    number = draws.randrange(len(elements))
    if elements[number].role == "input":
        words = re.findall(r"\w+", " ".join([goal, *(element.name for element in elements)]))
        return f"type {number} {draws.choice(words)}"
    return f"{draws.choice(('tap', 'tap', 'tap', 'hold'))} {number}"
