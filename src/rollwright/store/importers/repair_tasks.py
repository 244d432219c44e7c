"""SWE-bench-like rows as tasks of the world `code.repair`: a report, the repository before the fix, and the fix.

A row names its fix (`patch`), its tests (`test_patch`) and which of them tell (`FAIL_TO_PASS`), but not the repository.
That is either in the row (`files`: text by path, before the fix) or a folder beside the file: `FOLDER/<instance_id>` or
`FOLDER/<owner>__<name>`, checked out at the row's `base_commit`. Nothing of it is run here.

Source of the format: SWE-bench, arXiv:2310.06770.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollwright.store.importers.log_records import (
    Format,
    LogRow,
    RowError,
    Values,
    listed,
    mapping,
    split_of,
    strict_json,
    whole_text,
)
from rollwright.store.importers.patches import apply_diff, read_diff

MAX_CHARS = 2_000_000
"""Of the package's sources: each task carries them."""
MAX_FILE = 60_000
"""`code.repair` edits no longer file."""


def repair_tasks(rows: Sequence[LogRow], name: str, *, repositories: Path | None = None) -> list[dict[str, Any]]:
    """The task of a row.

    Raises:
        RowError: a field is missing, the repository is not there, a patch does not apply to it, the fix adds, deletes
            or renames a file, or its tests are no plain functions under tests/.
    """
    (row,) = rows
    values = row.value
    task_id, fix, tests = (whole_text(values.get(key), f"`{key}`") for key in ("instance_id", "patch", "test_patch"))
    failing = _names(values.get("FAIL_TO_PASS"))
    files = _files(values, task_id, repositories)
    changed = [patch.new for patch in read_diff(fix)]
    # `code.repair` edits files that are there: a fix that adds one could not be made.
    if missing := [path for path in changed if path not in files]:
        raise RowError("the fix is of a file that is not a Python source of the repository", missing[0])
    package = _package(changed)
    after = apply_diff(files, fix)
    # On the files before the fix: SWE-bench makes both patches against `base_commit`.
    with_tests = apply_diff(files, tests)
    told = {
        path: with_tests[path]
        # `FAIL_TO_PASS` names tests as pytest does, path::function; each file once, in their order.
        for path in dict.fromkeys(failed.partition("::")[0] for failed in failing)
        if path in with_tests
    }
    _check_tests(told, failing, files)
    sources = {path: text for path, text in files.items() if path.startswith(f"{package}/")}
    _check_size(sources, changed)
    return [
        {
            "id": task_id,
            # Not train, as elsewhere: the published reports are an evaluation.
            "split": split_of(row, values) if values.get("split") or row.split else "test",
            "says": whole_text(values.get("problem_statement"), "`problem_statement`"),
            "package": package,
            "broken": sources,
            # Of the package alone, as `broken`: the world compares the two by path.
            "fixed": {path: after[path] for path in sources},
            "tests": told,
            "failing": failing,
        }
    ]


def _names(value: Any) -> list[str]:
    """Names of tests, as a list or as the JSON text of one (as the published files have it)."""
    if isinstance(value, str):
        try:
            value = strict_json(value)
        except (ValueError, RecursionError) as error:
            raise RowError("`FAIL_TO_PASS` is not JSON", error) from error
    return [whole_text(name, "a test's name") for name in listed(value, "`FAIL_TO_PASS`")]


def _files(values: Values, task_id: str, repositories: Path | None) -> dict[str, str]:
    given = values.get("files")
    if given is not None:
        if not isinstance(given, Mapping):  # Parquet has no maps of any key: a list of pairs
            entries = [mapping(entry, "a file") for entry in listed(given, "`files`")]
            given = {_safe(entry.get("path")): entry.get("text") for entry in entries}
        # Null where Arrow has filled in the paths of other rows.
        return {_safe(path): whole_text(text, "a file") for path, text in given.items() if text is not None}
    if repositories is None:
        raise RowError("the row holds no `files`, and no folder of repositories is named (--repositories)")
    # A checkout for this very report comes first, one of the project second.
    names = [task_id, str(values.get("repo") or "").replace("/", "__")]
    # Both names come from the row and become a path on this machine.
    if any(name in (".", "..") or set("/\\\0") & set(name) for name in names):
        raise RowError("an `instance_id` that cannot name a folder", repr(task_id))
    root = next((repositories / name for name in names if name and (repositories / name).is_dir()), None)
    if root is None:
        raise RowError("its repository is not there", f"expected {names[0]} or {names[1]} in {repositories.name}")
    return _read_folder(root.resolve())


def _safe(path: Any) -> str:
    name = whole_text(path, "a path")
    # These paths are written into a sandbox's folder later; a backslash parts them on other systems.
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise RowError("a path that leaves the repository", repr(name))
    return name


def _read_folder(root: Path) -> dict[str, str]:
    found, size = {}, 0
    for path in sorted(root.rglob("*.py")):
        # A link in the checkout may lead anywhere on this machine: what it leads to must not get into a task.
        if not path.is_file() or not path.resolve().is_relative_to(root):
            continue
        try:
            # Not `read_text`, whose translation of line ends would also take a lone carriage return for one.
            text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError) as error:
            raise RowError("a source of the repository cannot be read", f"{path.name}: {error}") from error
        found[path.relative_to(root).as_posix()] = text
        size += len(text)
        # The whole repository is read before its package is known: this bounds the memory, `_check_size` the task.
        if size > 40 * MAX_CHARS:
            raise RowError("the repository is too large", root.name)
    return found


def _package(changed: Sequence[str]) -> str:
    # A task carries one package, by its top-level name; a module in the root belongs to none.
    tops = {path.partition("/")[0] for path in changed}
    if len(tops) != 1 or any("/" not in path for path in changed):
        raise RowError("the fix is not within one top-level package", ", ".join(changed))
    return tops.pop()


def _check_tests(told: Mapping[str, str], failing: Sequence[str], files: Mapping[str, str]) -> None:
    for name in failing:
        path, _, test = name.partition("::")
        if not path.startswith("tests/") or path not in told:
            raise RowError("a test of `FAIL_TO_PASS` in no file under tests/ that the test patch leaves", name)
        try:
            tree = ast.parse(told[path])
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RowError("a test file is not Python", f"{path}: {error}") from error
        # The verdict calls test functions by name and without pytest: nothing would supply arguments.
        plain = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.args.args}
        if test not in plain:
            raise RowError("a test of `FAIL_TO_PASS` that is not a function without arguments", name)


def _check_size(sources: Mapping[str, str], changed: Sequence[str]) -> None:
    if sum(map(len, sources.values())) > MAX_CHARS:
        raise RowError("the package is too large", f"more than {MAX_CHARS} characters")
    if long := [path for path in changed if len(sources[path]) > MAX_FILE]:
        raise RowError(f"the fix is of a file of more than {MAX_FILE} characters", long[0])


SWE_BENCH = Format(
    says="SWE-bench: tasks of code.repair; the repository in `files` or in --repositories",
    convert=repair_tasks,
    tasks=True,
    takes_repositories=True,
)
