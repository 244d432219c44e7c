"""Two evaluations side by side: the same episodes paired, their difference with an interval and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rollwright.contracts import DataError
from rollwright.evaluation.attempt_figures import attempt_differences
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.evaluation.pairing import (
    Pair,
    Scores,
    check_worlds,
    chosen_target,
    num_starts,
    pair_episodes,
    return_of,
    side_scores,
    success_of,
    unlike_warnings,
    world_of,
)
from rollwright.evaluation.success_cost import SuccessCost, success_cost
from rollwright.maths.statistics import PairedDifference, Target, benjamini_hochberg, paired_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScreen:
    """One task of a comparison. The adjusted p-value screens all tasks at once (Benjamini-Hochberg); both p-values are
    None where no task has two starts."""

    task: str
    a: float
    b: float
    p_value: float | None
    adjusted_p: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A over the episodes that both finished. Rates and differences leave every other episode out.

    `success` is None where the tasks give no verdict. `warnings` say what makes the two less comparable, `worlds` where
    either was played. `by_attempt` holds the differences of worlds with several attempts (`attempt_differences`).
    """

    name_a: str
    name_b: str
    success: PairedDifference | None
    returns: PairedDifference
    per_task: Mapping[str, tuple[float, float]]
    num_pairs: int
    num_only_a: int
    num_only_b: int
    num_lost_to_faults: int
    warnings: tuple[str, ...]
    screen: tuple[TaskScreen, ...] = ()
    worlds: tuple[str, str] = ("", "")
    costs: tuple[SuccessCost | None, SuccessCost | None] = (None, None)
    by_attempt: Mapping[str, PairedDifference] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """What the verdict speaks about: these tasks, or tasks like these."""
        return (self.success or self.returns).target

    def verdict(self) -> str:
        """One sentence on success, or on the return where no task gives a verdict; it names unlike worlds."""
        said = (self.success or self.returns).verdict()
        if all(self.worlds) and self.worlds[0] != self.worlds[1]:
            said += f"; across versions: {self.name_a} in {self.worlds[0]}, {self.name_b} in {self.worlds[1]}"
        return said


def compare(
    a: Evaluation,
    b: Evaluation,
    *,
    name_a: str = "A",
    name_b: str = "B",
    target: Target | None = None,
    across_versions: bool = False,
    confidence: float = 0.95,
) -> Comparison:
    """Pair by task, seed and attempt; the difference with an interval clustered by task.

    Args:
        a: the earlier or the baseline.
        b: the later.
        name_a: for the verdict.
        name_b: for the verdict.
        target: "these" speaks about exactly these tasks, "like-these" about tasks like them; None takes the first where
            every task has two starts or more (`chosen_target`).
        across_versions: compare also where worlds, rules or task lists differ; the verdict says so.
        confidence: 0.95 for a 95 % interval.

    Raises:
        DataError: no episode is in both, too few for an interval, or the two were played in unlike worlds.
    """
    warnings = check_worlds(a, b, name_a, name_b, across_versions=across_versions)
    pairing = pair_episodes(a, b)
    judged = pairing.judged
    # By the pairs that are left: faults may have taken all starts but one of a task.
    aim = chosen_target((first for first, _ in pairing.pairs), target)

    def difference(pairs: Sequence[Pair], value: Callable[[EpisodeRow], float]) -> PairedDifference:
        first, second = side_scores(pairs, value)
        try:
            return paired_difference(
                first, second, pair_episodes=True, target=aim, name_a=name_a, name_b=name_b, confidence=confidence
            )
        except ValueError as error:
            raise DataError(f"{name_a} and {name_b} cannot be compared: {error}") from error

    # Returns compare every pair: an episode without a verdict has a return all the same.
    scores = side_scores(judged, success_of) if judged else side_scores(pairing.pairs, return_of)
    screen = _screen(*scores)
    return Comparison(
        name_a=name_a,
        name_b=name_b,
        success=difference(judged, success_of) if judged else None,
        returns=difference(pairing.pairs, return_of),
        per_task={one.task: (one.a, one.b) for one in screen},
        num_pairs=len(pairing.pairs),
        num_only_a=pairing.num_only_a,
        num_only_b=pairing.num_only_b,
        num_lost_to_faults=pairing.num_lost_to_faults,
        warnings=tuple(
            [*warnings, *unlike_warnings(a, b, name_a, name_b), *_scope_warnings(pairing.pairs, target, aim)]
        ),
        screen=screen,
        worlds=(world_of(a), world_of(b)),
        # Over the shared episodes: other tasks cost more or less by themselves.
        costs=(success_cost(a, [first for first, _ in judged]), success_cost(b, [second for _, second in judged])),
        by_attempt=attempt_differences(pairing.pairs, target=aim, name_a=name_a, name_b=name_b, confidence=confidence),
    )


def _screen(first: Scores, second: Scores) -> tuple[TaskScreen, ...]:
    """Every task by itself. Tasks with one start have no p-value; the others are one family."""
    raw: dict[str, float] = {}
    for task in first:
        # A task with one observation has no spread to test against.
        if len(first[task]) > 1:
            one = {task: first[task]}, {task: second[task]}
            # A single task says nothing about tasks like it, so the target of the comparison does not count here.
            raw[task] = paired_difference(*one, pair_episodes=True, target="these").p_value
    # The procedure refuses an empty family.
    adjusted = dict(zip(raw, benjamini_hochberg(list(raw.values())), strict=True)) if raw else {}
    return tuple(
        TaskScreen(
            task=task,
            a=fmean(first[task]),
            b=fmean(second[task]),
            p_value=raw.get(task),
            adjusted_p=adjusted.get(task),
        )
        for task in first
    )


def _scope_warnings(pairs: Sequence[Pair], wanted: Target | None, target: Target) -> list[str]:
    starts = num_starts(first for first, _ in pairs)
    found = []
    # Whoever named the target is not told what it means.
    if wanted is None and len(starts) == 1:
        found.append("one shared task: the interval speaks about this task alone")
    # The mixed case alone is told: with one start everywhere such a verdict is what one expects.
    lonely = sum(count < 2 for count in starts.values())
    if wanted is None and target == "like-these" and lonely < len(starts):
        what = "one task has" if lonely == 1 else f"{lonely} tasks have"
        found.append(f"{what} a single start left, so the verdict speaks about tasks like these, not about these tasks")
    return found
