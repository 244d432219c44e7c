"""The household world: commands, the six types of task, splits, teachers, speed of a fork."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import World, as_observation, episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import SPLITS
from rollwright.envs.text import household
from rollwright.envs.text.house.household_data import LAMP, ROOMS, TASK_TYPES, THINGS, Size, kind_of, layouts
from rollwright.envs.text.house.household_rules import Goal, House, admissible, execute, is_met
from rollwright.envs.text.house.household_teachers import next_command
from rollwright.envs.text.house.household_words import joined, parted, situation
from rollwright.models.tiny_model import tiny_tokenizer

KITCHEN = House(
    room="kitchen",
    furniture=("countertop 1", "fridge 1", "microwave 1", "sinkbasin 1", "shelf 1"),
    things=("apple 1", "apple 2", "mug 1"),
    places=("countertop 1", "fridge 1", "countertop 1"),
    goal=Goal(type="heat", thing="apple", target="shelf"),
)


def after(house: House, *commands: str) -> House:
    for command in commands:
        done = execute(house, command)
        assert done is not None, f"{command!r} is not possible"
        house = done[0]
    return house


def said(house: House, command: str) -> str:
    done = execute(house, command)
    return household.NOTHING if done is None else done[1]


def test_a_task_by_hand() -> None:
    house = after(KITCHEN, "go to countertop 1", "take apple 1 from countertop 1", "go to microwave 1")
    house = after(house, "heat apple 1 with microwave 1", "go to shelf 1")
    assert not is_met(house)
    assert is_met(after(house, "put apple 1 in/on shelf 1"))
    assert is_met(after(house, "PUT  apple 1 on shelf 1\n")) and is_met(after(house, "move apple 1 to shelf 1"))


def test_what_is_said() -> None:
    assert said(KITCHEN, "go to countertop 1") == "You are at the countertop 1. On the countertop 1: apple 1, mug 1."
    at_fridge = after(KITCHEN, "go to fridge 1")
    assert said(KITCHEN, "go to fridge 1") == "You are at the fridge 1. The fridge 1 is closed."
    assert said(at_fridge, "open fridge 1") == "You open the fridge 1. In the fridge 1: apple 2."
    assert said(KITCHEN, "inventory") == "You carry: nothing."
    held = after(at_fridge, "open fridge 1", "take apple 2 from fridge 1", "cool apple 2 with fridge 1")
    assert said(held, "examine apple 2") == "The apple 2 is cool." and said(held, "inventory") == "You carry: apple 2."


@pytest.mark.parametrize(
    "command",
    [
        "take apple 1 from countertop 1",  # not there
        "open fridge 1",
        "go to fridge 2",
        "heat apple 1 with microwave 1",
        "put apple 1 in/on shelf 1",
        "use desklamp 1",
        "examine apple 1",
        "go to fridge 1; open fridge 1",
        "",
    ],
)
def test_what_is_not_possible_from_the_middle_changes_nothing(command: str) -> None:
    assert execute(KITCHEN, command) is None


def test_one_thing_at_a_time_closed_doors_and_wrong_appliances() -> None:
    at_counter = after(KITCHEN, "go to countertop 1", "take apple 1 from countertop 1")
    assert execute(at_counter, "take mug 1 from countertop 1") is None
    at_fridge = after(at_counter, "go to fridge 1")
    assert execute(at_fridge, "put apple 1 in/on fridge 1") is None
    assert execute(at_fridge, "heat apple 1 with fridge 1") is None
    assert execute(at_fridge, "clean apple 1 with sinkbasin 1") is None
    book = replace(KITCHEN, things=("saltshaker 1",), places=("hand",), at="microwave 1")
    assert execute(book, "heat saltshaker 1 with microwave 1") is None


def test_heat_undoes_cool_and_clean_stays() -> None:
    held = after(KITCHEN, "go to countertop 1", "take apple 1 from countertop 1", "go to sinkbasin 1")
    held = after(held, "clean apple 1 with sinkbasin 1", "go to fridge 1", "cool apple 1 with fridge 1")
    held = after(held, "go to microwave 1", "heat apple 1 with microwave 1")
    assert held.conditions == ("clean apple 1", "hot apple 1")


def test_two_things_and_the_lamp() -> None:
    two = replace(KITCHEN, goal=Goal(type="pick_two", thing="apple", target="shelf"))
    one_there = two.moved("apple 1", "shelf 1")
    assert not is_met(one_there) and is_met(one_there.moved("apple 2", "shelf 1"))
    bedroom = House(
        room="bedroom",
        furniture=("bed 1", "desk 1"),
        things=("book 1", LAMP),
        places=("bed 1", "desk 1"),
        goal=Goal(type="examine_in_light", thing="book", target="desklamp"),
    )
    held = after(bedroom, "go to bed 1", "take book 1 from bed 1")
    assert execute(held, f"use {LAMP}") is None
    assert is_met(after(held, "go to desk 1", f"use {LAMP}"))
    assert execute(after(bedroom, "go to desk 1"), f"take {LAMP} from desk 1") is None


@pytest.mark.parametrize("size", ["full", "small"])
def test_admissible_commands_are_exactly_those_that_do_something(size: Size) -> None:
    """Along random walks: each admissible one works, and of all others that these names can form none does."""
    world, rng = household.build(size=size), random.Random(0)
    for i, task in enumerate(rng.sample(world.tasks("train"), 8)):
        house = household.furnish(task, episode_seed("train", i), size)
        for _ in range(12):
            allowed = set(admissible(house))
            assert {c for c in every_command(house) if execute(house, c) is not None} == allowed
            house = after(house, rng.choice(sorted(allowed)))


def every_command(house: House) -> set[str]:
    names = [*house.things, *house.furniture]
    found = {
        "look",
        "inventory",
        *(f"{verb} {n}" for verb in ("go to", "open", "close", "use", "examine") for n in names),
    }
    for thing in house.things:
        for place in house.furniture:
            found |= {f"take {thing} from {place}", f"put {thing} in/on {place}"}
            found |= {f"{verb} {thing} with {place}" for verb in ("clean", "heat", "cool")}
    return found


@pytest.mark.parametrize("knowledge", ["planner", "searcher"])
@pytest.mark.parametrize("size", ["full", "small"])
def test_teachers_solve_all_six_types_everywhere(size: Size, knowledge: Any) -> None:
    world = household.build(size=size, teacher=knowledge)
    lengths: dict[str, list[int]] = {kind: [] for kind in TASK_TYPES}
    for split in SPLITS:
        for i, task in enumerate(world.tasks(split)[:130]):
            env, teacher = world.make(), world.teacher(task)
            observation = env.reset(task, episode_seed(split, "teach", i))
            result = env.step(teacher.act(env, observation))
            while not (result.terminated or result.truncated):
                result = env.step(teacher.act(env, as_observation(result.observation)))
            assert result.success is True and result.rewards == {"env": 1.0}
            lengths[task.params["type"]].append(env.turns_used)
    assert all(len(found) >= 20 for found in lengths.values())
    assert max(map(max, lengths.values())) <= (11 if knowledge == "planner" else 50)


def test_a_dawdler_looks_as_often_as_told_and_works_in_between() -> None:
    world = household.build(size="small", teacher_idle_frac=0.5)
    looked = played = solved = 0
    for i, task in enumerate(world.tasks("train")[:60]):
        env, teacher = world.make(), world.teacher(task)
        observation = env.reset(task, episode_seed("train", "dawdle", i))
        result = None
        while result is None or not (result.terminated or result.truncated):
            command = teacher.act(env, observation)
            assert command == teacher.act(env, observation), "its draws are fixed"
            looked, played = looked + (command == "look"), played + 1
            result = env.step(command)
        solved += result.success is True
    assert 0.4 < looked / played < 0.6 and solved == 60
    with pytest.raises(ConfigError, match="teacher_idle_frac"):
        household.build(teacher_idle_frac=1.5)


def test_the_searcher_uses_only_what_it_was_shown() -> None:
    """Moving the things that it has not seen changes nothing of what it does next."""
    world, rng = household.build(teacher="searcher"), random.Random(1)
    for i, task in enumerate(rng.sample(world.tasks("train"), 40)):
        house = household.furnish(task, episode_seed("train", i), "full")
        for _ in range(4):
            hidden = [name for name in house.furniture if name not in house.seen]
            shuffled = tuple(rng.choice(hidden) if p in hidden and hidden else p for p in house.places)
            other = replace(house, places=shuffled)
            command = next_command(house, knowledge="searcher")
            assert next_command(other, knowledge="searcher") == command
            house = after(house, command)


def test_teachers_repair_what_random_commands_did() -> None:
    world, rng = household.build(), random.Random(2)
    for i, task in enumerate(rng.sample(world.tasks("train"), 60)):
        house = household.furnish(task, episode_seed("train", i), "full")
        for _ in range(20):
            house = after(house, rng.choice(admissible(house)))
        for _ in range(20):
            if is_met(house):
                break
            house = after(house, next_command(house, knowledge="planner"))
        assert is_met(house), task.id


def test_splits_have_other_goals_and_test_has_other_rooms() -> None:
    for size in ("full", "small"):
        world = household.build(size=size)
        tasks = {split: world.tasks(split) for split in SPLITS}
        assert {split: len(listed) for split, listed in tasks.items()} == household.SPLIT_SIZES
        goals = {
            s: {(t.params["room"], t.params["type"], t.params["thing"], t.params["target"]) for t in tasks[s]}
            for s in SPLITS
        }
        assert not goals["train"] & (goals["validation"] | goals["test"]) and not goals["validation"] & goals["test"]
        rooms = {s: {layouts(t.params["room"], size)[t.params["layout"]] for t in tasks[s]} for s in SPLITS}
        assert not rooms["test"] & (rooms["train"] | rooms["validation"])
        seen = {(t.params["room"], t.params["layout"]) for t in tasks["train"]}
        assert {(t.params["room"], t.params["layout"]) for t in tasks["validation"]} <= seen
        assert set(Counter(t.params["type"] for t in tasks["test"])) == set(TASK_TYPES)


def test_the_goal_can_be_met_and_is_not_met_at_the_start() -> None:
    world = household.build()
    for i, task in enumerate(world.tasks("train")[:300]):
        env = world.make()
        assert task.id not in (text := env.reset(task, episode_seed("train", i))).text + text.goal
        assert not is_met(env.state)
        there = Counter(kind_of(thing) for thing in env.state.things)
        assert there[task.params["thing"]] >= env.state.goal.count


def test_the_seed_moves_the_things() -> None:
    world = household.build()
    task = world.tasks("test")[0]
    assert len({household.furnish(task, episode_seed("test", i), "full").places for i in range(20)}) == 20
    with pytest.raises(ValueError, match="split"):
        world.make().reset(task, episode_seed("train", 0))


def test_every_kind_of_thing_has_a_usual_place_in_its_room() -> None:
    for room in ROOMS:
        there = {kind_of(name) for layout in layouts(room, "full") for name in layout}
        for name, kind in THINGS.items():
            assert room not in kind.usual or set(kind.usual[room]) & there, f"{name} in {room}"


def test_in_compact_wording_every_name_is_one_word_and_one_line_says_all() -> None:
    house = after(KITCHEN, "go to countertop 1", "take apple 1 from countertop 1", "go to microwave 1")
    assert situation(house) == "at microwave closed hand apple new fridge microwave sinkbasin shelf seen countertop"
    house = after(house, "heat apple 1 with microwave 1", "open microwave 1")
    assert situation(house).startswith("at microwave hand hot apple new fridge")
    assert situation(KITCHEN).startswith("middle hand nothing new countertop")
    assert situation(after(KITCHEN, "go to fridge 1", "open fridge 1")).startswith("at fridge apple2 hand")
    assert joined("put apple 1 in/on shelf 12") == "put apple on shelf12"
    for apart in ("take apple 1 from shelf 12", "use desklamp 1", "go to sinkbasin 2", "look"):
        assert parted(joined(apart)) == parted(apart) == apart


@pytest.mark.parametrize("size", ["full", "small"])
def test_the_rooms_in_compact_wording_are_the_rooms_in_plain_wording(size: Size) -> None:
    """The same commands, joined or apart, lead to the same states; in plain the joined ones mean nothing."""
    compact, plain = (household.build(size=size, teacher="searcher", wording=word) for word in ("compact", "plain"))
    for i, task in enumerate(compact.tasks("train")[:60]):
        seed = episode_seed("train", "words", i)
        env, other, strict = compact.make(), compact.make(), plain.make()
        observation, *_ = (each.reset(task, seed) for each in (env, other, strict))
        result = None
        while result is None or not result.terminated:
            command = compact.teacher(task).act(env, observation)
            assert plain.teacher(task).act(strict, observation) == next_command(env.state, knowledge="searcher")
            strict.step(plain.teacher(task).act(strict, observation))
            other.step(parted(command).upper())
            result = env.step(command)
            observation = as_observation(result.observation)
            assert " 1" not in command + observation.text
            assert env.state == other.state == strict.state
    house = after(KITCHEN, "go to countertop 1")
    assert plain.play(house, "take apple from countertop")[0] == house


def test_a_tiny_model_has_a_word_for_every_name_of_the_compact_house() -> None:
    world = household.build(size="small", wording="compact", teacher="searcher", show_commands=True)
    tokenizer = tiny_tokenizer(world.texts())
    for i, task in enumerate(world.tasks("train")[:100]):
        env = world.make()
        observation = env.reset(task, episode_seed("train", "vocabulary", i))
        result = None
        while result is None or not result.terminated:
            command = world.teacher(task).act(env, observation)
            assert len(tokenizer.tokenize(command)) == len(command.split())
            result = env.step(command)
            observation = as_observation(result.observation)
            said = observation.text.partition("\n")[0]
            assert len(tokenizer.tokenize(said)) == len(said.split()), tokenizer.tokenize(said)


@pytest.mark.parametrize(
    "world",
    [
        household.build(),
        household.build(size="small", wording="state", teacher="searcher"),
        household.build(rooms=["bedroom"], types=["examine_in_light"], show_commands=True),
        household.build(size="small", wording="compact", teacher="searcher", show_commands=True),
    ],
    ids=["full", "small", "lamp", "compact"],
)
def test_the_contract(world: World) -> None:
    check_env(world)


@pytest.mark.parametrize(
    "wrong",
    [
        {"types": ["slice"]},
        {"types": []},
        {"rooms": ["garage"]},
        {"rooms": ["kitchen", "kitchen"]},
        {"size": "huge"},
        {"wording": "long"},
        {"teacher": "oracle"},
        {"max_turns": 0},
        {"train_tasks": 0},
        {"rooms": ["kitchen"], "types": ["examine_in_light"]},  # a kitchen has no lamp
    ],
)
def test_options_without_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        household.build(**wrong)
