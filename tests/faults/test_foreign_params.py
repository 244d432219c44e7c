"""Parameters of tasks that come from disk are data: believed as far as the world could have written them itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rollwright.config.components import create
from rollwright.contracts.errors import ConfigError, DataError, RewardFault
from rollwright.contracts.record import SPLITS, Task
from rollwright.envs.code import correction, maths, repair, synthesis, unit_tests
from rollwright.envs.code.problems.specifications import FAMILIES, MAX_STEPS, from_params, specifications
from rollwright.envs.code.sandbox import unavailable_reason
from rollwright.store.rescoring import score_store
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders

needs_sandbox = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "sandbox")
CODE = "(__import__('os').system('touch {mark}') or 0)"


class Sly(str):
    """A text that says it is equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


def broken(mark: Path) -> dict[str, dict[str, Any]]:
    """Params that name a specification which code.synthesis never draws."""
    code = CODE.format(mark=mark)
    in_text = f'", "") + str({code}) + x.replace("'
    good = {"family": "numbers", "steps": [["add", 3]], "start": 0}
    return {
        "a constant of code": {**good, "steps": [["add", code]]},
        "a constant of code in a text": {**good, "family": "texts", "steps": [["remove", in_text]]},
        "a start of code": {**good, "family": "recurrences", "start": code},
        "a family of code": {**good, "family": code},
        "a step of code": {**good, "steps": [[code, 3]]},
        "a step of another family": {**good, "steps": [["upper", None]]},
        "a name that is a list": {**good, "steps": [[["add"], 3]]},
        "a family that is a list": {**good, "family": ["numbers"]},
        "a constant never drawn": {**good, "steps": [["add", 10**9]]},
        "a truth value for a number": {**good, "family": "lists", "steps": [["first", True]]},
        "a float for a number": {**good, "steps": [["add", 3.0]]},
        "a constant where none is": {**good, "steps": [["square", 3]]},
        "a mapping for a constant": {**good, "steps": [["add", {"__class__": "int"}]]},
        "a sly text": {**good, "family": "texts", "steps": [["remove", Sly(code)]]},
        "three things in a step": {**good, "steps": [["add", 3, 3]]},
        "a text for the steps": {**good, "steps": "add"},
        "no steps": {**good, "steps": []},
        "steps without end": {**good, "steps": [["add", 3]] * (MAX_STEPS + 1)},
        "squares without end": {**good, "steps": [["square", None]] * 40},
        "repeats without end": {**good, "family": "texts", "steps": [["repeat", 3]] * 30},
        "a step after the last": {**good, "family": "lists", "steps": [["sum", None], ["sum", None]]},
        "a start where none is": {**good, "start": 5},
        "a start never drawn": {**good, "family": "recurrences", "start": 10**30},
        "nothing": {},
    }


@pytest.mark.parametrize("case", broken(Path("mark")))
def test_specifications_that_the_world_never_draws_are_refused(case: str, tmp_path: Path) -> None:
    params = broken(tmp_path / "mark")[case]
    with pytest.raises(DataError, match="task"):
        from_params(params)
    for world in (synthesis, unit_tests, correction) if not unavailable_reason() else ():
        made = world.build(tasks_per_family=1)
        task = Task(id="t", split="train", params=params)
        for act, words in ((made.observe, ()), (made.teacher, ()), (made.judge, ("def f(x): return x",))):
            with pytest.raises(DataError):
                act(task, *words)
        made.close()
    assert not (tmp_path / "mark").exists()


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_every_specification_that_the_world_draws_is_believed(family: str) -> None:
    drawn = [
        s for difficulty in (1, 2, 3, 6) for split in SPLITS for s in specifications(family, difficulty, split, 20)
    ]
    assert len(drawn) > 80
    assert all(from_params(spec.as_params()) == spec for spec in drawn)


def test_more_steps_than_can_be_believed_cannot_be_asked_for() -> None:
    for world in (synthesis, unit_tests):
        with pytest.raises(ConfigError, match="difficulty of at most"):
            world.build(difficulty=MAX_STEPS + 1)


def stored(folder: Path, params: dict[str, Any], text: str) -> TrajectoryStore:
    turn = builders.turn(logprobs=-0.5, text=text)
    episode = builders.episode("a", turn, task=Task(id="t", split="train", params=params))
    return builders.store_of(folder, episode, tag="x")


@needs_sandbox
@pytest.mark.parametrize("case", ["a constant of code", "a constant of code in a text", "a start of code"])
def test_a_foreign_store_runs_no_code(case: str, tmp_path: Path) -> None:
    store = stored(tmp_path / "store", broken(tmp_path / "mark")[case], "def f(x): return x")
    with pytest.raises(RewardFault, match="unit_tests"):
        score_store(store, TrajectoryStore(tmp_path / "scored"), create("rewards", "unit_tests"))
    assert not (tmp_path / "mark").exists()


def test_a_foreign_store_chooses_no_rule(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym")
    mark = tmp_path / "mark"
    params = {"family": "spiral_matrix", "number": 0, "answer": "1"}
    store = stored(tmp_path / "store", params, f"<answer>[__import__('os').system('touch {mark}')]</answer>")
    options = {"world": "code.maths", "options": {"problems_per_family": 3}}
    with pytest.raises(RewardFault, match="of family 'spiral_matrix'"):
        score_store(store, TrajectoryStore(tmp_path / "scored"), create("rewards", "unit_tests", options))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"family": "lcm"}, "is of family"),
        ({"family": ["gcd"]}, "is of family"),
        ({"number": -1}, "is number -1"),
        ({"number": True}, "is number True"),
        ({"number": "0"}, "is number '0'"),
        ({"number": 10**9}, "is number"),
        ({"answer": "no such"}, "another answer"),
        ({"answer": None}, "another answer"),
    ],
)
def test_a_problem_that_is_not_here_is_refused(changed: dict[str, Any], said: str) -> None:
    pytest.importorskip("reasoning_gym")
    world = maths.build(families=["gcd"], problems_per_family=5)
    task = next(task for split in SPLITS for task in world.tasks(split))
    assert world.judge(task, f"<answer>{task.params['answer']}</answer>").success
    with pytest.raises(DataError, match=said):
        world.judge(Task(id="t", split="train", params={**task.params, **changed}), "1")


@needs_sandbox
@pytest.mark.parametrize(
    "bugs",
    [None, [], "x", [["shop/../../etc/passwd", 0, []]], [["shop/cart.py", -1, []]], [["shop/cart.py", True, []]], [[]]],
)
def test_a_bug_that_the_repository_does_not_have_is_refused(bugs: Any) -> None:
    world = repair.build(tasks_per_repository=2)
    task = world.tasks("train")[0]
    assert world.bugs_of(task)
    with pytest.raises(DataError, match="names bugs"):
        world.make().reset(Task(id="t", split="train", params={**task.params, "bugs": bugs}), 0)
    with pytest.raises(ConfigError, match="no repository"):
        world.repository(Task(id="t", split="train", params={"repository": "../../tmp/x"}))
    world.close()


@pytest.mark.parametrize(
    ("reward", "params"),
    [
        ("maths", {"answer": ["1"]}),
        ("maths", {"answer": True}),
        ("maths", {"answer": {"a": 1}}),
        ("static_quality", {"focal": ["f"]}),
        ("static_quality", {"focal": 1}),
        ("patch_similarity", {"files": {"a.py": 1}, "oracle": {"a.py": "x"}}),
        ("patch_similarity", {"files": ["a.py"], "oracle": {"a.py": "x"}}),
        ("patch_similarity", {"files": {"a.py": "x"}, "oracle": "x"}),
    ],
)
def test_a_reward_cannot_tell_where_its_parameters_are_of_another_type(
    reward: str, params: dict[str, Any], tmp_path: Path
) -> None:
    if reward == "maths":
        pytest.importorskip("math_verify")
    store = stored(tmp_path / "store", params, "1")
    assert score_store(store, TrajectoryStore(tmp_path / "scored"), create("rewards", reward)).undecided == 1
