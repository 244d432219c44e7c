"""The household world's rules: the state, what a command does to it, which commands are allowed, when a goal is met."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from rollwright.envs.text.house.household_data import (
    APPLIANCE,
    ENCLOSING,
    LAMP,
    OPENABLE,
    THINGS,
    Room,
    TaskType,
    kind_of,
)

HAND = "hand"
NOTHING = "Nothing happens."
_DONE = {"clean": "clean", "heat": "hot", "cool": "cool"}
"""What a thing is after the verb, and what a task of that type demands of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is to be done, with which kind of thing, and at which kind of furniture."""

    type: TaskType
    thing: str
    target: str

    @property
    def text(self) -> str:
        """The goal in words."""
        place = f"{preposition(self.target)} a {self.target}"
        return {
            "pick_and_place": f"Put a {self.thing} {place}.",
            "examine_in_light": f"Look at a {self.thing} under the desklamp.",
            "clean": f"Put a clean {self.thing} {place}.",
            "heat": f"Put a hot {self.thing} {place}.",
            "cool": f"Put a cool {self.thing} {place}.",
            "pick_two": f"Put two {self.thing} {place}.",
        }[self.type]

    @property
    def condition(self) -> str:
        """`clean`, `hot` or `cool` where the thing must be so, else ""."""
        return _DONE.get(self.type, "")

    @property
    def count(self) -> int:
        """How many things have to be brought."""
        return 2 if self.type == "pick_two" else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A room in the middle of an episode. `places[i]` is the furniture at which `things[i]` lies, or the hand.

    `seen` lists the furniture whose contents have been shown so far: what a searcher may know.
    """

    room: Room
    # All tuples: the state is frozen, and snapshots and forks share it.
    furniture: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    goal: Goal
    at: str = ""
    open: tuple[str, ...] = ()
    conditions: tuple[str, ...] = field(default=())
    """`clean apple 1`, `hot mug 2` ..."""
    lit: bool = False
    seen: tuple[str, ...] = ()

    @property
    def held(self) -> str:
        """The thing in the hand, "" for none."""
        return next((t for t, p in zip(self.things, self.places, strict=True) if p == HAND), "")

    def on(self, furniture: str) -> list[str]:
        """The things that lie on or in a piece of furniture."""
        return [t for t, p in zip(self.things, self.places, strict=True) if p == furniture]

    def place_of(self, thing: str) -> str:
        """Where a thing lies; empty where there is no such thing."""
        return self.places[self.things.index(thing)] if thing in self.things else ""

    def is_closed(self, furniture: str) -> bool:
        """Whether a piece of furniture can be opened and is not."""
        return kind_of(furniture) in OPENABLE and furniture not in self.open

    def moved(self, thing: str, place: str) -> House:
        """The house after a thing was put somewhere else."""
        places = tuple(place if t == thing else p for t, p in zip(self.things, self.places, strict=True))
        return replace(self, places=places)


def preposition(furniture: str) -> str:
    """`in` for what encloses a thing, else `on`."""
    return "in" if (kind_of(furniture) or furniture) in ENCLOSING else "on"


def is_met(house: House) -> bool:
    """Whether the goal is reached."""
    goal = house.goal
    if goal.type == "examine_in_light":
        # One has to hold the thing where the lit lamp stands; the order of the two does not matter.
        return house.lit and kind_of(house.held) == goal.thing and house.place_of(LAMP) == house.at
    # More than the task asks for is no mistake.
    return sum(counts(house, thing) for thing in house.things) >= goal.count


def counts(house: House, thing: str) -> bool:
    """Whether this thing lies where and as the goal wants it."""
    goal = house.goal
    # Any thing of the kind at any furniture of the kind: tasks name kinds and no numbers.
    right = kind_of(thing) == goal.thing and kind_of(house.place_of(thing)) == goal.target
    return right and (not goal.condition or f"{goal.condition} {thing}" in house.conditions)


# Commands. The grammar is ALFWorld's; `move X to Y`, as its newer releases say, is understood as `put`.
_NAME = r"([a-z]+ \d{1,3})"
_GRAMMAR = tuple(
    (verb, re.compile(pattern))
    for verb, pattern in (
        ("go", rf"go to {_NAME}"),
        ("open", rf"open {_NAME}"),
        ("close", rf"close {_NAME}"),
        ("take", rf"take {_NAME} from {_NAME}"),
        ("put", rf"(?:put {_NAME} (?:in/on|in|on)|move {_NAME} to) {_NAME}"),
        ("treat", rf"(clean|heat|cool) {_NAME} with {_NAME}"),
        ("use", rf"use {_NAME}"),
        ("examine", rf"examine {_NAME}"),
        ("look", "look"),
        ("inventory", "inventory"),
    )
)


def execute(house: House, command: str) -> tuple[House, str] | None:
    """The house after the command, and what is said; None where the command is not understood or not possible here."""
    # Case and blanks are forgiven, words are not.
    words = " ".join(command.lower().split())
    for verb, pattern in _GRAMMAR:
        found = pattern.fullmatch(words)
        if found:
            # Alternatives of a pattern leave empty groups, which are no arguments.
            return _VERBS[verb](house, [group for group in found.groups() if group])
    return None


EVENTS = (
    *(f"{verb}_{kind}" for verb in ("open", "close") for kind in sorted(OPENABLE)),
    *("take", "put", "clean", "heat", "cool", "use", "look", "other", "slip"),
)
"""What a command can be: doors by the kind of furniture, `other` for going about, `slip` for what nothing comes of."""


def event_of(house: House, command: str) -> str:
    """Which of `EVENTS` the command would be in this house."""
    if execute(house, command) is None:
        return "slip"
    # `move X to Y` is another spelling of `put`; what is executed is made of known words.
    verb, _, rest = " ".join(command.lower().split()).partition(" ")
    if verb in ("open", "close"):
        return f"{verb}_{kind_of(rest)}"
    if verb in ("look", "inventory", "examine"):
        return "look"
    verb = "put" if verb == "move" else verb
    return verb if verb in EVENTS else "other"


def contents(house: House, furniture: str) -> str:
    """`On the shelf 1: mug 1, book 2.`, or that it is closed."""
    if house.is_closed(furniture):
        return f"The {furniture} is closed."
    return f"{preposition(furniture).capitalize()} the {furniture}: {', '.join(house.on(furniture)) or 'nothing'}."


def _shown(house: House, furniture: str) -> House:
    """The same house, its contents at `furniture` now known."""
    # What is behind a closed door is not known by standing before it.
    if house.is_closed(furniture) or furniture in house.seen:
        return house
    return replace(house, seen=(*house.seen, furniture))


def _go(house: House, names: list[str]) -> tuple[House, str] | None:
    (target,) = names
    # To go where one stands is no possible command, as in the list of `admissible` ones.
    if target not in house.furniture or target == house.at:
        return None
    return _shown(replace(house, at=target), target), f"You are at the {target}. {contents(house, target)}"


def _open(house: House, names: list[str]) -> tuple[House, str] | None:
    (target,) = names
    if target != house.at or not house.is_closed(target):
        return None
    # Sorted, since the order in which doors were opened makes no other state.
    after = replace(house, open=tuple(sorted({*house.open, target})))
    return _shown(after, target), f"You open the {target}. {contents(after, target)}"


def _close(house: House, names: list[str]) -> tuple[House, str] | None:
    (target,) = names
    if target != house.at or target not in house.open:
        return None
    return replace(house, open=tuple(name for name in house.open if name != target)), f"You close the {target}."


def _take(house: House, names: list[str]) -> tuple[House, str] | None:
    thing, source = names
    # One hand only, and the lamp cannot be carried away.
    possible = source == house.at and not house.is_closed(source) and not house.held and thing != LAMP
    if not possible or thing not in house.on(source):
        return None
    return house.moved(thing, HAND), f"You take the {thing} from the {source}."


def _put(house: House, names: list[str]) -> tuple[House, str] | None:
    thing, target = names
    # "move X to Y" and "put X in/on Y" come here alike.
    if not thing or thing != house.held or target != house.at or house.is_closed(target):
        return None
    return house.moved(thing, target), f"You put the {thing} {preposition(target)} the {target}."


def _treat(house: House, names: list[str]) -> tuple[House, str] | None:
    verb, thing, with_what = names
    possible = thing == house.held and with_what == house.at and kind_of(with_what) == APPLIANCE[verb]
    if not possible or verb not in THINGS[kind_of(thing)].can:
        return None
    # Heating undoes cooling and the other way round; a clean thing stays clean.
    opposite = {"heat": "cool", "cool": "hot"}.get(verb, "")
    kept = {c for c in house.conditions if c != f"{opposite} {thing}"} | {f"{_DONE[verb]} {thing}"}
    return replace(house, conditions=tuple(sorted(kept))), f"You {verb} the {thing} with the {with_what}."


def _use(house: House, names: list[str]) -> tuple[House, str] | None:
    # The lamp stays lit: there is no command to turn it off.
    if names != [LAMP] or LAMP not in house.on(house.at):
        return None
    return replace(house, lit=True), f"You turn on the {LAMP}."


def _examine(house: House, names: list[str]) -> tuple[House, str] | None:
    (name,) = names
    if name == house.at:
        return _shown(house, name), contents(house, name)
    # Things behind a closed door can be examined no more than taken.
    here = house.on(house.at) if house.at and not house.is_closed(house.at) else []
    if name not in [*here, house.held]:
        return None
    state = [c.removesuffix(f" {name}") for c in house.conditions if c.endswith(f" {name}")]
    return house, f"The {name} is {' and '.join(state) or 'as usual'}."


def _look(house: House, names: list[str]) -> tuple[House, str] | None:
    if not house.at:
        return house, overview(house)
    return _shown(house, house.at), f"You are at the {house.at}. {contents(house, house.at)}"


def _inventory(house: House, names: list[str]) -> tuple[House, str] | None:
    return house, f"You carry: {house.held or 'nothing'}."


_VERBS = {
    "go": _go,
    "open": _open,
    "close": _close,
    "take": _take,
    "put": _put,
    "treat": _treat,
    "use": _use,
    "examine": _examine,
    "look": _look,
    "inventory": _inventory,
}


def overview(house: House) -> str:
    """What one sees from the middle of the room."""
    return f"You are in the middle of a {house.room}. You see: {', '.join(house.furniture)}."


def admissible(house: House) -> list[str]:
    """Every command that `execute` takes here, in one spelling each, sorted."""
    found = [f"go to {name}" for name in house.furniture if name != house.at]
    reachable = house.at if house.at and not house.is_closed(house.at) else ""
    here = house.on(reachable) if reachable else []
    if house.at:
        found.append(f"examine {house.at}")
    if kind_of(house.at) in OPENABLE:
        found.append(f"open {house.at}" if house.is_closed(house.at) else f"close {house.at}")
    if house.held:
        found += _with_the_held(house, reachable)
    else:
        found += [f"take {thing} from {reachable}" for thing in here if thing != LAMP]
    found += [f"examine {thing}" for thing in here] + ([f"use {LAMP}"] if LAMP in here else [])
    # Sorted, so that the order tells nothing and draws from the list repeat.
    return sorted([*found, "inventory", "look"])


def _with_the_held(house: House, reachable: str) -> list[str]:
    treatments = [
        f"{verb} {house.held} with {house.at}"
        for verb, kind in APPLIANCE.items()
        if kind_of(house.at) == kind and verb in THINGS[kind_of(house.held)].can
    ]
    # One spelling of those that are understood, so that choosing among commands is no choice of wording.
    puts = [f"put {house.held} in/on {reachable}"] if reachable else []
    return [f"examine {house.held}", *puts, *treatments]
