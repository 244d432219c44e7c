"""Write unit tests for a given function; judged by how many wrong versions of it the tests notice.

The tests must pass on the function itself, three times: those that fail at random test nothing. The reward, part
`mutation`, is then the share of mutants on which a test fails; success asks for `needed_frac` of them. Function and
tests run in different boxes, in an order drawn afresh, and the tests can do nothing with the function but call it: to
tell a mutant from the original they have to test.

Task params name the function under test (`focal`), as the reward `static_quality` needs it.
Sources: arXiv:2310.02368 (RLSQM: generated tests, their quality); mutation score as in the testing literature.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from rollwright.contracts import ConfigError, Observation, Split, Task
from rollwright.envs.code.judging import Case, Verdict, judge_tests, same
from rollwright.envs.code.problems.specifications import FAMILIES, MAX_STEPS, Specification, from_params, specifications
from rollwright.envs.code.repairs.mutation import mutations
from rollwright.envs.code.sandbox import BoxPool, Limits
from rollwright.envs.code.submission import (
    EXECUTION,
    SNAPSHOTS,
    Feedback,
    Judgement,
    KnownAnswer,
    SubmissionEnvironment,
    check_positive,
    extract_code,
)
from rollwright.envs.code.synthesis import neighbours

LIMITS = Limits(wall_s=3.0, cpu_s=2, memory_mib=256, file_mib=1, output_kib=16, answers_kib=256, disk_mib=1)
INSTRUCTIONS = (
    "Write unit tests for the Python function f. Answer with functions whose names begin with test, alone or in one "
    "fenced block; f is there already. Good tests pass for f and fail for versions of it that are slightly wrong."
)
JUDGE_S = 15.0
"""Seconds for all programs together. Honest tests need a hundredth; without it endless tests cost 3 s per mutant."""
RUNS_ON_F = 3
"""Times that tests must pass on f itself. Those that fail at random, with a chance q each time, notice mutants without
testing: that earns (1 - q)^3 q of the part, 0.105 at best, where one run would let it earn 0.25."""
TEACHERS_CASES = 12
LONGEST_BITS = 4096
"""Of a mutant's answers: longer ones take seconds to compute, and Python writes out no number beyond 4300 digits."""


@cache
def mutants(spec: Specification, count: int) -> tuple[str, ...]:
    """Wrong versions of a reference: mutations of its text, then specifications that differ in one step.

    All differ from the reference on some of 40 inputs; one per behaviour.
    """
    source, cases = spec.code(), sorted(spec.cases(40, "mutants"), key=_growth)
    found: dict[str, str] = {}
    for text in [*(m.apply(source) for m in mutations(source)), *(other.code() for other in neighbours(spec))]:
        outputs = _outputs(text, cases)
        if outputs is None or all(same(got, case.expected) for got, case in zip(outputs, cases, strict=True)):
            continue
        found.setdefault(repr(outputs), text)
    chosen = list(found.values())
    random.Random(source).shuffle(chosen)
    return tuple(chosen[:count])


def _growth(case: Case) -> int:
    """Small numbers first: they are how often a recurrence repeats its steps."""
    return abs(case.args[0]) if isinstance(case.args[0], int) else 0


def _outputs(text: str, cases: Sequence[Case]) -> list[object] | None:
    """What a mutant gives; None where its numbers explode, as those of squares without their remainder do."""
    found: list[object] = []
    for case in cases:
        found.append(_output(text, case.args[0]))
        if isinstance(found[-1], int) and found[-1].bit_length() > LONGEST_BITS:
            return None
    return found


def _output(text: str, x: object) -> object:
    """What a mutant gives; an error counts as an answer of its own. The text is ours, made from the tables."""
    space: dict[str, object] = {}
    try:
        exec(text, space)
        function = space["f"]
        assert callable(function)
        return function(x)
    except Exception as error:
        return type(error).__name__


class UnitTestsWorld:
    """Functions that want tests. Build it with `build`."""

    name = "code.unit_tests"
    instructions = INSTRUCTIONS
    execution = EXECUTION
    snapshots = SNAPSHOTS
    max_turns = 1
    attempts = 1
    feedback: Feedback = "none"

    def __init__(
        self,
        *,
        families: Sequence[str],
        difficulty: int,
        tasks_per_family: int,
        held_out_per_family: int,
        num_mutants: int,
        needed_frac: float,
        unsafe: bool,
    ) -> None:
        self.families, self.difficulty = tuple(families), difficulty
        self.boxes = BoxPool(limits=LIMITS, unsafe=unsafe)
        self._counts = {"train": tasks_per_family, "validation": held_out_per_family, "test": held_out_per_family}
        self._num_mutants, self._needed_frac = num_mutants, needed_frac

    def tasks(self, split: Split) -> list[Task]:
        """The tasks of a split: functions to test, drawn from the split's own seeds."""
        return [
            Task(id=f"{spec.family}/{self.difficulty}/{i}", split=split, params={**spec.as_params(), "focal": "f"})
            for family in self.families
            for i, spec in enumerate(specifications(family, self.difficulty, split, self._counts[split]))
        ]

    def make(self) -> SubmissionEnvironment:
        """A fresh environment; all share the world's boxes."""
        return SubmissionEnvironment(self)

    def observe(self, task: Task) -> Observation:
        """The function and what it should do."""
        spec = from_params(task.params)
        return Observation(text=spec.code(), goal=f"Write tests for f: {FAMILIES[spec.family].says}; {spec.words}.")

    def judge(self, task: Task, text: str) -> Judgement:
        """Run the tests on the function and on mutants of it, in an order that the tests cannot guess."""
        spec, tests = from_params(task.params), extract_code(text)
        programs = [*[spec.code()] * RUNS_ON_F, *mutants(spec, self._num_mutants)]
        order = list(range(len(programs)))
        random.SystemRandom().shuffle(order)  # the tests must not learn from the order which one is the original
        deadline, verdicts = time.monotonic() + JUDGE_S, dict[int, Verdict]()
        for i in order:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return Judgement(parts={"mutation": 0.0}, success=False, message="The tests take too long.")
            verdicts[i] = self._run(programs[i], tests, min(LIMITS.wall_s, max(0.1, left_s)))
            if i < RUNS_ON_F and not verdicts[i].success:
                why = verdicts[i].message or "there is no test"
                return Judgement(parts={"mutation": 0.0}, success=False, message=f"The tests fail on f itself. {why}")
        noticed = sum(not verdicts[i].success for i in range(RUNS_ON_F, len(programs))) / (len(programs) - RUNS_ON_F)
        return Judgement(
            parts={"mutation": noticed},
            success=noticed >= self._needed_frac,
            message=f"The tests notice {noticed:.0%} of the wrong versions.",
        )

    def _run(self, program: str, tests: str, wall_s: float) -> Verdict:
        limits = replace(LIMITS, wall_s=wall_s)
        with self.boxes.pair() as (one, other):
            return judge_tests(
                one, other, program={"code": program}, tests={"tests": tests}, names=["f"], limits=limits, trusted=False
            )

    def next_attempt(self, judgement: Judgement) -> str:
        """What tests that are not good enough are answered with."""
        return judgement.message

    def teacher(self, task: Task) -> KnownAnswer:
        """Hands in many cases of the function itself."""
        spec = from_params(task.params)
        lines = [f"    assert f({c.args[0]!r}) == {c.expected!r}" for c in spec.cases(TEACHERS_CASES, "teacher")]
        return KnownAnswer("\n".join(["def test_f_on_many_inputs():", *lines]))

    def close(self) -> None:
        """Close the boxes. May be called twice."""
        self.boxes.close()


def build(
    *,
    families: Sequence[str] = tuple(FAMILIES),
    difficulty: int = 2,
    tasks_per_family: int = 50,
    held_out_per_family: int = 10,
    num_mutants: int = 6,
    needed_frac: float = 0.8,
    unsafe: bool = False,
) -> UnitTestsWorld:
    """Unit-test writing.

    Args:
        families, difficulty, tasks_per_family, held_out_per_family: of the functions, as in code.synthesis.
        num_mutants: wrong versions per function, at most.
        needed_frac: share of them that must be noticed for success.
        unsafe: run programs without a sandbox where this machine has none.

    Raises:
        ConfigError: an option has no such value.
    """
    check_positive("code.unit_tests", difficulty=difficulty, num_mutants=num_mutants, tasks_per_family=tasks_per_family)
    check_positive("code.unit_tests", held_out_per_family=held_out_per_family)
    if difficulty > MAX_STEPS:
        raise ConfigError(f"code.unit_tests needs a difficulty of at most {MAX_STEPS}, got {difficulty}")
    if not families or any(family not in FAMILIES for family in families):
        raise ConfigError(f"code.unit_tests has no families {list(families)}; expected some of {', '.join(FAMILIES)}")
    if not 0.0 < needed_frac <= 1.0:
        raise ConfigError(f"code.unit_tests needs needed_frac within (0, 1], got {needed_frac}")
    return UnitTestsWorld(
        families=families,
        difficulty=difficulty,
        tasks_per_family=tasks_per_family,
        held_out_per_family=held_out_per_family,
        num_mutants=num_mutants,
        needed_frac=needed_frac,
        unsafe=unsafe,
    )
