"""The code worlds: contract, splits, verdicts, teachers, bad input."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import World, episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import SPLITS, Task
from rollwright.envs.code import synthesis
from rollwright.envs.code.judging import Case, judge_cases
from rollwright.envs.code.problems.specifications import FAMILIES, behaviour, from_params, specifications
from rollwright.envs.code.sandbox import WarmBox, unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]


def play(world: World, task: Task, actions: list[str]):
    env = world.make()
    env.reset(task, episode_seed(task.split, "t"))
    return [env.step(action) for action in actions]


def solved_frac(world: World, split: str, count: int) -> float:
    """The share of tasks that the teacher solves within the world's turns."""
    tasks = random.Random(0).sample(world.tasks(split), min(count, len(world.tasks(split))))
    won = 0
    for task in tasks:
        env, teacher = world.make(), world.teacher(task)
        seen, result = env.reset(task, episode_seed(split, "teach")), None
        for _ in range(world.max_turns):
            result = env.step(teacher.act(env, seen))
            seen = result.observation
            if result.terminated or result.truncated:
                break
        won += bool(result and result.success)
        env.close()
    return won / len(tasks)


@pytest.mark.parametrize("wording", ["full", "compact"])
def test_synthesis_keeps_the_contract(wording: str) -> None:
    check_env(synthesis.build(wording=wording, attempts=2, tasks_per_family=3, held_out_per_family=2), seeds=1)


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_no_behaviour_is_in_two_splits(difficulty: int) -> None:
    for family in FAMILIES:
        keys = {s: {behaviour(x) for x in specifications(family, difficulty, s, 40)} for s in SPLITS}
        assert all(keys[s] for s in SPLITS) or difficulty == 1
        assert not (
            keys["train"] & keys["test"] or keys["train"] & keys["validation"] or keys["test"] & keys["validation"]
        )


def test_the_synthesis_teacher_solves_every_family() -> None:
    world = synthesis.build(difficulty=3, tasks_per_family=4, held_out_per_family=4)
    assert solved_frac(world, "test", 24) == 1.0
    world.close()


def test_a_function_is_judged_by_what_it_does() -> None:
    world = synthesis.build(families=["numbers"], difficulty=2)
    task = Task(id="x", split="train", params={"family": "numbers", "steps": [["add", 3], ["multiply", 2]], "start": 0})
    right = "Here it is:\n```python\ndef f(x):\n    y = x + x\n    return y + 6\n```\nDone."
    results = {text: play(world, task, [text])[0] for text in (right, "def f(x): return 2 * x + 3", "no code", "")}
    assert [r.success for r in results.values()] == [True, False, False, False]
    assert [r.rewards for r in results.values()] == [{"tests": 1.0}, *[{"tests": 0.0}] * 3]
    assert "returned" in results["def f(x): return 2 * x + 3"].observation
    world.close()


@pytest.mark.parametrize("value", ["10 ** 5000", "[-(10 ** 9000)]", "{'a': 10 ** 5000}"])
@pytest.mark.parametrize("expected", [2, 0.5, float("inf")])
def test_a_number_that_python_does_not_write_out_is_a_wrong_answer(value: str, expected: float) -> None:
    with WarmBox() as box:
        verdict, _ = judge_cases(box, f"def f(x): return {value}", "f", [Case(args=(1,), expected=expected)])
        assert verdict.passed == 0 and "wrong" in verdict.message and len(verdict.message) < 200
        huge = [Case(args=(10**5000,), expected=2)]  # ours may be as long
        assert judge_cases(box, "def f(x): return x", "f", huge)[0].passed == 0


def test_the_fraction_of_cases_can_be_the_reward() -> None:
    world = synthesis.build(families=["numbers"], reward="fraction")
    task = Task(id="x", split="train", params={"family": "numbers", "steps": [["absolute", None]], "start": 0})
    result = play(world, task, ["def f(x): return x"])[0]
    cases = from_params(task.params).cases(12, "hidden")
    assert result.rewards["tests"] == sum(c.args[0] >= 0 for c in cases) / 12 and not result.success
    world.close()


def test_the_teacher_errs_as_often_as_it_is_told() -> None:
    world = synthesis.build(families=["numbers"], tasks_per_family=200, teacher_right_frac=0.3)
    env, right = world.make(), 0
    for task in world.tasks("train"):
        seen = env.reset(task, episode_seed("train", task.id))
        right += world.teacher(task).act(env, seen) == from_params(task.params).code()
    assert 0.2 < right / len(world.tasks("train")) < 0.4
    world.close()


def test_the_teacher_can_have_the_habit_of_leaving_out_the_last_step() -> None:
    options = {"teacher_right_frac": 0.0, "teacher_mistake": "last_step_left_out"}
    world = synthesis.build(families=["numbers"], tasks_per_family=30, **options)
    env = world.make()
    for task in world.tasks("train"):
        whole = from_params(task.params)
        answer = world.teacher(task).act(env, env.reset(task, episode_seed("train", task.id)))
        assert answer == replace(whole, steps=whole.steps[:1]).code() != whole.code()
    world.close()
    with pytest.raises(ConfigError, match="teacher_mistake"):
        synthesis.build(teacher_mistake="typing")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"families": ["poems"]}, {"families": []}, {"difficulty": 0}, {"wording": "x"}, {"teacher_right_frac": 2.0}],
)
def test_synthesis_refuses_options_without_meaning(options: dict) -> None:
    with pytest.raises(ConfigError):
        synthesis.build(**options)
