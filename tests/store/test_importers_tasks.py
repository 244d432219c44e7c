"""Files of programming tasks: MBPP, HumanEval and SWE-bench rows become tasks that a world plays and judges."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

from rollwright.cli.commands import main
from rollwright.config.components import create
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import Task
from rollwright.store.importers.log_records import RowError
from rollwright.store.importers.patches import apply_diff, split_lines

MBPP = {
    "task_id": 602,
    "text": "Write a function to add two numbers.",
    "code": "def add(a, b):\r\n  return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"],
    "test_setup_code": "import math",
    "challenge_test_list": [],
}
HUMANEVAL = {
    "task_id": "Mine/0",
    "prompt": 'from typing import List\n\ndef first(xs: List[int]) -> int:\n    """The first of xs."""\n',
    "entry_point": "first",
    "canonical_solution": "    return xs[0]\n",
    "test": "def check(candidate):\n    assert candidate([3, 4]) == 3\n    assert candidate([5]) == 5\n",
}
BEFORE = {
    "shop/__init__.py": "",
    "shop/price.py": "def total(prices):\n    return sum(prices[1:])\n\n\ndef mean(prices):\n    return 0\n",
    "tests/test_price.py": "from shop.price import total\n\n\ndef test_none():\n    assert total([]) == 0\n",
}
AFTER = BEFORE | {
    "shop/price.py": "def total(prices):\n    return sum(prices)\n\n\ndef mean(prices):\n    return total(prices) / 2\n"
}
TESTED = BEFORE | {
    "tests/test_price.py": BEFORE["tests/test_price.py"] + "\n\ndef test_two():\n    assert total([1, 2]) == 3\n"
}


def diff(old: dict[str, str], new: dict[str, str]) -> str:
    found = ""
    for path in sorted(old | new):
        a, b = old.get(path, ""), new.get(path, "")
        names = (f"a/{path}" if path in old else "/dev/null", f"b/{path}" if path in new else "/dev/null")
        if a != b:
            found += "".join(difflib.unified_diff(a.splitlines(True), b.splitlines(True), *names))
    return found


SWE: dict[str, Any] = {
    "instance_id": "me__shop-1",
    "repo": "me/shop",
    "base_commit": "0" * 40,
    "problem_statement": "The total leaves out the first price.",
    "patch": diff(BEFORE, AFTER),
    "test_patch": diff(BEFORE, TESTED),
    "FAIL_TO_PASS": json.dumps(["tests/test_price.py::test_two"]),
    "PASS_TO_PASS": "[]",
}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def imported(form: str, tmp_path: Path, *rows: Any, words: tuple[str, ...] = ()) -> Path:
    into = tmp_path / f"{form}_tasks.jsonl"
    assert main(["import", form, str(written(tmp_path / f"{form}.jsonl", *rows)), "--into", str(into), *words]) == 0
    return into


@pytest.mark.sandbox
@pytest.mark.parametrize("form", ["mbpp", "humaneval"])
def test_a_function_is_judged_by_the_tests_of_its_row(form: str, tmp_path: Path) -> None:
    into = imported(form, tmp_path, MBPP if form == "mbpp" else HUMANEVAL)
    world = create("envs", "code.task_file", {"path": str(into), "check": True})
    try:
        (task,) = world.tasks("train" if form == "mbpp" else "test")
        env = world.make()
        shown = env.reset(task, 0)
        assert ("assert add(1, 2) == 3" if form == "mbpp" else "def first(") in shown.text
        assert "-1" not in shown.text, "the other tests stay hidden"
        right = world.teacher(task).act(env, shown)
        done = env.step(f"```python\n{right}\n```")
        assert done.success and done.reward == {"tests": 1.0}
        env.reset(task, 0)
        wrong = env.step("def add(a, b):\n    return 3" if form == "mbpp" else "    return 3")
        assert wrong.success is False and wrong.reward == {"tests": 0.0}
    finally:
        world.close()


@pytest.mark.sandbox
def test_a_task_that_its_own_solution_does_not_solve_is_named(tmp_path: Path) -> None:
    into = imported("mbpp", tmp_path, MBPP | {"test_list": ["assert add(1, 2) == 4"]})
    with pytest.raises(ConfigError, match=r"1 tasks do not pass.*mbpp/602"):
        create("envs", "code.task_file", {"path": str(into), "check": True})


@pytest.mark.sandbox
@pytest.mark.parametrize("where", ["folder of the instance", "folder of the repository", "row"])
def test_a_report_is_repaired_in_its_repository(where: str, tmp_path: Path) -> None:
    row, words = dict(SWE), ()
    if where == "row":
        row["files"] = BEFORE
    else:
        root = tmp_path / "repositories" / ("me__shop-1" if "instance" in where else "me__shop")
        for path, text in BEFORE.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, "utf-8")
        words = ("--repositories", str(tmp_path / "repositories"))
    into = imported("swe-bench", tmp_path, row, words=words)
    world = create("envs", "code.repair", {"task_file": str(into)})
    try:
        (task,) = world.tasks("test")
        env = world.make()
        shown = env.reset(task, 0)
        assert "leaves out the first price" in shown.goal and "test_two" in shown.goal
        assert "return sum(prices[1:])" in env.step("read shop/price.py").observation
        assert env.step("submit").success is False
        shown = env.reset(task, 0)
        teacher = world.teacher(task)
        result = env.step(teacher.act(env, shown))
        while not result.terminated:
            result = env.step(teacher.act(env, shown))
        assert result.success and result.reward == {"tests": 1.0}
        with pytest.raises(DataError, match="of another file"):
            env.reset(Task(id="stranger", split="test"), 0)
    finally:
        world.close()


@pytest.mark.sandbox
def test_a_report_whose_tests_say_nothing_is_refused(tmp_path: Path) -> None:
    idle = SWE | {
        "files": BEFORE,
        "FAIL_TO_PASS": ["tests/test_price.py::test_none"],
        "test_patch": diff(BEFORE, TESTED),
    }
    idle["test_patch"] = diff({}, {"tests/test_more.py": "def test_more():\n    assert 1 == 1\n"})
    idle["FAIL_TO_PASS"] = ["tests/test_more.py::test_more"]
    with pytest.raises(ConfigError, match="pass before the fix as well"):
        create("envs", "code.repair", {"task_file": str(imported("swe-bench", tmp_path, idle))})


def test_mbpp_ids_have_their_published_split_and_a_row_or_folder_may_say_otherwise(tmp_path: Path) -> None:
    rows = [MBPP | {"task_id": number} for number in (5, 11, 510, 511, 600, 601)]
    into = imported("mbpp", tmp_path, *rows, MBPP | {"task_id": 12, "split": "validation"})
    splits = [json.loads(line)["split"] for line in into.read_text().splitlines()]
    assert splits == ["train", "test", "test", "validation", "validation", "train", "validation"]


PATCHES = {
    "one line": ("a\nb\nc\n", "a\nB\nc\n"),
    "the first line": ("a\nb\n", "x\nb\n"),
    "the last line without a newline": ("a\nb", "a\nc"),
    "a newline added": ("a\nb", "a\nb\n"),
    "lines far apart": ("".join(f"{i}\n" for i in range(40)), "".join(f"{i + (i in (3, 33))}\n" for i in range(40))),
    "lines added at the end": ("a\n", "a\nb\nc\n"),
    "lines that look like a diff": ("--- a\n+++ b\n@@ x\n", "--- a\n+++ c\n@@ x\n"),
    "a form feed": ("a\n\x0c\nb\n", "a\n\x0c\nc\n"),
    "blank lines": ("a\n\n\nb\n", "a\n\nx\n\nb\n"),
}


@pytest.mark.parametrize("name", PATCHES)
def test_a_diff_gives_the_file_that_it_was_made_from(name: str) -> None:
    old, new = PATCHES[name]
    sides = (split_lines(old), split_lines(new))
    lines = list(difflib.unified_diff(*sides, "a/f.py", "b/f.py"))
    text = "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
    assert apply_diff({"f.py": old, "g.py": "same"}, text) == {"f.py": new, "g.py": "same"}
    with pytest.raises(RowError, match="does not apply"):
        apply_diff({"f.py": "other\n" + old.replace("a", "z")}, text)


def test_a_world_refuses_a_file_that_the_import_did_not_write(tmp_path: Path) -> None:
    for name, option in (("code.task_file", "path"), ("code.repair", "task_file")):
        with pytest.raises(ConfigError, match="there is no file of tasks"):
            create("envs", name, {option: str(tmp_path / "none.jsonl")})
        for rows in ([{"id": "a"}], [[1]], [{"id": "a", "split": "exam"}]):
            with pytest.raises(DataError, match="line 1: no task"):
                create("envs", name, {option: str(written(tmp_path / "odd.jsonl", *rows))})
