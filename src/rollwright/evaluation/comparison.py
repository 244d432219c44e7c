"""Two evaluations side by side: the same episodes paired, their difference with an interval and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rollwright.contracts import DataError
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.maths.statistics import PairedDifference, paired_difference

Pair = tuple[EpisodeRow, EpisodeRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A over the episodes that both finished. Rates and differences leave every other episode out.

    `success` is None where the tasks give no verdict. `warnings` say what makes the two less comparable.
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

    def verdict(self) -> str:
        """One sentence on success, or on the return where no task gives a verdict."""
        return (self.success or self.returns).verdict()


def compare(
    a: Evaluation,
    b: Evaluation,
    *,
    name_a: str = "A",
    name_b: str = "B",
    fixed_tasks: bool | None = None,
    confidence: float = 0.95,
    repetitions: int = 2000,
) -> Comparison:
    """Pair by task, seed and attempt; bootstrap the difference clustered by task.

    Args:
        a: the earlier or the baseline.
        b: the later.
        name_a: for the verdict.
        name_b: for the verdict.
        fixed_tasks: True speaks about exactly these tasks, False about tasks like these; None takes the second
            wherever there are two tasks or more.
        confidence: 0.95 for a 95 % interval.
        repetitions: bootstrap draws.

    Raises:
        DataError: no episode is in both, or too few for an interval.
    """
    pairs, lost = _pairs(a, b)
    tasks = {first.task for first, _ in pairs}
    fixed = len(tasks) < 2 if fixed_tasks is None else fixed_tasks
    judged = [pair for pair in pairs if pair[0].success is not None and pair[1].success is not None]

    def difference(chosen: Sequence[Pair], value: Callable[[EpisodeRow], float]) -> PairedDifference:
        first, second = _start_means(chosen, value)
        try:
            return paired_difference(
                first,
                second,
                generator=np.random.default_rng(0),
                pair_episodes=True,
                fixed_tasks=fixed,
                name_a=name_a,
                name_b=name_b,
                repetitions=repetitions,
                confidence=confidence,
            )
        except ValueError as error:
            raise DataError(f"{name_a} and {name_b} cannot be compared: {error}") from error

    keys_a, keys_b = {row.key for row in a.rows}, {row.key for row in b.rows}
    return Comparison(
        name_a=name_a,
        name_b=name_b,
        success=difference(judged, lambda row: float(bool(row.success))) if judged else None,
        returns=difference(pairs, lambda row: row.total_return),
        per_task=_per_task(judged or pairs, "success" if judged else "return"),
        num_pairs=len(pairs),
        num_only_a=len(keys_a - keys_b),
        num_only_b=len(keys_b - keys_a),
        num_lost_to_faults=lost,
        warnings=tuple(_warnings(a, b, name_a, name_b, fixed_tasks)),
    )


def _pairs(a: Evaluation, b: Evaluation) -> tuple[list[Pair], int]:
    """The pairs that neither side lost to a fault or for want of room in the context, and how many were lost."""
    of_b = {row.key: row for row in b.rows}
    both = [(row, of_b[row.key]) for row in a.rows if row.key in of_b]
    if not both:
        raise DataError(_why_unpaired(a, b))
    whole = [pair for pair in both if not any(row.is_fault or row.had_no_room for row in pair)]
    if not whole:
        raise DataError(
            f"all {len(both)} episodes that {a.name} and {b.name} share were lost to faults in one of them, or for "
            "want of room in the context"
        )
    return whole, len(both) - len(whole)


def _why_unpaired(a: Evaluation, b: Evaluation) -> str:
    start = f"{a.name} and {b.name} have no episode in common, so they cannot be paired: "
    if a.split != b.split:
        return start + f"one is of split {a.split!r}, the other of {b.split!r}. Evaluate both on the same split"
    if not set(a.tasks) & set(b.tasks):
        return (
            start + f"their tasks differ ({_some(a.tasks)} against {_some(b.tasks)}). Evaluate both on the same tasks"
        )
    return start + "they played the same tasks from other seeds. Evaluate both with the same seeds"


def _start_means(
    pairs: Sequence[Pair], value: Callable[[EpisodeRow], float]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """task -> one number per start state, the mean over its paired attempts, for either side in the same order."""
    starts: dict[str, dict[int, list[Pair]]] = {}
    for pair in pairs:
        starts.setdefault(pair[0].task, {}).setdefault(pair[0].seed, []).append(pair)
    sides = [
        {
            task: [fmean(value(pair[side]) for pair in start) for start in seeds.values()]
            for task, seeds in starts.items()
        }
        for side in (0, 1)
    ]
    return sides[0], sides[1]


def _per_task(pairs: Sequence[Pair], what: str) -> dict[str, tuple[float, float]]:
    first, second = _start_means(pairs, lambda row: float(bool(row.success)) if what == "success" else row.total_return)
    return {task: (fmean(first[task]), fmean(second[task])) for task in first}


def _warnings(a: Evaluation, b: Evaluation, name_a: str, name_b: str, fixed_tasks: bool | None) -> list[str]:
    found = []
    for tasks, name in ((set(a.tasks) - set(b.tasks), name_a), (set(b.tasks) - set(a.tasks), name_b)):
        if tasks:
            found.append(f"only {name} has {len(tasks)} tasks, left out: {_some(sorted(tasks))}")
    if unlike := _unlike_worlds(a, b, name_a, name_b):
        found.append(unlike)
    if a.temperature != b.temperature:
        found.append(
            f"{name_a} was sampled at temperature {a.temperature:g}, {name_b} at {b.temperature:g}: "
            "greedy and sampled scores are different quantities"
        )
    for evaluation, name in ((a, name_a), (b, name_b)):
        if evaluation.fault_frac > 0.05:
            found.append(f"{evaluation.fault_frac:.0%} of {name}'s episodes faulted; what is left may be the easy ones")
    if fixed_tasks is None and len(set(a.tasks) & set(b.tasks)) == 1:
        found.append("one shared task: the interval speaks about this task alone")
    return found


def _unlike_worlds(a: Evaluation, b: Evaluation, name_a: str, name_b: str) -> str:
    """What tells the worlds of the two apart; "" where nothing does, or where one of them was written without."""
    marks = [(one.world, one.world_version, one.world_fingerprint) for one in (a, b)]
    if marks[0] == marks[1] or not all(any(mark) for mark in marks):
        return ""
    said = [f"{world} version {version}, built as {fingerprint[:8]}" for world, version, fingerprint in marks]
    return (
        f"{name_a} was played in {said[0]}, {name_b} in {said[1]}: the worlds are not alike, and a difference may be "
        "theirs"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
