"""Figures by attempt, for worlds that let a task be tried more than once in one episode.

Accuracy of each attempt, the gain from the first to the last one, what became right and what became wrong, and how much
of the text changed. An episode that ended with an earlier attempt keeps the outcome of that one. An attempt is right
where it earned more than half a point; attempts that earn something between 0 and 1 are said to be graded.

Source of the figures: arXiv:2409.12917, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.evaluation.evaluation_summary import by_start, interval_over_tasks, start_means
from rollwright.evaluation.pairing import Pair, chosen_target, side_scores
from rollwright.maths.statistics import Interval, PairedDifference, Target, paired_difference

RIGHT_ABOVE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFigures:
    """Means over tasks, as the success rate is. `gain` = `wrong_to_right` - `right_to_wrong`: all three are shares of
    all episodes. The edit figures are None where no episode had a second attempt."""

    accuracy: tuple[Interval, ...]
    gain: Interval
    wrong_to_right: float
    right_to_wrong: float
    edit_ratio_mean: float | None
    unedited_frac: float | None
    num_episodes: int
    graded_frac: float


def attempt_figures(
    evaluation: Evaluation, *, target: Target | None = None, confidence: float = 0.95
) -> AttemptFigures | None:
    """The figures of an evaluation; None where its episodes have one attempt each.

    Args:
        target: as in `summarise`.
        confidence: 0.95 for 95 % intervals.
    """
    rows = with_attempts(evaluation.scored)
    if not rows:
        return None
    aim = chosen_target(rows, target)
    count = max(len(row.attempt_rewards) for row in rows)

    def interval(value: Callable[[EpisodeRow], float]) -> Interval:
        found = interval_over_tasks(start_means(by_start(rows, value)), aim, confidence)
        assert found is not None  # there are rows
        return found

    def share(value: Callable[[EpisodeRow], bool]) -> float:
        return fmean(fmean(starts) for starts in start_means(by_start(rows, value)).values())

    earned = [reward for row in rows for reward in row.attempt_rewards]
    edits = [edit for row in rows for edit in row.attempt_edits]
    return AttemptFigures(
        accuracy=tuple(interval(lambda row, number=number: right_at(row, number)) for number in range(count)),  # type: ignore[misc]
        gain=interval(gain_of),
        wrong_to_right=share(lambda row: gain_of(row) > 0),
        right_to_wrong=share(lambda row: gain_of(row) < 0),
        edit_ratio_mean=fmean(edits) if edits else None,
        unedited_frac=fmean(edit == 0 for edit in edits) if edits else None,
        num_episodes=len(rows),
        graded_frac=fmean(reward not in (0.0, 1.0) for reward in earned),
    )


def with_attempts(rows: Sequence[EpisodeRow]) -> list[EpisodeRow]:
    """The episodes whose attempts were recorded."""
    return [row for row in rows if row.attempt_rewards]


def right_at(row: EpisodeRow, number: int) -> float:
    """1 where the attempt of this number, or the last one before it, was right; else 0."""
    return float(row.attempt_rewards[min(number, len(row.attempt_rewards) - 1)] > RIGHT_ABOVE)


def gain_of(row: EpisodeRow) -> float:
    """1 where the episode went from wrong to right between its first and its last attempt, -1 the other way, else 0."""
    return right_at(row, len(row.attempt_rewards) - 1) - right_at(row, 0)


def attempt_metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """The figures as metrics of a run, `eval/<what>`; none where there is one attempt."""
    found = attempt_figures(evaluation)
    if found is None:
        return {}
    metrics = {
        "eval/accuracy_first_frac": found.accuracy[0].point,
        "eval/accuracy_last_frac": found.accuracy[-1].point,
        "eval/attempt_gain": found.gain.point,
        "eval/wrong_to_right_frac": found.wrong_to_right,
        "eval/right_to_wrong_frac": found.right_to_wrong,
    }
    if found.edit_ratio_mean is not None and found.unedited_frac is not None:
        metrics |= {"eval/edit_ratio_mean": found.edit_ratio_mean, "eval/unedited_frac": found.unedited_frac}
    return metrics


def attempt_lines(evaluation: Evaluation) -> list[str]:
    """The figures in plain text; none where there is one attempt."""
    found = attempt_figures(evaluation)
    if found is None:
        return []
    lines = [f"right at attempt {number}: {interval}" for number, interval in enumerate(found.accuracy, 1)]
    lines.append(
        f"gain from the first to the last attempt: {found.gain.point:+.3f} "
        f"[{found.gain.low:.3f}, {found.gain.high:.3f}] = {found.wrong_to_right:.3f} wrong to right - "
        f"{found.right_to_wrong:.3f} right to wrong"
    )
    if found.edit_ratio_mean is not None:
        lines.append(
            f"edit distance between attempts: {found.edit_ratio_mean:.3f} of the longer one; "
            f"{found.unedited_frac:.1%} of the attempts repeat the one before"
        )
    if found.graded_frac:
        lines.append(
            f"graded rewards: {found.graded_frac:.1%} of the attempts earned neither 0 nor 1; here an attempt is right "
            f"above {RIGHT_ABOVE}"
        )
    return lines


def attempt_differences(
    pairs: Sequence[Pair], *, target: Target, name_a: str, name_b: str, confidence: float
) -> dict[str, PairedDifference]:
    """B minus A in the accuracy of the first attempt, of the last one, and in the gain; none where either has one
    attempt, or where too few pairs are left for an interval."""
    both = [pair for pair in pairs if all(row.attempt_rewards for row in pair)]
    values: Mapping[str, Callable[[EpisodeRow], float]] = {
        "first attempt right": lambda row: right_at(row, 0),
        "last attempt right": lambda row: right_at(row, len(row.attempt_rewards) - 1),
        "gain between attempts": gain_of,
    }
    found = {}
    for what, value in values.items() if both else ():
        first, second = side_scores(both, value)
        try:
            found[what] = paired_difference(
                first, second, pair_episodes=True, target=target, name_a=name_a, name_b=name_b, confidence=confidence
            )
        except ValueError:
            return {}
    return found
