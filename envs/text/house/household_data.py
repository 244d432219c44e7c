"""What stands and lies in the household world: rooms, furniture, things, what can be done with them, and layouts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

Room = Literal["kitchen", "bathroom", "bedroom", "living room"]
TaskType = Literal["pick_and_place", "examine_in_light", "clean", "heat", "cool", "pick_two"]
Size = Literal["full", "small"]
ROOMS: tuple[Room, ...] = get_args(Room)
TASK_TYPES: tuple[TaskType, ...] = get_args(TaskType)

OPENABLE = frozenset({"fridge", "cabinet", "drawer", "microwave", "safe"})
# Also what stands open all the time: things lie in it and not on it.
ENCLOSING = OPENABLE | {"sinkbasin", "bathtubbasin", "garbagecan", "laundryhamper"}
LAMP = "desklamp 1"
APPLIANCE: Mapping[str, str] = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
"""What a thing is cleaned, heated or cooled with."""

# How many of each piece of furniture a room has, from least to most.
_FURNITURE: Mapping[Room, Mapping[str, tuple[int, int]]] = {
    "kitchen": {
        "countertop": (1, 3),
        "cabinet": (2, 6),
        "drawer": (1, 4),
        "fridge": (1, 1),
        "microwave": (1, 1),
        "sinkbasin": (1, 1),
        "stoveburner": (2, 4),
        "shelf": (0, 2),
        "diningtable": (0, 1),
        "garbagecan": (1, 1),
    },
    "bathroom": {
        "countertop": (1, 2),
        "cabinet": (1, 4),
        "drawer": (0, 4),
        "sinkbasin": (1, 2),
        "bathtubbasin": (0, 1),
        "toilet": (1, 1),
        "towelholder": (1, 2),
        "shelf": (0, 2),
        "garbagecan": (1, 1),
    },
    "bedroom": {
        "bed": (1, 1),
        "desk": (1, 2),
        "drawer": (2, 6),
        "shelf": (1, 4),
        "sidetable": (0, 2),
        "dresser": (0, 1),
        "safe": (0, 1),
        "laundryhamper": (0, 1),
        "garbagecan": (1, 1),
    },
    "living room": {
        "sofa": (1, 2),
        "armchair": (0, 2),
        "coffeetable": (1, 2),
        "sidetable": (1, 3),
        "shelf": (0, 3),
        "drawer": (1, 4),
        "tvstand": (0, 1),
        "garbagecan": (1, 1),
    },
}
# The small house, for tiny models: a handful of furniture, of which a layout leaves some out.
_SMALL: Mapping[Room, Mapping[str, tuple[int, int]]] = {
    "kitchen": {
        "countertop": (1, 2),
        "cabinet": (0, 2),
        "fridge": (1, 1),
        "microwave": (1, 1),
        "sinkbasin": (1, 1),
        "shelf": (0, 2),
    },
    "bathroom": {"countertop": (1, 2), "cabinet": (0, 2), "sinkbasin": (1, 1), "shelf": (0, 2), "towelholder": (0, 1)},
    "bedroom": {"bed": (1, 1), "desk": (1, 2), "drawer": (0, 2), "shelf": (0, 2), "safe": (0, 1)},
    "living room": {"sofa": (1, 1), "coffeetable": (1, 2), "sidetable": (1, 2), "shelf": (0, 2), "drawer": (0, 1)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of thing: the furniture it is usually found at, by room, and what can be done with it."""

    usual: Mapping[Room, tuple[str, ...]]
    can: frozenset[str]


def _kinds() -> dict[str, Kind]:
    """One line per kind: `name: room = furniture ...; ... | verbs`."""
    kinds = {}
    for line in _THINGS.strip().splitlines():
        name, _, rest = line.partition(":")
        places, _, verbs = rest.partition("|")
        usual = {}
        for part in places.split(";"):
            room, _, furniture = part.partition("=")
            usual[_room(room.strip())] = tuple(furniture.split())
        kinds[name.strip()] = Kind(usual=usual, can=frozenset(verbs.split()))
    return kinds


def _room(short: str) -> Room:
    named: dict[str, Room] = {"k": "kitchen", "ba": "bathroom", "be": "bedroom", "l": "living room"}
    return named[short]


# The first piece of furniture of a room is where such a thing usually lies: no task wants it brought there.
_THINGS = """
apple: k = countertop fridge diningtable | clean heat cool
bread: k = countertop diningtable fridge | heat cool
potato: k = countertop sinkbasin fridge | clean heat cool
tomato: k = countertop diningtable fridge | clean heat cool
lettuce: k = fridge countertop diningtable | clean cool
egg: k = fridge countertop sinkbasin | clean heat cool
mug: k = countertop cabinet shelf; be = desk shelf | clean heat cool light
cup: k = cabinet sinkbasin countertop | clean heat cool
bowl: k = cabinet countertop shelf; be = desk shelf | clean cool light
plate: k = cabinet countertop sinkbasin; l = coffeetable sidetable | clean heat cool light
pan: k = stoveburner countertop | clean cool
pot: k = stoveburner sinkbasin cabinet | clean cool
knife: k = drawer countertop sinkbasin | clean
fork: k = drawer countertop sinkbasin | clean
spoon: k = drawer countertop sinkbasin | clean
spatula: k = drawer countertop | clean
ladle: k = drawer sinkbasin | clean
kettle: k = stoveburner cabinet | clean
saltshaker: k = cabinet shelf countertop |
peppershaker: k = cabinet shelf drawer |
winebottle: k = cabinet fridge countertop | cool
dishsponge: k = sinkbasin drawer | clean
cloth: ba = cabinet drawer bathtubbasin countertop | clean
soapbar: ba = sinkbasin toilet countertop bathtubbasin | clean
soapbottle: ba = countertop cabinet toilet; k = countertop cabinet |
spraybottle: ba = cabinet toilet drawer |
toiletpaper: ba = toilet cabinet countertop |
candle: ba = countertop shelf toilet |
towel: ba = towelholder bathtubbasin shelf | clean
handtowel: ba = towelholder countertop | clean
toothbrush: ba = sinkbasin countertop drawer | clean
book: be = desk bed shelf; l = coffeetable sofa shelf | light
pen: be = desk drawer sidetable; l = sidetable drawer | light
pencil: be = desk drawer shelf | light
cellphone: be = bed desk drawer; l = sofa sidetable | light
laptop: be = bed desk; l = sofa coffeetable | light
creditcard: be = desk drawer dresser; l = coffeetable tvstand armchair | light
keychain: be = drawer safe desk sidetable; l = sidetable coffeetable drawer | light
cd: be = desk shelf safe drawer | light
pillow: be = bed; l = sofa armchair | light
alarmclock: be = desk sidetable shelf | light
teddybear: be = bed desk |
watch: be = desk dresser safe; l = coffeetable tvstand drawer | light
newspaper: l = sofa coffeetable armchair | light
remotecontrol: l = sofa coffeetable armchair tvstand | light
statue: l = shelf coffeetable tvstand sidetable | light
vase: l = shelf coffeetable tvstand | light
tissuebox: l = coffeetable sidetable shelf | light
box: l = sofa coffeetable armchair | light
"""
THINGS: Mapping[str, Kind] = _kinds()


def furniture_kinds() -> list[str]:
    """Every kind of furniture, each once, sorted."""
    return sorted({kind for rooms in (_FURNITURE, _SMALL) for kinds in rooms.values() for kind in kinds})


_LAMP_STANDS = ("desk", "sidetable", "dresser")


def kind_of(name: str) -> str:
    """`apple 2` is an apple."""
    # From the right: the number is the last word, whatever the kind is called.
    return name.rpartition(" ")[0]


def things_of(room: Room) -> list[str]:
    """The things that usually lie in a room."""
    # In the order of the table, on which draws from this list rely.
    return [name for name, kind in THINGS.items() if room in kind.usual]


@cache
def layouts(room: Room, size: Size) -> tuple[tuple[str, ...], ...]:
    """Every set of furniture that a room may have, each once, in an order that is shuffled and fixed.

    Seen and unseen layouts are different entries of this list, so no unseen one is also a seen one.
    """
    ranges = (_FURNITURE if size == "full" else _SMALL)[room]
    # All combinations of counts: two layouts are the same only where every count is.
    counts = itertools.product(*(range(low, high + 1) for low, high in ranges.values()))
    every = [tuple(name for kind, n in zip(ranges, c, strict=True) for name in _numbered(kind, n)) for c in counts]
    # Shuffled by a fixed text, so that seen and unseen layouts are alike in kind and the same on every machine.
    random.Random(f"layouts/{room}/{size}").shuffle(every)
    return tuple(every)


def _numbered(kind: str, count: int) -> list[str]:
    # Numbers begin at 1, as in ALFWorld.
    return [f"{kind} {number}" for number in range(1, count + 1)]


def lamp_stands(furniture: tuple[str, ...]) -> list[str]:
    """Where the desk lamp may stand in this layout."""
    return [name for name in furniture if kind_of(name) in _LAMP_STANDS]


@cache
def goals(room: Room, task_type: TaskType, size: Size) -> tuple[tuple[str, str], ...]:
    """All (thing, target furniture) that make sense for the type in this room; the target of a lamp task is the lamp.

    A target is never where such a thing usually lies already, nor the appliance of the type.
    """
    furniture = (_FURNITURE if size == "full" else _SMALL)[room]
    if task_type == "examine_in_light":
        fits = [name for name in things_of(room) if "light" in THINGS[name].can]
        return tuple((name, "desklamp") for name in fits) if any(kind in _LAMP_STANDS for kind in furniture) else ()
    verb = APPLIANCE.get(task_type)
    if verb is not None and verb not in furniture:
        return ()
    # Only what can be treated so: nobody heats a pillow.
    things = [name for name in things_of(room) if verb is None or task_type in THINGS[name].can]
    return tuple((name, kind) for name in things for kind in furniture if _sensible(name, kind, room, verb))


def _sensible(thing: str, kind: str, room: Room, appliance: str | None) -> bool:
    # No task names these as its target, though some things lie there at the start.
    odd = ("stoveburner", "towelholder", "toilet", "bathtubbasin", "laundryhamper")
    return kind not in (*odd, appliance) and kind != THINGS[thing].usual[room][0]
