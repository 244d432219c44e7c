"""Evaluations as the page reads them, and two of them paired episode by episode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rollwright.contracts import DataError
from rollwright.evaluation import (
    EpisodeRow,
    Evaluation,
    compare,
    format_comparison,
    format_side_by_side,
    format_table,
    summarise,
)
from rollwright.maths.statistics import Interval, PairedDifference
from rollwright.view.live.followed_run import FollowedRun


def interval_answer(interval: Interval | None) -> dict[str, float | None] | None:
    """An estimate with its bounds."""
    return None if interval is None else {"value": interval.point, "low": interval.low, "high": interval.high}


def evaluation_answer(evaluation: Evaluation) -> dict[str, Any]:
    """The figures of one evaluation, per task too."""
    found = summarise(evaluation)
    return {
        "name": evaluation.name,
        "split": evaluation.split,
        "policy": evaluation.policy,
        "version": evaluation.version,
        "temperature": evaluation.temperature,
        "world": evaluation.world,
        "world_version": evaluation.world_version,
        "world_fingerprint": evaluation.world_fingerprint,
        "success": interval_answer(found.success),
        "mean_return": interval_answer(found.mean_return),
        "pass_at": {str(k): interval_answer(value) for k, value in found.pass_at.items()},
        "num_episodes": found.num_episodes,
        "num_faults": found.num_faults,
        "text": format_table(evaluation),
        "tasks": [
            {
                "task": task.task,
                "success": interval_answer(task.success),
                "mean_return": task.mean_return,
                "mean_turns": task.mean_turns,
                "num_episodes": task.num_episodes,
                "num_faults": task.num_faults,
            }
            for task in found.tasks
        ],
    }


def progress_lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """Per split with two evaluations or more: all side by side, and the last against the first."""
    found = []
    for split in dict.fromkeys(evaluation.split for evaluation in evaluations):
        # Evaluations of two splits play other starts, so nothing of them could be paired.
        same = [evaluation for evaluation in evaluations if evaluation.split == split]
        if len(same) < 2:
            continue
        found.append(format_side_by_side({evaluation.name: evaluation for evaluation in same}))
        try:
            found.append(format_comparison(compare(same[0], same[-1], name_a=same[0].name, name_b=same[-1].name)))
        except DataError as error:
            found.append(str(error))
    return found


def comparison_answer(a: tuple[FollowedRun, Evaluation], b: tuple[FollowedRun, Evaluation]) -> dict[str, Any]:
    """Two evaluations: verdict, figures, and every episode of either beside its partner.

    Raises:
        DataError: they have no episode in common.
    """
    names = _labels(a, b)
    # Unlike worlds are no reason to show nothing: the verdict names them.
    found = compare(a[1], b[1], name_a=names[0], name_b=names[1], across_versions=True)
    rows = _paired_rows(a, b)
    # Every change is named in the answer, those that never occur too.
    counts = Counter(row["change"] for row in rows)
    return {
        "a": evaluation_answer(a[1]) | {"run": a[0].name, "label": names[0]},
        "b": evaluation_answer(b[1]) | {"run": b[0].name, "label": names[1]},
        "verdict": found.verdict(),
        "text": format_comparison(found),
        "warnings": list(found.warnings),
        "success": _difference(found.success),
        "returns": _difference(found.returns),
        "counts": {name: counts[name] for name in _CHANGES},
        "rows": rows,
    }


_CHANGES = ("won", "lost", "same", "higher", "lower", "unpaired", "faulted")


def _labels(a: tuple[FollowedRun, Evaluation], b: tuple[FollowedRun, Evaluation]) -> tuple[str, str]:
    # The shortest names that tell the two apart.
    if a[0] is b[0]:
        return a[1].name, b[1].name
    if a[1].name == b[1].name:
        return a[0].name, b[0].name
    return f"{a[0].name}/{a[1].name}", f"{b[0].name}/{b[1].name}"


def _difference(found: PairedDifference | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {"difference": found.interval.point, "low": found.interval.low, "high": found.interval.high}


def _paired_rows(a: tuple[FollowedRun, Evaluation], b: tuple[FollowedRun, Evaluation]) -> list[dict[str, Any]]:
    of_a, of_b = ({row.key: row for row in evaluation.rows} for _, evaluation in (a, b))
    rows = []
    # All keys of both: an episode that one side lacks is shown as unpaired.
    for key in dict.fromkeys([*of_a, *of_b]):
        first, second = of_a.get(key), of_b.get(key)
        task, seed, attempt = key
        rows.append(
            {
                "task": task,
                "seed": seed,
                "attempt": attempt,
                "a": None if first is None else _side(a, first),
                "b": None if second is None else _side(b, second),
                "change": change_of(first, second),
            }
        )
    return rows


def change_of(a: EpisodeRow | None, b: EpisodeRow | None) -> str:
    """How the second fared against the first: by success where both have a verdict, else by the return."""
    if a is None or b is None:
        return "unpaired"
    # A fault ended such an episode, or it had no room to begin: it compares nothing.
    if any(row.is_fault or row.had_no_room for row in (a, b)):
        return "faulted"
    if a.success is not None and b.success is not None:
        return "same" if a.success == b.success else "won" if b.success else "lost"
    if a.total_return == b.total_return:
        return "same"
    return "higher" if b.total_return > a.total_return else "lower"


def _side(owner: tuple[FollowedRun, Evaluation], row: EpisodeRow) -> dict[str, Any]:
    run, evaluation = owner
    return {
        "success": row.success,
        "reward": row.total_return,
        "turns": row.num_turns,
        "stop": row.stop_reason.value,
        "fault": row.fault,
        "key": run.key_of(row.trajectory, tag=f"eval_{evaluation.name}") if row.trajectory else None,
    }
