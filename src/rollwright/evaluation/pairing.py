"""Which episodes of two evaluations belong together, and whether the two were played in the same world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rollwright.contracts import DataError
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.maths.statistics import Target

Pair = tuple[EpisodeRow, EpisodeRow]
Scores = dict[str, list[float]]
"""task -> one number per independent observation"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """The episodes of A and B at the same task, start state and attempt, without those that either lost to a fault."""

    pairs: tuple[Pair, ...]
    num_lost_to_faults: int
    num_only_a: int
    num_only_b: int

    @property
    def judged(self) -> tuple[Pair, ...]:
        """The pairs in which both got a verdict."""
        return tuple(pair for pair in self.pairs if pair[0].success is not None and pair[1].success is not None)


def pair_episodes(a: Evaluation, b: Evaluation) -> Pairing:
    """Pair by task, seed and attempt.

    Raises:
        DataError: no episode is in both, or all that are were lost to faults.
    """
    of_b = {row.key: row for row in b.rows}
    both = [(row, of_b[row.key]) for row in a.rows if row.key in of_b]
    if not both:
        raise DataError(_why_unpaired(a, b))
    # A fault on one side takes the pair: the other episode has nothing to be compared with.
    whole = [pair for pair in both if not any(row.is_fault or row.had_no_room for row in pair)]
    if not whole:
        raise DataError(
            f"all {len(both)} episodes that {a.name} and {b.name} share were lost to faults in one of them, or the "
            "first prompt filled the context. Evaluate again"
        )
    keys_a = {row.key for row in a.rows}
    return Pairing(
        pairs=tuple(whole),
        num_lost_to_faults=len(both) - len(whole),
        num_only_a=len(keys_a - of_b.keys()),
        num_only_b=len(of_b.keys() - keys_a),
    )


def _why_unpaired(a: Evaluation, b: Evaluation) -> str:
    start = f"{a.name} and {b.name} have no episode in common, so they cannot be paired: "
    if a.split != b.split:
        return start + f"one is of split {a.split!r}, the other of {b.split!r}. Evaluate both on the same split"
    if not set(a.tasks) & set(b.tasks):
        return start + f"their tasks differ ({some(a.tasks)} against {some(b.tasks)}). Evaluate both on the same tasks"
    return start + "they played the same tasks from other seeds. Evaluate both with the same seeds"


def success_of(row: EpisodeRow) -> float:
    """1 or 0."""
    return float(bool(row.success))


def return_of(row: EpisodeRow) -> float:
    """Undiscounted return."""
    return row.total_return


def side_scores(pairs: Sequence[Pair], value: Callable[[EpisodeRow], float]) -> tuple[Scores, Scores]:
    """For either side, task -> its independent observations, in the same order on both sides.

    Attempts at one start resemble each other, so a start counts once, with the mean of its attempts. A task with one
    start (a question of a benchmark, asked several times) has nothing but its attempts: there each counts.
    """
    starts: dict[str, dict[int, list[Pair]]] = {}
    for pair in pairs:
        starts.setdefault(pair[0].task, {}).setdefault(pair[0].seed, []).append(pair)

    def observations(seeds: Mapping[int, list[Pair]], side: int) -> list[float]:
        per_start = [[value(pair[side]) for pair in start] for start in seeds.values()]
        return per_start[0] if len(per_start) == 1 else [fmean(attempts) for attempts in per_start]

    first, second = ({task: observations(seeds, side) for task, seeds in starts.items()} for side in (0, 1))
    return first, second


def chosen_target(rows: Iterable[EpisodeRow], wanted: Target | None) -> Target:
    """The target asked for; otherwise these tasks, unless a task was tried from one start only.

    A list of tasks with several starts each is what a world is about: its tasks are no sample. Hundreds of questions
    that have one start each, however often they were asked, are a sample of such questions, and only their spread tells
    the error.
    """
    if wanted is not None:
        return wanted
    starts = num_starts(rows)
    # A single task can speak about nothing but itself.
    return "these" if len(starts) < 2 or all(count > 1 for count in starts.values()) else "like-these"


def num_starts(rows: Iterable[EpisodeRow]) -> Counter[str]:
    """task -> start states of these episodes."""
    # A set first, in which all attempts at one start are one entry.
    return Counter(task for task, _ in {(row.task, row.seed) for row in rows})


def check_worlds(a: Evaluation, b: Evaluation, name_a: str, name_b: str, *, across_versions: bool) -> list[str]:
    """What is unlike about the two worlds, as warnings.

    Another release of the same world is said; another world, other rules or another list of tasks is refused.

    Raises:
        DataError: the worlds, their rules or their task lists differ, and nobody asked to compare across versions.
    """
    if "foreign" in (a.origin, b.origin):
        return []  # logs of other tools are held together by the content of their questions (`check_same_content`)
    marks = [(one.world, one.world_version, one.world_fingerprint) for one in (a, b)]
    # A record that is older than the marks has three empty texts.
    if not all(any(mark) for mark in marks):
        return _unknown_worlds(a, b, name_a, name_b)
    found = []
    if marks[0] != marks[1]:
        said = f"{name_a} was played in {world_of(a)}, {name_b} in {world_of(b)}"
        # In the order of weight: of several differences the gravest is named.
        kind = next(
            what
            for what, one, two in (
                ("these are different worlds", a.world, b.world),
                (
                    "the instructions, the step limit or the options differ",
                    a.world_fingerprint,
                    b.world_fingerprint,
                ),
                ("another release of the same rules", a.world_version, b.world_version),
            )
            if one != two
        )
        if a.world != b.world or a.world_fingerprint != b.world_fingerprint:
            _refuse(f"{said}: {kind}", across_versions)
        found.append(f"{said}: {kind}; the worlds are not alike, and a difference may come from them")
    if set(a.tasks) != set(b.tasks):
        # Pairing keeps the shared tasks alone, so the verdict would be about neither list.
        said = "; ".join(_left_out(a, b, name_a, name_b))
        _refuse(f"the task lists of {name_a} and {name_b} differ ({said})", across_versions)
    return found


def _refuse(what: str, across_versions: bool) -> None:
    if not across_versions:
        raise DataError(
            f"{what}, so a difference in scores may come from the world. Evaluate both in the same world, or compare "
            "them anyway with --across-versions (across_versions=True), which says so in the verdict"
        )


def _unknown_worlds(a: Evaluation, b: Evaluation, name_a: str, name_b: str) -> list[str]:
    silent = [name for one, name in ((a, name_a), (b, name_b)) if not one.world]
    if len(silent) == 1:
        return [f"{silent[0]} does not say which world it was played in, so the worlds may differ"]
    return []


def world_of(evaluation: Evaluation) -> str:
    """'text.maze version 0.5.0, built as 01234567'; '' where the record does not say."""
    if not evaluation.world:
        return ""
    built = f", built as {evaluation.world_fingerprint[:8]}" if evaluation.world_fingerprint else ""
    return f"{evaluation.world} version {evaluation.world_version}{built}"


def unlike_warnings(a: Evaluation, b: Evaluation, name_a: str, name_b: str) -> list[str]:
    """What else makes the two less comparable: tasks, temperatures, faults."""
    found = [f"{said}, left out" for said in _left_out(a, b, name_a, name_b)]
    # -1 stands for a log that states none, which is no difference.
    if a.temperature != b.temperature and min(a.temperature, b.temperature) >= 0:
        found.append(
            f"{name_a} was sampled at temperature {a.temperature:g}, {name_b} at {b.temperature:g}: "
            "greedy and sampled scores are different quantities"
        )
    for evaluation, name in ((a, name_a), (b, name_b)):
        # Faults need not strike at random: long episodes have more time to break.
        if evaluation.fault_frac > 0.05:
            found.append(f"{evaluation.fault_frac:.0%} of {name}'s episodes faulted; what is left may be the easy ones")
    return found


def _left_out(a: Evaluation, b: Evaluation, name_a: str, name_b: str) -> list[str]:
    found = []
    for tasks, name in ((set(a.tasks) - set(b.tasks), name_a), (set(b.tasks) - set(a.tasks), name_b)):
        if tasks:
            count = "one task" if len(tasks) == 1 else f"{len(tasks)} tasks"
            found.append(f"only {name} has {count} ({some(sorted(tasks))})")
    return found


def some(names: Sequence[str]) -> str:
    """The first four names and how many more there are."""
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
