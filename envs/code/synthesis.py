"""Write a function from its specification; hidden cases decide. One attempt, or several with the failure told.

The program runs in the sandbox and sees only its inputs; what it returns is compared outside. Reward, part `tests`: 1
for a function that passes every hidden case, else 0 (`reward="fraction"`: the share of cases passed).

Tasks are procedural (`rollwright.envs.code.problems.specifications`), the splits apart by behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from rollwright.contracts import ConfigError, FingerprintKind, Observation, Split, Task
from rollwright.envs.code.judging import judge_cases
from rollwright.envs.code.problems.specifications import (
    EXAMPLES,
    FAMILIES,
    HIDDEN_CASES,
    MAX_STEPS,
    Specification,
    from_params,
    specifications,
)
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

Wording = Literal["full", "compact"]
RewardKind = Literal["all", "fraction"]
Mistake = Literal["one_step_wrong", "last_step_left_out"]

LIMITS = Limits(wall_s=2.0, cpu_s=2, memory_mib=256, file_mib=1, output_kib=16, answers_kib=256, disk_mib=1)
INSTRUCTIONS = (
    "Write a Python function f(x) that does what is asked. Answer with the code of the function, alone or in one "
    "fenced block. It is judged by hidden cases; only the standard library is there, no files, no network."
)


class SynthesisWorld:
    """Specifications as tasks. Build it with `build`."""

    name = "code.synthesis"
    execution = EXECUTION
    snapshots = SNAPSHOTS

    def __init__(
        self,
        *,
        families: Sequence[str],
        difficulty: int,
        tasks_per_family: int,
        held_out_per_family: int,
        wording: Wording,
        attempts: int,
        feedback: Feedback,
        reward: RewardKind,
        teacher_right_frac: float,
        teacher_mistake: Mistake,
        unsafe: bool,
    ) -> None:
        self.families, self.difficulty, self.wording = tuple(families), difficulty, wording
        self.attempts, self.feedback, self.max_turns = attempts, feedback, attempts
        # What was handed in before is part of the state: after the first attempt no state is met again.
        self.fingerprint_kind: FingerprintKind = "history" if attempts > 1 else "state"
        self.instructions = INSTRUCTIONS if wording == "full" else ""
        self.boxes = BoxPool(limits=LIMITS, unsafe=unsafe)
        self._counts = {"train": tasks_per_family, "validation": held_out_per_family, "test": held_out_per_family}
        self._reward, self._right_frac, self._mistake = reward, teacher_right_frac, teacher_mistake

    def tasks(self, split: Split) -> list[Task]:
        """`tasks_per_family` of each family for training, `held_out_per_family` for each of the other splits."""
        return [
            Task(id=f"{spec.family}/{self.difficulty}/{number}", split=split, params=spec.as_params())
            for family in self.families
            for number, spec in enumerate(specifications(family, self.difficulty, split, self._counts[split]))
        ]

    def make(self) -> SubmissionEnvironment:
        """A fresh environment; all share the world's boxes."""
        return SubmissionEnvironment(self)

    def observe(self, task: Task) -> Observation:
        """The specification in words."""
        spec = from_params(task.params)
        if self.wording == "compact":
            return Observation(text=f"f ( x ) : {spec.words}")
        shown = "\n".join(f"f({case.args[0]!r}) == {case.expected!r}" for case in spec.cases(EXAMPLES, "examples"))
        return Observation(
            text=f"Examples:\n{shown}", goal=f"Write f(x), where {FAMILIES[spec.family].says}: {spec.words}."
        )

    def judge(self, task: Task, text: str) -> Judgement:
        """Run the function on the hidden cases."""
        spec = from_params(task.params)
        with self.boxes.box() as box:
            verdict, _ = judge_cases(box, extract_code(text), "f", spec.cases(HIDDEN_CASES, "hidden"))
        earned = verdict.frac if self._reward == "fraction" else float(verdict.success)
        told = "All hidden cases pass." if verdict.success else f"Wrong. {verdict.message}"
        return Judgement(parts={"tests": earned}, success=verdict.success, message=self._say(verdict.success, told))

    def next_attempt(self, judgement: Judgement) -> str:
        """What a wrong program is answered with."""
        return judgement.message if self.feedback == "failure" else self._say(False, "Not right. Try again.")

    def _say(self, success: bool, told: str) -> str:
        return ("right" if success else "wrong") if self.wording == "compact" else told

    def teacher(self, task: Task) -> KnownAnswer:
        """Hands in the program of the specification, or at times a neighbouring one."""
        spec = from_params(task.params)
        compact = self.wording == "compact"
        others = neighbours(spec) if self._mistake == "one_step_wrong" else shortened(spec)
        wrong = [other.code(compact=compact) for other in others]
        return KnownAnswer(spec.code(compact=compact), wrong, self._right_frac)

    def texts(self) -> list[str]:
        """Every step in words and code, for a tokenizer made to measure."""
        seen = ["right", "wrong", "f ( x ) : then start with 0 1 and repeat x times"]
        for task in self.tasks("train"):
            spec = from_params(task.params)
            seen += [self.observe(task).text, self.observe(task).goal, spec.code(compact=self.wording == "compact")]
        return [self.instructions, *seen]

    def close(self) -> None:
        """Close the boxes. May be called twice."""
        self.boxes.close()


AnyWorld = TypeVar("AnyWorld", bound=SynthesisWorld)


def neighbours(spec: Specification) -> list[Specification]:
    """Specifications that differ in one step: its constant, or the operation. Mistakes as a learner makes them."""
    known, found = FAMILIES[spec.family].steps, []
    for i, (name, k) in enumerate(spec.steps):
        for other, step in known.items():
            if step.ends != known[name].ends:
                continue
            constants = [c for c in step.constants if c != k] if other == name else [k]
            for constant in constants:
                if constant in step.constants:
                    steps = (*spec.steps[:i], (other, constant), *spec.steps[i + 1 :])
                    found.append(Specification(family=spec.family, steps=steps, start=spec.start))
    return [other for other in found if other.steps != spec.steps]


def shortened(spec: Specification) -> list[Specification]:
    """The specification without its last step; none where that is its only one."""
    return [replace(spec, steps=spec.steps[:-1])] if len(spec.steps) > 1 else []


def build(
    *,
    families: Sequence[str] = tuple(FAMILIES),
    difficulty: int = 2,
    tasks_per_family: int = 100,
    held_out_per_family: int = 10,
    wording: Wording = "full",
    attempts: int = 1,
    feedback: Feedback = "failure",
    reward: RewardKind = "all",
    teacher_right_frac: float = 1.0,
    teacher_mistake: Mistake = "one_step_wrong",
    unsafe: bool = False,
) -> SynthesisWorld:
    """Function synthesis.

    Args:
        families: of `specifications.FAMILIES`.
        difficulty: steps in a specification, 1 or more.
        tasks_per_family: training tasks of each family.
        held_out_per_family: validation tasks, and as many test tasks, of each family.
        wording: "full", or "compact" for tiny models (no rules, no examples, verdicts of one word).
        attempts: submissions per episode.
        feedback: "failure" tells the first failing case, without the right value; "none" only that it was wrong.
        reward: "all" or nothing, or the "fraction" of cases passed.
        teacher_right_frac: share of the teacher's answers that are right.
        teacher_mistake: what is wrong with the others: some "one_step_wrong", each time another, or always the
            "last_step_left_out", a habit that a policy which imitates it has to lose.
        unsafe: run programs without a sandbox where this machine has none.

    Raises:
        ConfigError: an option has no such value.
    """
    return make_world(
        SynthesisWorld,
        families=families,
        difficulty=difficulty,
        tasks_per_family=tasks_per_family,
        held_out_per_family=held_out_per_family,
        wording=wording,
        attempts=attempts,
        feedback=feedback,
        reward=reward,
        teacher_right_frac=teacher_right_frac,
        teacher_mistake=teacher_mistake,
        unsafe=unsafe,
    )


def make_world(
    kind: type[AnyWorld],
    *,
    families: Sequence[str],
    difficulty: int,
    tasks_per_family: int,
    held_out_per_family: int,
    wording: Wording,
    attempts: int,
    feedback: Feedback,
    reward: RewardKind,
    teacher_right_frac: float,
    teacher_mistake: Mistake = "one_step_wrong",
    unsafe: bool,
) -> AnyWorld:
    """Check the options of `build` and make a world of that kind.

    Raises:
        ConfigError: an option has no such value.
    """
    check_choices(
        kind.name,
        wording=(wording, Wording),
        feedback=(feedback, Feedback),
        reward=(reward, RewardKind),
        teacher_mistake=(teacher_mistake, Mistake),
    )
    check_positive(kind.name, difficulty=difficulty, attempts=attempts, tasks_per_family=tasks_per_family)
    check_positive(kind.name, held_out_per_family=held_out_per_family)
    if difficulty > MAX_STEPS:
        raise ConfigError(f"{kind.name} needs a difficulty of at most {MAX_STEPS}, got {difficulty}")
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise ConfigError(f"{kind.name} has no families {unknown}; expected some of {', '.join(FAMILIES)}")
    if not 0.0 <= teacher_right_frac <= 1.0:
        raise ConfigError(f"{kind.name} needs teacher_right_frac within [0, 1], got {teacher_right_frac}")
    return kind(
        families=families,
        difficulty=difficulty,
        tasks_per_family=tasks_per_family,
        held_out_per_family=held_out_per_family,
        wording=wording,
        attempts=attempts,
        feedback=feedback,
        reward=reward,
        teacher_right_frac=teacher_right_frac,
        teacher_mistake=teacher_mistake,
        unsafe=unsafe,
    )
