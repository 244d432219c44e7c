"""Who solves the household tasks: a planner that knows where everything is, and a searcher that has to look."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

from rollwright.contracts import Environment, Observation
from rollwright.envs.text.game import GameEnvironment
from rollwright.envs.text.house.household_data import APPLIANCE, LAMP, THINGS, kind_of
from rollwright.envs.text.house.household_rules import House, counts

Knowledge = Literal["planner", "searcher"]


def next_command(house: House, *, knowledge: Knowledge) -> str:
    """The next command towards the goal, from any state.

    The "planner" knows where every thing lies; the "searcher" only what it has been shown, and looks into the
    furniture where the thing usually is first, then into all other in the order of the room.
    """
    goal, held = house.goal, house.held
    # The state may come from a policy, which can carry anything.
    if held and kind_of(held) != goal.thing:
        return _put_down(house)
    if held and goal.type == "examine_in_light":
        return _under_the_lamp(house, knowledge)
    # Treated before it is brought: the goal counts only what lies there treated.
    if held and goal.condition and f"{goal.condition} {held}" not in house.conditions:
        appliance = _first(house.furniture, APPLIANCE[goal.type])
        return _towards(house, appliance) or f"{goal.type} {held} with {appliance}"
    if held:
        target = _first(house.furniture, goal.target)
        # Each helper is "" where nothing is left to do, so the first step that is needed is the answer.
        return _towards(house, target) or _opened(house, target) or f"put {held} in/on {target}"
    return _fetch(house, knowledge)


def _put_down(house: House) -> str:
    """Anywhere: here, if one can."""
    if house.at and not house.is_closed(house.at):
        return f"put {house.held} in/on {house.at}"
    if house.at:
        return f"open {house.at}"
    return f"go to {house.furniture[0]}"


def _under_the_lamp(house: House, knowledge: Knowledge) -> str:
    stand = house.place_of(LAMP)
    if _known(house, stand, knowledge):
        return _towards(house, stand) or f"use {LAMP}"
    return _look_further(house, ("desk", "sidetable", "dresser"))


def _fetch(house: House, knowledge: Knowledge) -> str:
    # What lies where it belongs is left there: a task of two things must not carry one away again.
    wanted = [t for t in house.things if kind_of(t) == house.goal.thing and not counts(house, t)]
    known = [t for t in wanted if _known(house, house.place_of(t), knowledge)]
    if not known:
        return _look_further(house, THINGS[house.goal.thing].usual.get(house.room, ()))
    thing = min(known, key=lambda t: house.place_of(t) != house.at)  # what lies here before what lies elsewhere
    source = house.place_of(thing)
    return _towards(house, source) or _opened(house, source) or f"take {thing} from {source}"


def _known(house: House, place: str, knowledge: Knowledge) -> bool:
    return knowledge == "planner" or place in house.seen


def _look_further(house: House, usual: Sequence[str]) -> str:
    unseen = [name for name in house.furniture if name not in house.seen]
    # Nothing is left to look into; a harmless command that keeps the episode going.
    if not unseen:
        return "look"
    likely = [name for kind in usual for name in unseen if kind_of(name) == kind]
    # Here first: to open what one stands before costs one command and no way.
    target = house.at if house.at in unseen else (likely or unseen)[0]
    return _towards(house, target) or _opened(house, target) or "look"


def _towards(house: House, place: str) -> str:
    return "" if house.at == place else f"go to {place}"


def _opened(house: House, place: str) -> str:
    return f"open {place}" if house.is_closed(place) else ""


def _first(furniture: Sequence[str], kind: str) -> str:
    # There always is one: `make_tasks` keeps only layouts in which the task can be done.
    return next(name for name in furniture if kind_of(name) == kind)


class Householder:
    """Plays `next_command`; a dawdler only stands and looks in `idle_frac` of the turns, fixed by state and turn.

    `say` turns a command of the grammar into the wording of the world.
    """

    def __init__(self, knowledge: Knowledge, *, idle_frac: float = 0.0, say: Callable[[str], str] = str) -> None:
        self._knowledge: Knowledge = knowledge
        self._idle_frac = idle_frac
        self._say = say

    def act(self, env: Environment, observation: Observation) -> str:
        """The next command towards the goal. Raises TypeError in another world's environment."""
        if not isinstance(env, GameEnvironment) or not isinstance(env.state, House):
            raise TypeError(f"this teacher keeps house, it does not play {type(env).__name__}")
        # The places of all things stand for the seed of the episode, which a state does not hold.
        if random.Random(f"{env.turns_used}/{env.state.places}/{env.state.goal}").random() < self._idle_frac:
            return "look"
        return self._say(next_command(env.state, knowledge=self._knowledge))
