"""Repair a bug in a small repository: read, search, edit, run the tests, submit.

The goal names the failing tests. Edits are search/replace blocks; the tests themselves cannot be edited. `submit` ends
the episode: the repository is judged by its visible and by hidden tests, which run in another box. Reward, part
`tests`: 1 if all pass, else 0. With `style="patch"` the modules are in the prompt and the one action is a patch in
SWE-RL's format.

Our five repositories are split among train, validation and test; an installed package of yours is split by module.
"""

from __future__ import annotations

from pathlib import Path

from rollwright.contracts import ConfigError
from rollwright.envs.code.repairs import repositories
from rollwright.envs.code.repairs.filed_bugs import FiledRepairs
from rollwright.envs.code.repairs.repair_world import RepairWorld, Style
from rollwright.envs.code.submission import check_choices, check_positive

__all__ = ["RepairWorld", "build"]


def build(
    *,
    style: Style = "tools",
    bugs: int = 1,
    max_turns: int = 20,
    tasks_per_repository: int = 40,
    package: str = "",
    package_tests: str = "",
    task_file: str = "",
    unsafe: bool = False,
) -> RepairWorld:
    """Bug repair.

    Args:
        style: "tools", many turns; "patch", one turn in SWE-RL's format with all modules in the prompt.
        bugs: at the same time, each in another module.
        max_turns: actions per episode in style "tools".
        tasks_per_repository: at most so many.
        package: an installed pure-Python package in place of our repositories; its modules are split by name.
        package_tests: the folder with pytest files for `package`: trusted code. Its tests must compare plain data.
        task_file: real bugs in place of ours: what `rollwright import swe-bench` wrote. Their tests are trusted code.
        unsafe: run programs without a sandbox where this machine has none.

    Raises:
        ConfigError: an option has no such value, the package or its tests are not there, or the tests cannot judge it.
    """
    check_choices("code.repair", style=(style, Style))
    check_positive("code.repair", bugs=bugs, max_turns=max_turns, tasks_per_repository=tasks_per_repository)
    if bool(package) != bool(package_tests):
        raise ConfigError("code.repair needs both package and package_tests, or neither")
    if task_file:
        if package or bugs != 1 or style != "tools":
            raise ConfigError(
                "code.repair: a task_file brings its own bugs; package, bugs and style=patch are not for it"
            )
        return FiledRepairs(Path(task_file), max_turns=max_turns, unsafe=unsafe)
    own = None
    if package:
        tests = {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(package_tests).glob("test_*.py"))}
        own = repositories.installed(package, tests)
    return RepairWorld(
        style=style, bugs=bugs, max_turns=max_turns, tasks_per_repository=tasks_per_repository, own=own, unsafe=unsafe
    )
