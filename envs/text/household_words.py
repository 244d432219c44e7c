"""The household in few words, for tiny models: every name is one word (`shelf1`), and an observation is one line.

A model of words that has to say `shelf 1` draws two words that must both be right, and has to learn which number
belongs to which name. Here whatever a command points to is one word of the vocabulary.
"""

from __future__ import annotations

import re

from rollwright.envs.text.household_rules import House

_NAME = re.compile(r"\b([a-z]+) (\d{1,3})\b")
_WORD = re.compile(r"\b([a-z]+)(\d{1,3})\b")


def joined(text: str) -> str:
    """`take mug 1 from shelf 2` as `take mug1 from shelf2`, and `on` for `in/on`."""
    return _NAME.sub(r"\1\2", text).replace(" in/on ", " on ")


def parted(command: str) -> str:
    """`take mug1 from shelf2` as `take mug 1 from shelf 2`; what is written apart stays so."""
    return _WORD.sub(r"\1 \2", command.lower())


def situation(house: House) -> str:
    """All there is to know, in one line: place, what lies there, hand, furniture that was looked into and that was not.

    `at shelf1 mug1 hand nothing new cabinet1 fridge1 seen shelf1`. A closed door shows `closed` in place of the things.
    """
    things = ["closed"] if house.is_closed(house.at) else house.on(house.at)
    here = ["at", house.at, *things] if house.at else ["middle"]
    held = house.held
    hand = [c.removesuffix(f" {held}") for c in house.conditions if held and c.endswith(f" {held}")]
    new = [name for name in house.furniture if name not in house.seen]
    seen = [name for name in house.furniture if name in house.seen]
    words = [*here, "hand", *hand, held or "nothing", *(["lamp"] if house.lit else []), "new", *new, "seen", *seen]
    return joined(" ".join(words))
