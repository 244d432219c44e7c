"""The household in few words, for tiny models: every name is one word (`shelf`, `shelf2`), an observation is one line.

A model of words that has to say `shelf 1` draws two words that must both be right, and has to learn which number
belongs to which name. Here whatever a command points to is one word of the vocabulary. The first of a kind has no
number, so that a thing that a task names is called the same there and in the room.
"""

from __future__ import annotations

import re

from rollwright.envs.text.house.household_data import LAMP, THINGS, furniture_kinds, kind_of
from rollwright.envs.text.house.household_rules import House

_NAME = re.compile(r"\b([a-z]+) (\d{1,3})\b")
_KINDS = "|".join([*THINGS, *furniture_kinds(), kind_of(LAMP)])
# Known names only, and none that a number follows after a blank: what is written apart stays so.
_WORD = re.compile(rf"\b({_KINDS})(\d{{1,3}}\b|\b(?! ?\d))")


def joined(text: str) -> str:
    """`take mug 1 from shelf 2` as `take mug from shelf2`, and `on` for `in/on`."""
    # The first of a kind drops its number, as a task names it.
    named = _NAME.sub(lambda found: found[1] if found[2] == "1" else found[1] + found[2], text)
    return named.replace(" in/on ", " on ")


def parted(command: str) -> str:
    """`take mug from shelf2` as `take mug 1 from shelf 2`; what is written apart stays so."""
    return _WORD.sub(lambda found: f"{found[1]} {found[2] or 1}", command.lower())


def situation(house: House) -> str:
    """All there is to know, in one line: place, what lies there, hand, furniture that was looked into and that was not.

    `at shelf mug mug2 hand nothing new cabinet fridge seen shelf`. A closed door shows `closed` in place of the things.
    """
    things = ["closed"] if house.is_closed(house.at) else house.on(house.at)
    # Fixed words before each list, since without punctuation nothing else says where one ends.
    here = ["at", house.at, *things] if house.at else ["middle"]
    held = house.held
    hand = [c.removesuffix(f" {held}") for c in house.conditions if held and c.endswith(f" {held}")]
    new = [name for name in house.furniture if name not in house.seen]
    seen = [name for name in house.furniture if name in house.seen]
    words = [*here, "hand", *hand, held or "nothing", *(["lamp"] if house.lit else []), "new", *new, "seen", *seen]
    return joined(" ".join(words))
