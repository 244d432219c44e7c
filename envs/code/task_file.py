"""Functions to write, from a file of tasks: what `rollwright import mbpp` and `rollwright import humaneval` make.

The tests of a task are trusted as the file is; they run in another box than the program. Reward, part `tests`: 1 for a
program that passes them all, else 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollwright.contracts import (
    SPLITS,
    AuditFacts,
    ConfigError,
    DataError,
    FingerprintKind,
    Observation,
    Split,
    Task,
)
from rollwright.envs.code.judging import judge_tests
from rollwright.envs.code.sandbox import BoxPool, Limits
from rollwright.envs.code.submission import (
    EXECUTION,
    SNAPSHOTS,
    Feedback,
    Judgement,
    KnownAnswer,
    SubmissionEnvironment,
    check_choices,
    check_positive,
    extract_code,
)

LIMITS = Limits(wall_s=5.0, cpu_s=5, memory_mib=512, file_mib=1, output_kib=32, answers_kib=1024, disk_mib=1)
INSTRUCTIONS = "Answer with Python code, alone or in one fenced block. It is judged by tests; no files, no network."
TEXTS = ("id", "split", "prompt", "goal", "tests", "solution", "header", "stem")


def read_tasks(path: Path) -> dict[str, dict[str, Any]]:
    """The tasks of a file by id.

    Raises:
        ConfigError: there is no such file. DataError: a line is no task, or two have one id.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file of tasks {path}: `rollwright import mbpp FILE --into {path}` makes one")
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            task = json.loads(line)
            whole = all(isinstance(task[key], str) for key in TEXTS) and all(isinstance(n, str) for n in task["names"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: no task ({type(error).__name__}: {error})") from error
        if not whole or task["split"] not in SPLITS or not task["names"] or task["id"] in found:
            raise DataError(f"{path}, line {number}: no task, or an id that was there before; import the file again")
        found[task["id"]] = task
    if not found:
        raise DataError(f"{path} holds no task")
    return found


def program_of(task: Mapping[str, Any], answer: str) -> str:
    """The program that an answer means: a whole function after the prompt's imports and helpers, or the body alone."""
    if task["stem"] and f"def {task['names'][0]}(" not in answer:
        return str(task["stem"] + answer)
    return str(task["header"] + answer)


class TaskFileWorld:
    """The tasks of a file. Build it with `build`."""

    name = "code.task_file"
    instructions = INSTRUCTIONS
    execution = EXECUTION
    snapshots = SNAPSHOTS

    def __init__(self, tasks: Mapping[str, Mapping[str, Any]], *, attempts: int, feedback: Feedback, unsafe: bool):
        self.attempts, self.feedback, self.max_turns = attempts, feedback, attempts
        self.fingerprint_kind: FingerprintKind = "history" if attempts > 1 else "state"
        self.boxes = BoxPool(limits=LIMITS, unsafe=unsafe)
        self._tasks = tasks

    def tasks(self, split: Split) -> list[Task]:
        """The tasks of a split, in the file's order."""
        return [Task(id=key, split=split) for key, task in self._tasks.items() if task["split"] == split]

    def make(self) -> SubmissionEnvironment:
        """A fresh environment; all share the world's boxes."""
        return SubmissionEnvironment(self)

    def _of(self, task: Task) -> Mapping[str, Any]:
        if task.id not in self._tasks:
            raise DataError(f"{self.name} has no task {task.id!r}: it is of another file")
        return self._tasks[task.id]

    def observe(self, task: Task) -> Observation:
        """The task's own prompt and goal."""
        known = self._of(task)
        return Observation(text=known["prompt"], goal=known["goal"])

    def judge(self, task: Task, text: str) -> Judgement:
        """Run the tests against the program, each in a box of its own."""
        known = self._of(task)
        with self.boxes.pair() as (program, tests):
            verdict = judge_tests(
                program,
                tests,
                program={"code": program_of(known, extract_code(text))},
                tests={"tests": known["tests"]},
                names=known["names"],
                limits=LIMITS,
            )
        told = "The tests pass." if verdict.success else f"The tests fail. {verdict.message}"
        return Judgement(parts={"tests": float(verdict.success)}, success=verdict.success, message=told)

    def next_attempt(self, judgement: Judgement) -> str:
        """What a wrong program is answered with."""
        return judgement.message if self.feedback == "failure" else "Not right. Try again."

    def audit_facts(self, task: Task) -> AuditFacts:
        """A program may define more than was asked for: with the right function among the others it is right."""
        return AuditFacts(solved_by={"shotgun": "a program that holds the right function beside others is right"})

    def teacher(self, task: Task) -> KnownAnswer:
        """Hands in the file's own solution."""
        return KnownAnswer(self._of(task)["solution"])

    def texts(self) -> list[str]:
        """Prompts and solutions, for a tokenizer made to measure."""
        return [self.instructions, *(task["prompt"] + task["goal"] + task["solution"] for task in self._tasks.values())]

    def unsolved(self) -> dict[str, str]:
        """Tasks whose own solution does not pass, and what is said of it."""
        said = {}
        for key, task in self._tasks.items():
            judged = self.judge(Task(id=key, split=task["split"]), task["solution"])
            if not judged.success:
                said[key] = judged.message
        return said

    def close(self) -> None:
        """Close the boxes. May be called twice."""
        self.boxes.close()


def build(
    *, path: str, attempts: int = 1, feedback: Feedback = "failure", check: bool = False, unsafe: bool = False
) -> TaskFileWorld:
    """Functions to write, from a file of tasks.

    Args:
        path: what `rollwright import mbpp` or `rollwright import humaneval` wrote.
        attempts: submissions per episode.
        feedback: "failure" tells the first failing test, "none" only that it was wrong.
        check: judge every task's own solution first, and refuse a file with one that does not pass.
        unsafe: run programs without a sandbox where this machine has none.

    Raises:
        ConfigError: no such file, an option has no such value, or a solution does not pass.
        DataError: a line of the file is no task.
    """
    check_choices("code.task_file", feedback=(feedback, Feedback))
    check_positive("code.task_file", attempts=attempts)
    world = TaskFileWorld(read_tasks(Path(path)), attempts=attempts, feedback=feedback, unsafe=unsafe)
    if check and (bad := world.unsolved()):
        world.close()
        shown = "; ".join(f"{key}: {said}" for key, said in list(bad.items())[:5])
        raise ConfigError(f"{path}: the solutions of {len(bad)} tasks do not pass their own tests: {shown}")
    return world
