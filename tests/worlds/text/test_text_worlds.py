"""The text worlds: the maze's published facts, its reward scale move by move, the guessing game, the bandit."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from rollwright.contracts.environment import (
    Observation,
    SmallLanguage,
    StepResult,
    Taught,
    World,
    as_observation,
    episode_seed,
)
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import SPLITS, Task
from rollwright.envs.text import bandit, guess_number, maze
from rollwright.envs.text.boards import maze_layouts


def play(world: maze.MazeWorld, task: Task, actions: Sequence[str]) -> tuple[maze.MazeEnvironment, list[StepResult]]:
    env = world.make()
    env.reset(task, episode_seed(task.split, 0))
    return env, [env.step(action) for action in actions]


def start_task(world: maze.MazeWorld, start: tuple[int, int]) -> Task:
    return next(t for split in SPLITS for t in world.tasks(split) if t.params["start"] == list(start))


def total(results: Sequence[StepResult]) -> float:
    return sum(sum(result.rewards.values()) for result in results)


def solve(world: maze.MazeWorld, task: Task) -> list[StepResult]:
    env, teacher = world.make(), world.teacher(task)
    observation, results = as_observation(env.reset(task, episode_seed(task.split, 1))), []
    while not results or not (results[-1].terminated or results[-1].truncated):
        results.append(env.step(teacher.act(env, observation)))
        observation = as_observation(results[-1].observation)
    return results


@pytest.mark.parametrize("variant", ["fo", "po"])
def test_the_optimum_over_all_starts_is_the_published_one(variant: maze.Variant):
    world = maze.build(variant=variant, starts="all")
    tasks = world.tasks("test")
    returns = [total(solve(world, task)) for task in tasks]
    assert len(returns) == 25
    assert sum(returns) / 25 == -6.84
    assert returns == [maze_layouts.optimal_return((t.params["start"][0], t.params["start"][1])) for t in tasks]
    assert max(distance for distance, _ in maze_layouts.shortest_paths("double_t").values()) == 12


def test_every_shortest_path_agrees_with_a_plain_search():
    layout = maze_layouts.MAZES["double_t"]
    for start in layout.starts:
        reached, distance = {start}, 0
        while layout.goal not in reached:
            distance += 1
            steps = {(r + dr, c + dc) for r, c in reached for dr, dc in maze.MOVES.values()}
            reached |= {cell for cell in steps if layout.is_free(cell)}
        assert maze_layouts.shortest_paths("double_t")[start][0] == distance


def test_rewards_of_every_kind_of_move():
    world = maze.build()
    env, results = play(world, start_task(world, (7, 6)), ["move left", "move up", "jump", "MOVE DOWN", " move down\n"])
    assert [r.rewards for r in results] == [{"env": -1.0}, {"env": -1.0}, {"env": -4.0}, {"env": -4.0}, {"env": -1.0}]
    assert env.cell == (7, 6)  # wall: stayed; up; two slips: stayed; down again
    last = env.step("move down")
    assert (last.reward, last.terminated, last.truncated, last.success) == (0.0, True, False, True)
    assert as_observation(last.observation).text == "Success\n"


def test_a_time_out_is_worth_minus_101_and_is_no_termination():
    world = maze.build()
    task = start_task(world, (1, 1))
    _, results = play(world, task, ["move up"] * 100)
    assert total(results) == -101.0
    assert results[-1].rewards == {"env": -1.0, "timeout": -1.0}
    assert (results[-1].terminated, results[-1].truncated, results[-1].success) == (False, True, False)
    assert [r.truncated for r in results[:-1]] == [False] * 99
    assert results[-1].observation == results[0].observation, "a critic reads here what the state is worth"
    with pytest.raises(RuntimeError, match="reset"):
        play(world, task, ["move up"] * 101)


def test_reaching_the_goal_with_the_last_move_still_counts():
    world = maze.build(max_turns=3)
    _, results = play(world, start_task(world, (6, 6)), ["move up", "move down", "move down"])
    assert results[-1].truncated and results[-1].rewards == {"env": -1.0, "timeout": -1.0}
    _, results = play(world, start_task(world, (6, 6)), ["no such move", "move down", "move down"])
    assert results[-1].success is True and total(results) == -5.0


def test_wording_of_the_observations():
    layout = maze_layouts.MAZES["double_t"]
    assert maze.describe(layout, (1, 11), "fo", "lmrl") == (
        "The goal is at position 8, 6. Your current position is at position 1, 1 1. "
        "There are walls to your right, above you, below you.\n"
    )
    assert maze.describe(layout, (1, 3), "po", "lmrl") == "There is a wall above you.\n"
    assert maze.describe(layout, (5, 6), "po", "lmrl") == "There is a wall above you.\n"
    assert maze.describe(layout, (3, 3), "fo", "compact") == "at r3c3 goal r8c6 walls left right"
    assert maze.describe(layout, (1, 1), "po", "compact") == "walls up down left"


def test_partial_observation_hides_the_place_but_not_from_the_state_key():
    world = maze.build(variant="po")
    left, _ = play(world, start_task(world, (2, 3)), [])
    right, _ = play(world, start_task(world, (2, 9)), [])
    first = left.step("move down"), right.step("move down")
    assert first[0].observation == first[1].observation
    assert left.fingerprint() != right.fingerprint()


def test_a_slip_is_told_and_leaves_the_state_as_it_is():
    world = maze.build(wording="compact")
    env, _ = play(world, start_task(world, (3, 3)), [])
    before = env.fingerprint()
    assert env.step("north").observation == "unknown move at r3c3 goal r8c6 walls left right"
    assert env.fingerprint() == before


@pytest.mark.parametrize("name", ["double_t", "umaze"])
def test_a_teacher_that_stays_leaves_far_starts_without_a_way(name: str):
    world = maze.build(maze=name, teacher_optimal_frac=0.15, teacher_stays=True, max_turns=60)
    layout, seen = world.layout, set()
    for task in world.tasks("train"):
        start = (task.params["start"][0], task.params["start"][1])
        part, env, teacher = layout.part_of(start), world.make(), world.teacher(task)
        observation, result, cells = as_observation(env.reset(task, 0)), None, {start}
        while result is None or not (result.terminated or result.truncated):
            result = env.step(teacher.act(env, observation))
            cells.add(env.cell)
        assert cells <= part and (layout.goal in part or not result.success)
        seen |= cells
    assert seen == {*layout.starts, layout.goal}, "together the walks know the whole maze"


def test_parts_of_a_maze_overlap_so_that_their_walks_can_be_joined():
    for layout in maze_layouts.MAZES.values():
        first, *others = layout.parts
        assert layout.goal in first and all(first & other for other in others)
        assert frozenset().union(*layout.parts) == {*layout.starts, *layout.hazards, layout.goal}


def test_a_hazard_costs_whoever_enters_it_and_is_named_beside_it():
    world = maze.build(maze="hazard", wording="compact")
    env, task = world.make(), next(t for t in world.tasks("test") if t.params["start"] == [2, 3])
    shown = as_observation(env.reset(task, 0)).text
    assert shown == "at r2c3 goal r1c5 walls left hazard right"
    moves = ("move left", "move right", "sit", "move right", "move left", "move left")
    results = [env.step(move) for move in moves]
    assert [result.costs for result in results] == [{"hazard": cost} for cost in (0.0, 1.0, 0.0, 0.0, 1.0, 0.0)]
    assert world.event_of(env, "move right") == "hazard" and world.event_of(env, "move left") == "bump"
    assert "There is a hazard if you move right." in maze.describe(world.layout, (2, 3), "fo", "lmrl")
    plain = maze.build().make()
    plain.reset(maze.build().tasks("train")[0], 0)
    assert plain.step("move up").costs == {}, "a maze without hazards counts no costs"


def test_the_short_way_through_the_hazard_is_four_moves_shorter_than_the_safe_one():
    layout = maze_layouts.MAZES["hazard"]
    safe = replace(layout, rows=tuple(row.replace("~", "#") for row in layout.rows))
    for start in ((1, 1), (2, 3), (1, 2)):
        assert way_of(safe, start) - maze_layouts.shortest_paths("hazard")[start][0] == 4


def way_of(layout: maze_layouts.Layout, start: maze_layouts.Cell) -> int:
    """Moves of a shortest way, by a search of the test's own."""
    seen, frontier, moves = {start}, {start}, 0
    while layout.goal not in frontier:
        near = {(r + a, c + b) for r, c in frontier for a, b in maze_layouts.MOVES.values()}
        frontier = {cell for cell in near if layout.is_free(cell)} - seen
        seen, moves = seen | frontier, moves + 1
    return moves


def test_held_out_starts_cover_the_maze_without_overlap():
    for name, layout in maze_layouts.MAZES.items():
        world = maze.build(maze=name)
        starts = [tuple(task.params["start"]) for split in SPLITS for task in world.tasks(split)]
        assert sorted(starts) == sorted(layout.starts)
        assert all(world.tasks(split) for split in SPLITS)


def test_held_out_starts_are_about_as_far_as_the_rest():
    layout = maze_layouts.MAZES["double_t"]
    for split in SPLITS:
        returns = [maze_layouts.optimal_return(start) for start in layout.starts_of(split)]
        assert sum(returns) / len(returns) == pytest.approx(-6.84, abs=0.05)


def test_all_starts_can_be_judged_but_not_trained_on():
    world = maze.build(starts="all")
    assert world.tasks("train") == [] and world.tasks("validation") == []
    held_out = {task.id for split in SPLITS for task in maze.build().tasks(split)}
    assert not held_out & {task.id for task in world.tasks("test")}


def test_a_snapshot_carries_the_clock_and_fits_another_environment():
    world = maze.build(max_turns=5)
    env, _ = play(world, start_task(world, (1, 1)), ["move right", "jump", "move right"])
    state, other = env.snapshot(), world.make()
    other.restore(state)
    assert other.fingerprint() == env.fingerprint()
    assert [other.step("move down").truncated for _ in range(2)] == [False, True]
    with pytest.raises(ValueError, match="umaze"):
        maze.build(maze="umaze").make().restore(state)


def test_a_start_inside_a_wall_is_refused():
    world = maze.build()
    with pytest.raises(ValueError, match="no start"):
        world.make().reset(Task(id="x", split="train", params={"start": [0, 0]}), 0)


@pytest.mark.parametrize(("low", "high"), [(1, 16), (-5, 5), (0, 1), (1, 1000)])
def test_bisection_finds_every_number_within_its_bound(low: int, high: int):
    world = guess_number.build(low=low, high=high)
    bound, worst, seen = (high - low + 1).bit_length(), 0, set()
    for seed in range(3 * min(high - low + 1, 60)):
        env, result, turns = world.make(), None, 0
        observation = env.reset(world.tasks("train")[0], seed)
        while result is None or not result.terminated:
            guess = guess_number.Bisection().act(env, observation)
            result, turns = env.step(guess), turns + 1
        seen.add(guess)
        worst = max(worst, turns)
        assert result.rewards == {"env": 1.0} and result.success is True
    assert worst <= bound
    assert len(seen) > min(high - low + 1, 60) // 2  # the seed really draws the number


def test_guess_number_answers_as_the_hidden_number_demands():
    world = guess_number.build(low=1, high=16)
    secret = random.Random(7).randint(1, 16)
    env = world.make()
    env.reset(world.tasks("train")[0], 7)
    said = [env.step(action) for action in (str(secret - 1), f" {secret + 1}\n", "²", "1_0", "twelve", str(secret))]
    slip = "Answer with one whole number."
    assert [r.observation for r in said] == ["Higher.", "Lower.", slip, slip, slip, "Correct."]
    assert [r.rewards["env"] for r in said] == [0.0] * 5 + [1.0]


def test_guess_number_ends_at_its_limit_without_a_reward():
    world = guess_number.build(max_turns=2)
    env = world.make()
    env.reset(world.tasks("train")[0], 7)
    results = [env.step("99"), env.step("99")]
    assert [(r.truncated, r.success, r.terminated) for r in results] == [(False, None, False), (True, False, False)]


def test_the_bandit_pays_for_one_word_only():
    world = bandit.build(words=["a", "b", "c"], pays="c")
    env, task = world.make(), world.tasks("train")[0]
    paid = {}
    for action in ("a", "b", " c\n", "C", "abc", ""):
        env.reset(task, 3)
        result = env.step(action)
        assert result.terminated and isinstance(result.observation, str)
        paid[action] = (result.reward, result.success)
    assert paid.pop(" c\n") == (1.0, True)
    assert set(paid.values()) == {(0.0, False)}


def test_the_bandit_lists_its_words_in_an_order_that_says_nothing():
    world = bandit.build()
    env, task = world.make(), world.tasks("train")[0]
    first = [env.reset(task, seed).text.removeprefix("Words: ").split(",")[0] for seed in range(200)]
    assert all(30 < first.count(word) < 70 for word in world.words)


@pytest.mark.parametrize("build", [guess_number.build, bandit.build])
def test_a_seed_of_another_split_is_refused(build: Callable[[], World]):
    world = build()
    env = world.make()
    with pytest.raises(ValueError, match="split 'train'"):
        env.reset(world.tasks("train")[0], episode_seed("test", 0))
    assert isinstance(env.reset(world.tasks("test")[0], episode_seed("test", 0)), Observation)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: maze.build(maze="triple_t"),
        lambda: maze.build(variant="full"),
        lambda: maze.build(wording="long"),
        lambda: maze.build(starts="some"),
        lambda: maze.build(max_turns=0),
        lambda: guess_number.build(low=3, high=3),
        lambda: guess_number.build(max_turns=0),
        lambda: bandit.build(words=["a"], pays="a"),
        lambda: bandit.build(words=["a", "a"], pays="a"),
        lambda: bandit.build(pays="melon"),
    ],
)
def test_options_without_meaning_are_refused(wrong: Callable[[], World]):
    with pytest.raises(ConfigError):
        wrong()


def test_every_text_world_has_teachers():
    assert all(isinstance(module.build(), Taught) for module in (maze, guess_number, bandit))


@pytest.mark.parametrize(
    "build",
    [maze.build, lambda: maze.build(variant="po", wording="compact"), guess_number.build, bandit.build],
)
def test_texts_hold_every_word_of_play(build: Callable[[], World]):
    world = build()
    assert isinstance(world, SmallLanguage)

    def words_of(text: str) -> set[str]:
        return set(re.findall(r"\w+|[^\w\s]", text))

    known = set().union(*(words_of(text) for text in world.texts()))
    said = [world.instructions]
    for task in world.tasks("test"):
        for slip in ("", "nonsense"):
            env = world.make()
            first = as_observation(env.reset(task, episode_seed("test", 0)))
            result, done = env.step(slip), []
            said += [first.goal, first.text, as_observation(result.observation).text]
            while not (result.terminated or result.truncated):
                done.append(world.teacher(task).act(env, first))
                result = env.step(done[-1])
                said += [done[-1], as_observation(result.observation).text]
    assert set().union(*map(words_of, said)) <= known
