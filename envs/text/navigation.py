"""LMRL-Gym's text navigation: put the stale food of the living room into the fridge of the kitchen, and close it.

A house of eight rooms. Pays 1.0, once, when the stale food lies in the closed fridge; eating it ends the episode with
nothing, everything else pays 0. "fo" names the room in each observation, "po" does not: the policy must tell rooms by
what is in them and by their exits. Rooms, exits, furniture and things are the benchmark's. As there, each observation
ends with the commands that are possible, but for looking (`show_commands`): the task is one of choosing.

The game is our own program with TextWorld's command grammar, so it needs no interpreter. The benchmark draws the room
one starts in; here it is the task, so that rooms to start from can be held out (`starts="held_out"`) or all be tested
(`starts="all"`). The benchmark states no limit on turns; ours is 40, some three times the longest solution.

Source: arXiv:2311.18232.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

from rollwright.contracts import ConfigError, Environment, Execution, Observation, SnapshotKind, Split, StepResult, Task
from rollwright.envs.text.game import GameEnvironment, state_in

Variant = Literal["fo", "po"]
Starts = Literal["held_out", "all"]

GOAL = "Put the stale food on the table in the living room into the fridge in the kitchen, and close the fridge."
# Every exit has its way back.
EXITS: Mapping[str, Mapping[str, str]] = {
    "bedroom": {"west": "living room", "south": "bathroom"},
    "living room": {"east": "bedroom", "west": "dining room", "south": "office"},
    "dining room": {"east": "living room", "west": "kitchen"},
    "kitchen": {"east": "dining room", "north": "garden", "west": "backyard"},
    "garden": {"south": "kitchen"},
    "backyard": {"east": "kitchen"},
    "office": {"north": "living room", "east": "bathroom"},
    "bathroom": {"west": "office", "north": "bedroom"},
}
FURNITURE: Mapping[str, str] = {
    "bedroom": "table",
    "living room": "table",
    "dining room": "table",
    "office": "chest",
    "kitchen": "fridge",
}
CLOSABLE = ("chest", "fridge")
FOOD = ("stale food", "fresh food", "fruit")
_PLACES: Mapping[str, str] = {
    "stale food": "living room table",
    "fresh food": "living room table",
    "bowl": "bedroom table",
    "coffee cup": "dining room table",
    "plate": "dining room table",
    "utensils": "office chest",
    "fruit": "kitchen fridge",
}
THINGS = tuple(_PLACES)
HELD, EATEN, FLOOR, FRIDGE = "held", "eaten", "floor", "kitchen fridge"
_STARTS: Mapping[Split, tuple[str, ...]] = {
    "train": ("bedroom", "bathroom", "kitchen", "garden"),
    "validation": ("dining room", "backyard"),
    "test": ("office", "living room"),
}
SLIP = "That is not something you can do."


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseState:
    """`places[i]` is where `THINGS[i]` is: `<room> <furniture>`, `<room> floor`, `held` or `eaten`."""

    room: str
    # In the order of THINGS, which is the order of the same mapping.
    places: tuple[str, ...] = tuple(_PLACES.values())
    open: tuple[str, ...] = ()

    def at(self, place: str) -> list[str]:
        """The things at a place."""
        return [thing for thing, where in zip(THINGS, self.places, strict=True) if where == place]

    def moved(self, thing: str, place: str) -> HouseState:
        """The state after a thing was brought somewhere else."""
        places = tuple(place if t == thing else p for t, p in zip(THINGS, self.places, strict=True))
        return replace(self, places=places)

    @property
    def spot(self) -> str:
        """The furniture of this room as a place; "" where there is none."""
        return f"{self.room} {FURNITURE[self.room]}" if self.room in FURNITURE else ""

    @property
    def reachable(self) -> bool:
        """Whether one can put things on or into the furniture here."""
        furniture = FURNITURE.get(self.room, "")
        return bool(furniture) and (furniture not in CLOSABLE or furniture in self.open)

    @property
    def solved(self) -> bool:
        """Whether the stale food is in the fridge, and the fridge is shut."""
        return "stale food" in self.at(FRIDGE) and "fridge" not in self.open


def describe(state: HouseState, variant: Variant) -> str:
    """The room as the policy sees it."""
    # "po" keeps a sentence of the same form, so that only the name is missing.
    lines = [f"You are in the {state.room}."] if variant == "fo" else ["You are in a room."]
    furniture = FURNITURE.get(state.room)
    if furniture and not state.reachable:
        lines.append(f"There is a closed {furniture}.")
    elif furniture:
        preposition = "In" if furniture in CLOSABLE else "On"
        there = ", ".join(state.at(state.spot)) or "nothing"
        lines.append(f"There is {'an open' if furniture in CLOSABLE else 'a'} {furniture}.")
        lines.append(f"{preposition} the {furniture}: {there}.")
    floor = state.at(f"{state.room} {FLOOR}")
    lines += [f"On the floor: {', '.join(floor)}."] if floor else []
    lines.append(f"Exits: {', '.join(EXITS[state.room])}.")
    lines.append(f"You carry: {', '.join(state.at(HELD)) or 'nothing'}.")
    return " ".join(lines)


def commands(state: HouseState) -> list[str]:
    """Every command that is understood and does something here, sorted."""
    furniture, held = FURNITURE.get(state.room, ""), state.at(HELD)
    found = [f"go {direction}" for direction in EXITS[state.room]]
    if furniture in CLOSABLE:
        found.append(f"close {furniture}" if furniture in state.open else f"open {furniture}")
    if state.reachable:
        found += [f"take {thing} from {furniture}" for thing in state.at(state.spot)]
        # TextWorld inserts into containers and puts on supporters.
        verb, preposition = ("insert", "into") if furniture in CLOSABLE else ("put", "on")
        found += [f"{verb} {thing} {preposition} {furniture}" for thing in held]
    found += [f"take {thing}" for thing in state.at(f"{state.room} {FLOOR}")]
    # To eat the stale food is possible and fails the task: the trap of this game.
    found += [f"drop {thing}" for thing in held] + [f"eat {thing}" for thing in held if thing in FOOD]
    return sorted([*found, "look"])


def admissible_line(state: HouseState) -> str:
    """The possible commands as the benchmark prints them: it leaves out those that only look."""
    return f"Admissible commands: {', '.join(command for command in commands(state) if command != 'look')}"


def apply(state: HouseState, command: str) -> HouseState:
    """The house after one of `commands(state)`."""
    verb, _, rest = command.partition(" ")
    if verb == "go":
        return replace(state, room=EXITS[state.room][rest])
    if verb == "open":
        # Sorted, since the order in which things were opened makes no other state.
        return replace(state, open=tuple(sorted({*state.open, rest})))
    if verb == "close":
        return replace(state, open=tuple(name for name in state.open if name != rest))
    # With a blank behind the name, so that one name is not found at the start of another.
    thing = next((name for name in THINGS if rest == name or rest.startswith(f"{name} ")), "")
    where = {"take": HELD, "insert": state.spot, "put": state.spot, "drop": f"{state.room} {FLOOR}", "eat": EATEN}
    return state.moved(thing, where[verb]) if verb in where else state


@lru_cache(maxsize=4096)
def solution(state: HouseState) -> tuple[str, ...]:
    """A shortest way to the goal from `state`; empty where it is reached, or can no longer be.

    Only what matters is tried: moving, the stale food, and the doors of what holds or shall hold it.
    """
    # State -> the state before it and the command; None marks where the search began.
    came: dict[HouseState, tuple[HouseState, str] | None] = {state: None}
    frontier = deque([state])
    while frontier:
        here = frontier.popleft()
        # Breadth first, so the first solution that is found is a shortest one.
        if here.solved:
            return _way(came, here)
        for command in filter(_matters, commands(here)):
            _visit(came, frontier, here, command)
    return ()


def _matters(command: str) -> bool:
    return command.startswith(("go", "open", "close", "take stale")) or command == "insert stale food into fridge"


def _visit(
    came: dict[HouseState, tuple[HouseState, str] | None], frontier: deque[HouseState], here: HouseState, command: str
) -> None:
    # A state met before was met by a way that is no longer.
    after = apply(here, command)
    if after not in came:
        came[after] = (here, command)
        frontier.append(after)


def _way(came: dict[HouseState, tuple[HouseState, str] | None], here: HouseState) -> tuple[str, ...]:
    way, step = [], came[here]
    while step is not None:
        way.append(step[1])
        step = came[step[0]]
    return tuple(reversed(way))


class Planner:
    """Takes a shortest way. It reads the state, so it solves the partially observed variant too."""

    def act(self, env: Environment, observation: Observation) -> str:
        """The next command of a shortest solution. Raises TypeError in another world's environment."""
        if not isinstance(env, GameEnvironment) or not isinstance(env.state, HouseState):
            raise TypeError(f"this teacher walks this house, not {type(env).__name__}")
        way = solution(env.state)
        # After the food was eaten there is no way, and looking changes nothing.
        return way[0] if way else "look"


class NavigationWorld:
    """The house and the rooms to start from. Build it with `build`."""

    name = "text.navigation"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    state_type = HouseState
    instructions = (
        "You walk through a house. Answer with one command, such as: go north, open chest, close chest, "
        "take plate from table, put plate on table, insert plate into chest, drop plate, eat fruit, look."
    )

    def __init__(self, *, variant: Variant, max_turns: int, starts: Starts, show_commands: bool = True) -> None:
        self.variant, self.show_commands = variant, show_commands
        self.max_turns = max_turns
        self._starts = starts
        self.identity = f"{self.name}/{variant}/{max_turns}"

    def tasks(self, split: Split) -> list[Task]:
        """One task per room to start in."""
        if self._starts == "all":
            rooms, prefix = (tuple(EXITS) if split == "test" else ()), "all/"
        else:
            rooms, prefix = _STARTS[split], ""
        return [Task(id=f"{prefix}{room}", split=split, params={"start": room}) for room in rooms]

    def make(self) -> GameEnvironment[HouseState]:
        """A fresh environment."""
        return GameEnvironment(self)

    def teacher(self, task: Task) -> Planner:
        """Plans from the state."""
        return Planner()

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A command that does something here."""
        return draws.choice(commands(state_in(env, HouseState)))

    def begin(self, task: Task, seed: int) -> tuple[HouseState, Observation]:
        """Begin in the task's room. Raises ValueError for a room that is not there."""
        if task.params["start"] not in EXITS:
            raise ValueError(f"task {task.id!r} starts in {task.params['start']!r}, which is no room of the house")
        state = HouseState(room=task.params["start"])
        return state, Observation(text=self._show(state), goal=GOAL)

    def _show(self, state: HouseState) -> str:
        seen = describe(state, self.variant)
        return f"{seen}\n{admissible_line(state)}" if self.show_commands else seen

    def play(self, state: HouseState, action: str) -> tuple[HouseState, StepResult]:
        """Carry out one command; anything else is a slip."""
        command = " ".join(action.lower().split())
        # The list is the grammar: what is not in it does nothing here.
        if command not in commands(state):
            return state, StepResult(observation=f"{SLIP} {self._show(state)}")
        after = apply(state, command)
        text = self._show(after)
        if after.solved:
            return after, StepResult(observation=text, reward=1.0, terminated=True, success=True)
        # Ended at once: the goal can no longer be reached.
        if "stale food" in after.at(EATEN):
            return after, StepResult(observation="You ate the stale food.", terminated=True, success=False)
        return after, StepResult(observation=text)

    def key(self, state: HouseState) -> str:
        """Where the policy is, where each thing is, and what is open."""
        return "|".join((state.room, *state.places, *state.open))

    def texts(self) -> list[str]:
        """Everything that is said, for a tokenizer made to measure."""
        rooms = [f"You are in the {room}. You are in a room." for room in EXITS]
        pieces = [f"In the {name}: There is a closed {name}. There is an open {name}." for name in CLOSABLE]
        pieces += ["There is a table. On the table: nothing. On the floor: plate, plate.", "You ate the stale food."]
        exits = ["Exits: north, south, east, west. You carry: nothing.", f"{SLIP} You"]
        things = [f"take {thing} from table, insert {thing} into fridge, drop {thing}, eat {thing}" for thing in THINGS]
        listed = [admissible_line(HouseState(room=room, open=CLOSABLE)) for room in EXITS] if self.show_commands else []
        listed += [f", take {thing}, drop {thing}, eat {thing}" for thing in THINGS] if self.show_commands else []
        listed += [", put plate on table, insert plate into chest"] if self.show_commands else []
        return [self.instructions, GOAL, *rooms, *pieces, *exits, *things, *_said_alone(), *listed]

    def close(self) -> None:
        """Nothing is held."""


def _said_alone() -> list[str]:
    lists = [f": {thing}, {thing}." for thing in THINGS]
    moves = [f"go {direction}" for direction in ("north", "south", "east", "west")]
    doors = [f"{verb} {name}" for verb in ("open", "close") for name in CLOSABLE]
    return [*lists, *moves, *doors, "put plate on table", "insert plate into chest", "look"]


def build(
    *, variant: Variant = "fo", max_turns: int = 40, starts: Starts = "held_out", show_commands: bool = True
) -> NavigationWorld:
    """The navigation world.

    Args:
        variant: "fo" names the room, "po" does not.
        max_turns: commands before the episode is cut.
        starts: "held_out" keeps the rooms to start from apart by split; "all" makes each of the eight a test task.
        show_commands: end each observation with the possible commands, as the benchmark does.

    Raises:
        ConfigError: an option has no such value.
    """
    for key, value, allowed in (("variant", variant, get_args(Variant)), ("starts", starts, get_args(Starts))):
        if value not in allowed:
            raise ConfigError(f"text.navigation has no {key} {value!r}; expected one of {', '.join(allowed)}")
    if max_turns < 1:
        raise ConfigError(f"text.navigation needs max_turns of 1 or more, got {max_turns}")
    return NavigationWorld(variant=variant, max_turns=max_turns, starts=starts, show_commands=show_commands)
