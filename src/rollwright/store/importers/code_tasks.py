"""MBPP- and HumanEval-format files as tasks of the world `code.task_file`. Programs are read as syntax, never run here.

Sources: MBPP, arXiv:2108.07732; HumanEval, arXiv:2107.03374.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from rollwright.contracts import Split
from rollwright.store.importers.log_records import (
    Format,
    LogRow,
    RowError,
    Values,
    listed,
    split_of,
    texts,
    whole_number,
    whole_text,
)

PUBLISHED: tuple[tuple[int, int, Split], ...] = ((1, 10, "train"), (11, 510, "test"), (511, 600, "validation"))
"""MBPP's parts by task id; from 601 on it is train."""


def mbpp_tasks(rows: Sequence[LogRow], name: str) -> list[dict[str, Any]]:
    """A row with `task_id`, `text` or `prompt`, `code` and `test_list`. The first test is shown: it names the function.

    The split is the row's, else that of its folder, else the published one of its task id.

    Raises:
        RowError: a field is missing, its programs are not Python, or no test calls a function of the solution.
    """
    # A format without `unit` makes each row a unit of its own.
    (row,) = rows
    values = row.value
    number = whole_number(values.get("task_id"), "`task_id`")
    # The full MBPP calls it `text`, the sanitized one `prompt`.
    says = whole_text(values.get("text") or values.get("prompt"), "`text`")
    solution = whole_text(values.get("code"), "`code`")
    tests = [whole_text(test, "a test") for test in listed(values.get("test_list"), "`test_list`")]
    tests += texts(values.get("challenge_test_list"), "`challenge_test_list`")
    setup = _setup(values)
    defined = {
        node.name for node in _parsed(solution, "the solution").body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    called = [names_in(_parsed(test, "a test")) for test in tests]
    # Of the solution's helpers, only those that a test calls are asked of the policy.
    names = sorted(defined & set().union(*called))
    # A test that calls nothing of the solution says the same of every program.
    if not names or not all(set(found) & defined for found in called):
        raise RowError("a test that calls nothing of the solution", tests[0])
    # A function for each test, as the judge runs functions called `test...`.
    parts = [setup, *(f"def test_{i}():\n" + _indented(test) for i, test in enumerate(tests))]
    split: Split = split_of(row, values) if values.get("split") or row.split else _published(number)
    return [
        _task(
            f"mbpp/{number}",
            split,
            # MBPP's texts do not say what the function is called, nor how its arguments are given.
            prompt=f"{says}\nExample:\n{tests[0]}",
            goal="Write this Python function.",
            names=names,
            tests="\n".join(parts) + "\n",
            solution=solution,
        )
    ]


def _setup(values: Values) -> str:
    given = [values.get("test_setup_code") or "", *texts(values.get("test_imports"), "`test_imports`")]
    text = "\n".join(whole_text(part, "the tests' setup") for part in given)
    _parsed(text, "the tests' setup")
    return text


def _published(number: int) -> Split:
    return next((split for first, last, split in PUBLISHED if first <= number <= last), "train")


def _parsed(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RowError(f"{what} is not Python", error) from error


def names_in(tree: ast.AST) -> set[str]:
    """Every name that a program reads."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _indented(text: str) -> str:
    """The statements of a test as a function's body; texts that span lines stay as they are."""
    # By way of syntax: four blanks before each line of the text would end up within strings that span lines.
    return "\n".join(f"    {line}" for line in ast.unparse(ast.parse(text)).splitlines())


def humaneval_tasks(rows: Sequence[LogRow], name: str) -> list[dict[str, Any]]:
    """A row with `task_id`, `prompt`, `entry_point`, `canonical_solution` and `test`, which defines `check`.

    They are test tasks unless the row says otherwise.

    Raises:
        RowError: a field is missing, its programs are not Python, or they do not define what they should.
    """
    (row,) = rows
    values = row.value
    fields = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
    task_id, prompt, entry, solution, test = (whole_text(values.get(key), f"`{key}`") for key in fields)
    # The world joins an answer to `header` or `stem`, which it finds by this very text.
    if f"def {entry}(" not in prompt or not entry.isidentifier():
        raise RowError("`prompt` does not begin the function of `entry_point`", entry)
    if entry not in _functions(_parsed(prompt + solution, "the solution")):
        raise RowError("the solution does not define `entry_point`", entry)
    if "check" not in _functions(_parsed(test, "`test`")):
        raise RowError("`test` does not define check(candidate)")
    # The prompt is run for its imports and helpers, and its stub takes the name: `far` gives it back afterwards.
    # The seed makes the verdict repeatable, as some of the published checks draw their inputs.
    head = [f"far = {entry}", "import random", "random.seed(0)", prompt + "    pass", f"{entry} = far"]
    _parsed("\n".join(head), "`prompt`")
    # Not train, as elsewhere: the benchmark is for evaluation, and has no other part.
    split: Split = split_of(row, values) if values.get("split") or row.split else "test"
    return [
        _task(
            task_id,
            split,
            prompt=prompt,
            goal="Complete this function.",
            names=[entry],
            tests="\n".join([*head, test, "", "def test_all():", f"    check({entry})", ""]),
            solution=prompt + solution,
            # For an answer that writes the whole function anew: what stands before it is still needed.
            header=prompt.partition(f"def {entry}(")[0],
            stem=prompt,
        )
    ]


def _functions(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def _task(
    task_id: str,
    split: Split,
    *,
    prompt: str,
    goal: str,
    names: Sequence[str],
    tests: str,
    solution: str,
    header: str = "",
    stem: str = "",
) -> dict[str, Any]:
    return {
        "id": task_id,
        "split": split,
        "prompt": prompt,
        "goal": goal,
        "names": list(names),
        "tests": tests,
        "solution": solution,
        "header": header,
        "stem": stem,
    }


MBPP = Format(says="MBPP: tasks of code.task_file", convert=mbpp_tasks, tasks=True)
HUMANEVAL = Format(says="HumanEval: tasks of code.task_file", convert=humaneval_tasks, tasks=True)
