"""A household in plain Python, with ALFWorld's commands and its six types of task.

One room with furniture and things. The policy goes to furniture, opens it, takes one thing at a time, cleans, heats
or cools it, and puts it where the task says; or looks at it under the lamp. Pays 1.0, once, when the task is done; a
command that is not understood or not possible here is answered by "Nothing happens." and costs a turn of the 50.

Splits, as in ALFWorld: train; validation in rooms that training has (its "seen"); test in rooms that it never has
("unseen"). The rooms of test differ from all others in what stands there; the tasks (type, thing, target) of the three
splits are three different sets. Where the things lie is drawn from the seed of the episode.

Source: arXiv:2010.03768 (task types, commands, reward, limit, sizes of the splits). Rooms, things and wording are ours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Literal, get_args

from rollwright.contracts import ConfigError, Environment, Execution, Observation, SnapshotKind, Split, StepResult, Task
from rollwright.envs.text.game import GameEnvironment, check_seed, draw, state_in
from rollwright.envs.text.house.household_data import (
    LAMP,
    ROOMS,
    TASK_TYPES,
    THINGS,
    Room,
    Size,
    TaskType,
    goals,
    kind_of,
    lamp_stands,
    layouts,
    things_of,
)
from rollwright.envs.text.house.household_rules import (
    EVENTS,
    HAND,
    NOTHING,
    Goal,
    House,
    admissible,
    contents,
    event_of,
    execute,
    is_met,
    overview,
)
from rollwright.envs.text.house.household_teachers import Householder, Knowledge
from rollwright.envs.text.house.household_words import joined, parted, situation

Wording = Literal["plain", "state", "compact"]
SPLIT_SIZES: dict[Split, int] = {"train": 3553, "validation": 140, "test": 134}
# Things besides the ones of the goal, from least to most.
_DISTRACTORS: dict[Size, tuple[int, int]] = {"full": (8, 14), "small": (2, 4)}
# Layouts kept for the test split, after the seen ones in the list.
_UNSEEN: dict[Size, int] = {"full": 10, "small": 3}
_SEEN: dict[Size, int] = {"full": 30, "small": 12}


def is_of_split(index: int, split: Split) -> bool:
    """Which of the listed goals belong to a split: of ten, one to validation, one to test, eight to train."""
    held_out: dict[int, Split] = {3: "validation", 8: "test"}
    return held_out.get(index % 10, "train") == split


@cache
def goals_of(split: Split, room: Room, task_type: TaskType, size: Size) -> tuple[tuple[str, str], ...]:
    """The (thing, target) pairs of one split."""
    shuffled = list(goals(room, task_type, size))
    # Shuffled, since the list is in the order of things and would be dealt out by it.
    random.Random(f"goals/{room}/{task_type}").shuffle(shuffled)
    # With few pairs each split still gets some: the list is dealt out from another place for each type of task.
    offset = TASK_TYPES.index(task_type)
    return tuple(pair for i, pair in enumerate(shuffled) if is_of_split(i + offset, split))


def layout_numbers(split: Split, size: Size) -> range:
    """Which entries of `layouts` a split may use: train and validation the seen ones, test the others."""
    seen, unseen = _SEEN[size], _UNSEEN[size]
    # Ranges that share no number: no room of the test split is one of training.
    return range(seen, seen + unseen) if split == "test" else range(seen)


@cache
def make_tasks(
    split: Split, size: Size, types: tuple[TaskType, ...], rooms: tuple[Room, ...], limit: int
) -> tuple[Task, ...]:
    """The tasks of a split: the types in turn, each with a room, goal and layout that fit; all are different."""
    rng = random.Random(f"tasks/{split}/{size}/{types}/{rooms}")
    found: dict[str, Task] = {}
    # Draws may repeat a task, so there are more attempts than tasks; the bound ends the search.
    for number in range(20 * limit):
        # In turn and not drawn, so that the types are as even as the rooms allow.
        task_type = types[number % len(types)]
        choices = [room for room in rooms if goals_of(split, room, task_type, size)]
        if not choices:
            continue
        room = rng.choice(choices)
        thing, target = rng.choice(goals_of(split, room, task_type, size))
        layout = rng.choice(layout_numbers(split, size))
        if _can_be_done(layouts(room, size)[layout], task_type, target):
            name = f"{task_type}-{thing}-{target}-{room.replace(' ', '_')}-{layout}"
            params = {"type": task_type, "thing": thing, "target": target, "room": room, "layout": layout}
            # The name says everything about the task, so an equal one is the same task.
            found.setdefault(name, Task(id=name, split=split, params=params))
        if len(found) == limit:
            break
    return tuple(found.values())


def _can_be_done(furniture: tuple[str, ...], task_type: TaskType, target: str) -> bool:
    if task_type == "examine_in_light":
        return bool(lamp_stands(furniture))
    return any(kind_of(name) == target for name in furniture)


def furnish(task: Task, seed: int, size: Size) -> House:
    """The room of a task with its things laid out by the seed; the goal is not met, and can be."""
    params = task.params
    goal = Goal(type=params["type"], thing=params["thing"], target=params["target"])
    room: Room = params["room"]
    furniture = layouts(room, size)[params["layout"]]
    rng = draw(seed, task.id)
    kinds = [goal.thing] * goal.count
    # None of the goal's kind, so that the count of what has to be found is known.
    others = [kind for kind in things_of(room) if kind != goal.thing]
    kinds += rng.choices(others, k=rng.randint(*_DISTRACTORS[size]))
    # Numbered by kind in the order drawn.
    things = [f"{kind} {kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]
    # Distractors too stay away from the target's kind of furniture.
    places = [_place(rng, kind, room, furniture, not_at=goal.target) for kind in kinds]
    stands = lamp_stands(furniture)
    if goal.type == "examine_in_light" or (stands and rng.random() < 0.5):
        things, places = [*things, LAMP], [*places, rng.choice(stands)]
    return House(room=room, furniture=furniture, things=tuple(things), places=tuple(places), goal=goal)


def _place(rng: random.Random, kind: str, room: Room, furniture: tuple[str, ...], *, not_at: str) -> str:
    """Where such a thing usually lies, sometimes elsewhere; never at the kind of furniture the goal names."""
    free = [name for name in furniture if kind_of(name) != not_at]
    usual = [name for name in free if kind_of(name) in THINGS[kind].usual[room]]
    # Mostly usual, so that looking in likely places pays, and not always, so that it can fail.
    return rng.choice(usual if usual and rng.random() < 0.8 else free)


class HouseholdWorld:
    """The game and its world. Build it with `build`."""

    name = "text.household"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    state_type = House
    # Shows the room, or what one stands at, once more.
    no_op = "look"
    events = EVENTS

    def __init__(
        self,
        *,
        types: tuple[TaskType, ...],
        rooms: tuple[Room, ...],
        size: Size,
        wording: Wording,
        show_commands: bool,
        teacher: Knowledge,
        teacher_idle_frac: float,
        max_turns: int,
        train_tasks: int,
    ) -> None:
        self.types, self.rooms, self.size = types, rooms, size
        # The held-out splits keep their sizes, so that scores stay comparable.
        self._limits = SPLIT_SIZES | {"train": train_tasks}
        self.wording = wording
        self.show_commands = show_commands
        self.max_turns = max_turns
        self._knowledge, self._idle_frac = teacher, teacher_idle_frac
        # What changes rules or observations; the teacher's options do not.
        self.identity = f"{self.name}/{size}/{wording}/{show_commands}/{max_turns}"
        rules = (
            "You are in a room and have a task. Answer with one command: go to X, open X, close X, take X from Y, "
            "put X in/on Y, clean X with Y, heat X with Y, cool X with Y, use X, examine X, look, inventory. "
            "You can carry one thing."
        )
        # A tiny model is given no rules: they would only fill its context.
        self.instructions = rules if wording == "plain" else ""

    def tasks(self, split: Split) -> list[Task]:
        """The tasks of a split."""
        return list(make_tasks(split, self.size, self.types, self.rooms, self._limits[split]))

    def make(self) -> GameEnvironment[House]:
        """A fresh environment."""
        return GameEnvironment(self)

    def teacher(self, task: Task) -> Householder:
        """Keeps house by its knowledge; at times it idles."""
        return Householder(self._knowledge, idle_frac=self._idle_frac, say=joined if self._is_compact else str)

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A command that is possible here."""
        command = draws.choice(admissible(state_in(env, House)))
        return joined(command) if self._is_compact else command

    def event_of(self, env: Environment, action: str) -> str:
        """What the command would be here, as one of `events`."""
        return event_of(state_in(env, House), parted(action) if self._is_compact else action)

    def begin(self, task: Task, seed: int) -> tuple[House, Observation]:
        """Furnish a house and show it."""
        check_seed(task, seed)
        house = furnish(task, seed, self.size)
        return house, Observation(text=self._say(house, overview(house)), goal=house.goal.text)

    def play(self, state: House, action: str) -> tuple[House, StepResult]:
        """Carry out one command."""
        # None means "Nothing happens.": the state stays as it is and the turn is used up.
        done = execute(state, parted(action) if self._is_compact else action)
        if done is None:
            return state, StepResult(observation=self._say(state, NOTHING))
        house, said = done
        met = is_met(house)
        text = self._say(house, said)
        return house, StepResult(observation=text, reward=float(met), terminated=met, success=True if met else None)

    def key(self, state: House) -> str:
        """All but what has been seen: that is the policy's memory, not the room's, unless the room says it."""
        # Compact observations list what was looked into, so there it is a part of the state.
        return repr(state if self._is_compact else replace(state, seen=()))

    @property
    def _is_compact(self) -> bool:
        return self.wording == "compact"

    def _say(self, house: House, said: str) -> str:
        lines = [said]
        if self.wording == "state":
            here = f"At {house.at}. {contents(house, house.at)}" if house.at else "In the middle."
            hand = f"{HAND.capitalize()}: {house.held or 'nothing'}{self._condition(house)}."
            lines = [NOTHING] if said == NOTHING else []
            lines.append(f"{here} {hand}{' Lamp on.' if house.lit else ''}")
            lines.append(f"Room: {', '.join(house.furniture)}.")
        if self._is_compact:
            lines = [NOTHING] if said == NOTHING else []
            lines.append(situation(house))
        if self.show_commands:
            commands = "Commands: " + ", ".join(admissible(house)) + "."
            lines.append(joined(commands) if self._is_compact else commands)
        return "\n".join(lines)

    def _condition(self, house: House) -> str:
        held = house.held
        words = [c.removesuffix(f" {held}") for c in house.conditions if held and c.endswith(f" {held}")]
        return f" ({', '.join(words)})" if words else ""

    def texts(self) -> list[str]:
        """Every word of play: names and numbers of furniture and things, verbs, sentences."""
        rooms = [overview(furnish_example(room, self.size)) for room in self.rooms]
        furniture = sorted({kind_of(name) for room in self.rooms for lay in layouts(room, self.size) for name in lay})
        names = [*furniture, *sorted({thing for room in self.rooms for thing in things_of(room)}), "desklamp"]
        # More than any room has of one kind.
        numbers = " ".join(str(number) for number in range(1, 20))
        phrases = [f"{name} {numbers}\n{name}: {name}, ({name}) .{name}" for name in names]
        if self._is_compact:
            # A higher number is rare; it is spelled in bytes, and the vocabulary stays below a thousand words.
            phrases += [" " + " ".join(f"{name}{number}" for number in range(2, 7)) for name in names]
            phrases += [situation(furnish_example(room, self.size)) for room in self.rooms]
            phrases.append("at\nmiddle\nTask: Put at hand nothing closed clean hot cool lamp new seen on")
        return [self.instructions, *rooms, *phrases, *_SENTENCES, *_goal_texts()]

    def close(self) -> None:
        """Nothing is held."""


_SENTENCES = (
    NOTHING,
    "You are in the middle of a kitchen bathroom bedroom living room. You see: shelf 1, shelf 2.",
    "You are at the shelf 1. On the shelf 1: nothing. In the fridge 1: mug 1, mug 2. The fridge 1 is closed.",
    "You open the fridge 1. You close the fridge 1. You take the mug 1 from the shelf 1.",
    "You put the mug 1 in the fridge 1. You put the mug 1 on the shelf 1. You turn on the desklamp 1.",
    "You clean the mug 1 with the sinkbasin 1. You heat the mug. You cool the mug.",
    "The mug 1 is as usual. The mug 1 is clean and hot. cool. You carry: nothing.",
    "At shelf 1. Hand: mug 1 (clean, hot, cool). Lamp on. Hand: nothing.\nRoom: shelf 1.\nNothing\nAt\nIn the middle.",
    "\nCommands: go to shelf 1, open shelf 1, close, take mug 1 from, put mug 1 in/on, use, examine, look, inventory.",
    "go to\nopen\nclose\ntake\nput\nclean\nheat\ncool\nuse\nexamine\nlook\ninventory\nwith from in/on",
)


def _goal_texts() -> list[str]:
    return [Goal(type=kind, thing="mug", target=where).text for kind in TASK_TYPES for where in ("shelf", "fridge")]


def furnish_example(room: Room, size: Size) -> House:
    """A room of that kind with nothing in it, for its words."""
    goal = Goal(type="pick_and_place", thing="mug", target="shelf")
    return House(room=room, furniture=layouts(room, size)[0], things=(), places=(), goal=goal)


def build(
    *,
    types: Sequence[TaskType] = TASK_TYPES,
    rooms: Sequence[Room] = ROOMS,
    size: Size = "full",
    wording: Wording = "plain",
    show_commands: bool = False,
    teacher: Knowledge = "planner",
    teacher_idle_frac: float = 0.0,
    max_turns: int = 50,
    train_tasks: int = SPLIT_SIZES["train"],
) -> HouseholdWorld:
    """The household world.

    Args:
        types: which of the six types of task.
        rooms: which of kitchen, bathroom, bedroom, living room.
        size: "full" (10 to 25 pieces of furniture, 9 to 16 things) or "small" (3 to 9 and 3 to 6) for tiny models.
        wording: "plain" says what the command brought; "state" also where one stands, what one sees and holds, so that
            the latest observation is enough; "compact" says the latter, and what has been looked into, in one line in
            which every name is one word (`shelf`, `shelf2`), for tiny models.
        show_commands: list the admissible commands in each observation. The task becomes one of choosing.
        teacher: "planner" knows where everything is; "searcher" has to look.
        teacher_idle_frac: share of the teacher's turns in which it only looks: a habit that costs turns, which a policy
            that imitates it has to lose.
        max_turns: commands before the episode is cut; 50 in published results.
        train_tasks: at most so many training tasks, the first of the list; the held-out splits keep their size.

    Raises:
        ConfigError: an option has no such value, or no task is left.
    """
    for key, values, allowed in (
        ("types", types, TASK_TYPES),
        ("rooms", rooms, ROOMS),
        ("size", [size], get_args(Size)),
        ("wording", [wording], get_args(Wording)),
        ("teacher", [teacher], get_args(Knowledge)),
    ):
        strange = [value for value in values if value not in allowed]
        if strange or not values or len(set(values)) != len(values):
            raise ConfigError(f"text.household has no {key} {strange or values}; expected of {', '.join(allowed)}")
    if max_turns < 1 or train_tasks < 1:
        raise ConfigError(f"text.household needs 1 turn and 1 task or more, got {max_turns} and {train_tasks}")
    if not 0.0 <= teacher_idle_frac <= 1.0:
        raise ConfigError(f"text.household needs teacher_idle_frac within [0, 1], got {teacher_idle_frac}")
    world = HouseholdWorld(
        types=tuple(types),
        rooms=tuple(rooms),
        size=size,
        wording=wording,
        show_commands=show_commands,
        teacher=teacher,
        teacher_idle_frac=teacher_idle_frac,
        max_turns=max_turns,
        train_tasks=train_tasks,
    )
    # Few rooms or types may leave a split without a task, which would fail only at the first evaluation.
    empty = [split for split in SPLIT_SIZES if not world.tasks(split)]
    if empty:
        raise ConfigError(f"text.household has no task for {', '.join(empty)} of {list(types)} in {list(rooms)}")
    return world
