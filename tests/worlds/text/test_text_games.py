"""Wordle and text navigation by their published facts; what all games built on `envs/text/game.py` have in common."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import Environment, StepResult, World, as_observation, episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.forking import fork
from rollwright.contracts.record import Task
from rollwright.envs.text import navigation, wordle


def total(results: Sequence[StepResult]) -> float:
    return sum(sum(result.rewards.values()) for result in results)


def solve(world: Any, task: Task, key: int = 0) -> list[StepResult]:
    env, teacher = world.make(), world.teacher(task)
    observation, results = as_observation(env.reset(task, episode_seed(task.split, "solve", key))), []
    while not results or not (results[-1].terminated or results[-1].truncated):
        results.append(env.step(teacher.act(env, observation)))
        observation = as_observation(results[-1].observation)
    return results


@pytest.mark.parametrize(
    ("guess", "hidden", "expected"),
    [
        ("crane", "crane", "ggggg"),
        ("sleep", "plant", "bgbby"),  # one p only, and it stands elsewhere; no e at all
        ("apple", "paper", "yygby"),  # the second p in place, the first elsewhere; a and e elsewhere
        ("level", "enter", "bybgb"),  # the second e in place, the first elsewhere
        ("geese", "enter", "byybb"),  # two of the three e are there, none in place: the first two are marked
    ],
)
def test_marks_by_hand(guess: str, hidden: str, expected: str) -> None:
    assert wordle.marks(guess, hidden) == expected


def test_wordle_rewards_and_limit_of_the_benchmark() -> None:
    world = wordle.build()
    assert len(wordle.all_words()) == 400 and world.max_turns == 6
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    results = [env.step(word) for word in ["zzzzz", "", "crane\n", "CRANE", "zzzzz", "zzzzz"]]
    assert total(results) == wordle.MIN_RETURN == -6.0
    assert results[0].observation == "That is no word of the list."
    assert [r.truncated for r in results] == [False] * 5 + [True] and results[-1].success is False
    with pytest.raises(RuntimeError, match="reset"):
        env.step("crane")


def test_the_solver_finds_every_word_and_is_as_good_as_the_benchmarks_best() -> None:
    words, returns = wordle.all_words(), []
    for hidden in words:
        guesses: list[tuple[str, str]] = []
        while not guesses or guesses[-1][1] != wordle.SOLVED:
            guess = wordle.solver_guess(words, guesses)
            guesses.append((guess, wordle.marks(guess, hidden)))
        returns.append(1 - len(guesses))
    assert min(returns) >= -5
    assert sum(returns) / 400 == pytest.approx(-1.8725)  # the benchmark's best on its own list: -1.94


def test_redrawing_the_word_agrees_with_all_marks_and_is_the_same_game() -> None:
    world, returns = wordle.build(), []
    task = world.tasks("train")[0]
    for key in range(200):
        results = solve(world, task, key)
        assert results[-1].success is True
        returns.append(total(results))
    assert sum(returns) / 200 == pytest.approx(-1.87, abs=0.25)  # as with fixed words; spread 0.7, so 0.25 is 5 errors


def test_wordle_seeds_draw_other_words() -> None:
    world = wordle.build()
    task, said = world.tasks("train")[0], set()
    for key in range(50):
        env = world.make()
        env.reset(task, episode_seed("train", key))
        said.add(env.step("crane").observation)
    assert len(said) > 15


def test_navigation_solutions_have_the_lengths_of_the_map() -> None:
    """From the living room: take, west, west, open, insert, close; each room further away adds its distance."""
    distance = {room: len(navigation.solution(navigation.HouseState(room=room))) for room in navigation.EXITS}
    by_hand = {"living room": 6, "bedroom": 7, "dining room": 7, "office": 7, "bathroom": 8, "kitchen": 8}
    assert distance == by_hand | {"garden": 9, "backyard": 9}


def test_the_map_is_a_map() -> None:
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    for room, exits in navigation.EXITS.items():
        assert all(navigation.EXITS[there][opposite[way]] == room for way, there in exits.items())


@pytest.mark.parametrize("variant", ["fo", "po"])
def test_navigation_pays_one_at_the_goal_and_nothing_else(variant: navigation.Variant) -> None:
    world = navigation.build(variant=variant, starts="all")
    assert len(world.tasks("test")) == 8 and not world.tasks("train")
    for task in world.tasks("test"):
        results = solve(world, task)
        assert total(results) == 1.0 and results[-1].rewards == {"env": 1.0} and results[-1].success is True


def test_eating_the_food_fails_and_partial_observation_hides_the_room() -> None:
    world = navigation.build(variant="po", starts="all")
    task = next(t for t in world.tasks("test") if t.params["start"] == "living room")
    env = world.make()
    assert "living" not in env.reset(task, 0).text
    assert env.step("take stale food from table").reward == 0.0
    eaten = env.step("eat stale food")
    assert (eaten.terminated, eaten.success, eaten.reward) == (True, False, 0.0)


def test_the_possible_commands_are_shown_each_turn_as_the_benchmark_prints_them() -> None:
    """LMRL-Gym appends them to every observation, those that examine, look or list the inventory left out."""
    world, bare = navigation.build(starts="all"), navigation.build(starts="all", show_commands=False)
    task = next(t for t in world.tasks("test") if t.params["start"] == "kitchen")
    env, other = world.make(), bare.make()
    shown, plain = env.reset(task, 0).text, other.reset(task, 0).text
    for command in ("open fridge", "fly", "take fruit from fridge", "look", "drop fruit", "go east"):
        head, _, line = shown.rpartition("\nAdmissible commands: ")
        assert head == plain and line.split(", ") == [c for c in navigation.commands(env.state) if c != "look"]
        result, without = env.step(command), other.step(command)
        assert (result.rewards, env.fingerprint()) == (without.rewards, other.fingerprint())
        shown, plain = str(result.observation), str(without.observation)
    assert shown.endswith("Admissible commands: go east, go west, take coffee cup from table, take plate from table")


def test_the_planner_repairs_what_others_did() -> None:
    """From any state that random commands lead to, the rest of the way is found."""
    rng = random.Random(0)
    for _ in range(30):
        state = navigation.HouseState(room=rng.choice(list(navigation.EXITS)))
        for _ in range(25):
            allowed = [c for c in navigation.commands(state) if c != "eat stale food"]
            after = navigation.apply(state, rng.choice(allowed))
            state = state if after.solved else after
        for command in navigation.solution(state):
            assert command in navigation.commands(state)
            state = navigation.apply(state, command)
        assert state.solved


def test_a_command_out_of_place_is_a_slip_that_changes_nothing() -> None:
    world = navigation.build(starts="all")
    env = world.make()
    env.reset(world.tasks("test")[0], 0)
    before = env.fingerprint()
    for slip in ("fly", "go up", "open fridge", "take stale food from table", "insert stale food into fridge"):
        result = env.step(slip)
        assert str(result.observation).startswith(navigation.SLIP) and env.fingerprint() == before


def test_a_snapshot_of_other_rules_is_refused() -> None:
    world = wordle.build()
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    with pytest.raises(ValueError, match=r"text\.wordle"):
        wordle.build(max_turns=5).make().restore(env.snapshot())
    with pytest.raises(RuntimeError, match="reset"):
        world.make().step("crane")


async def test_forks_go_their_own_ways() -> None:
    world = wordle.build()
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    env.step("crane")
    state = env.fingerprint()
    copies = await fork(world, env, 8)
    assert [copy.fingerprint() for copy in copies] == [state] * 8
    after = [copy.step(word) for copy, word in zip(copies, ["moist"] * 4 + ["build"] * 4, strict=True)]
    assert len({r.observation for r in after[:4]}) == 1 and len({r.observation for r in after}) == 2
    assert env.fingerprint() == state and env.step("moist") == after[0]
    with pytest.raises(ValueError, match="1 copy"):
        await fork(world, env, 0)


class Unforkable(wordle.WordleWorld):
    snapshots = "none"


class Breaks(wordle.WordleWorld):
    """The third environment that it makes cannot restore; what was made before must be closed."""

    closed = 0
    made = 0

    def make(self) -> Any:
        env = super().make()
        self.made += 1
        number, world = self.made, self

        class Watched(type(env)):  # type: ignore[misc]
            def restore(self, state: bytes) -> None:
                if number == 4:
                    raise OSError("full")
                super().restore(state)

            def close(self) -> None:
                world.closed += 1

        return Watched(self)


async def test_a_failed_fork_leaves_nothing_open_and_says_what_is_missing() -> None:
    for world, wrong in (
        (Unforkable(words=wordle.all_words(), max_turns=6), ValueError),
        (Breaks(words=wordle.all_words(), max_turns=6), OSError),
    ):
        env: Environment = world.make()
        env.reset(world.tasks("train")[0], episode_seed("train", 0))  # type: ignore[unused-coroutine]
        with pytest.raises(wrong):
            await fork(world, env, 5)
        assert getattr(world, "closed", 3) == 3


@pytest.mark.parametrize(
    "world",
    [
        wordle.build(),
        navigation.build(),
        navigation.build(variant="po"),
        navigation.build(starts="all"),
        navigation.build(show_commands=False),
    ],
    ids=["wordle", "navigation", "navigation-po", "navigation-all", "navigation-bare"],
)
def test_the_contract(world: World) -> None:
    check_env(world)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: wordle.build(words=["crane"]),
        lambda: wordle.build(words=["crane", "cranes"]),
        lambda: wordle.build(max_turns=0),
        lambda: navigation.build(variant="half"),
        lambda: navigation.build(starts="none"),
        lambda: navigation.build(max_turns=0),
    ],
)
def test_options_without_meaning_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()
