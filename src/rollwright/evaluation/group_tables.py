"""Comparisons of groups as text, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rollwright.evaluation.comparison import Comparison
from rollwright.evaluation.comparison_tables import MOST_ROWS, align, cost_text, left_out_rows, p_text
from rollwright.evaluation.evaluation_files import without_infinity
from rollwright.evaluation.group_comparison import Contrast, GroupComparison
from rollwright.maths.statistics import Interval, PairedDifference

PROCEDURES = {
    "holm": "Holm: the chance of any wrong claim is held",
    "benjamini-hochberg": "Benjamini-Hochberg: the share of wrong claims is held, for screening",
}


def format_groups(found: GroupComparison) -> str:
    """Aggregates of every group, its tasks, the comparisons with raw and adjusted p-values, costs, and the verdicts."""
    # All groups have the same aggregates: the metric alone decides which.
    heads = ["group", "runs", *found.groups[0].aggregates]
    rows = [heads]
    rows += [
        [group.name, str(len(group.runs)), *(with_interval(interval) for interval in group.aggregates.values())]
        for group in found.groups
    ]
    shape = f"{found.metric} over {len(found.tasks)} tasks, {found.num_starts} starts that all runs finished"
    lines = [shape, *align(rows), *_few_scores(found), "", *align(_task_rows(found))]
    lines += [*left_out_rows(len(found.tasks)), ""]
    lines += align(_contrast_rows(found))
    lines.append(f"family: m = {len(found.contrasts)}, {found.family}. {PROCEDURES[found.procedure]}")
    lines += [
        f"cost per success of {group.name}: {cost_text(group.cost)}" for group in found.groups if group.cost is not None
    ]
    lines += [f"world: {found.world}"] if found.world else []
    lines += [f"warning: {warning}" for warning in found.warnings]
    return "\n".join([*lines, *(contrast.verdict() for contrast in found.contrasts)])


def with_interval(interval: Interval) -> str:
    """'0.512 [0.431, 0.603]'; the point alone where there is no interval."""
    # Infinite where either end is.
    return str(interval) if math.isfinite(interval.high - interval.low) else f"{interval.point:.3f}"


def _few_scores(found: GroupComparison) -> list[str]:
    small = min(group.scores.size for group in found.groups)
    if small >= 8:
        return []
    return [f"IQM: with {small} scores (runs x tasks) it is nearly a median"]


def _task_rows(found: GroupComparison) -> list[list[str]]:
    rows = [["task", *(group.name for group in found.groups)]]
    for index, task in enumerate(found.tasks[:MOST_ROWS]):
        rows.append([task, *(f"{group.scores[:, index].mean():.3f}" for group in found.groups)])
    return rows


def _contrast_rows(found: GroupComparison) -> list[list[str]]:
    # All intervals of a family have one level.
    level = found.contrasts[0].difference.interval.confidence
    rows = [["comparison", f"difference ({level:.4g} CI)", "P(better)", "p", "adjusted p"]]
    for one in found.contrasts:
        difference = one.difference
        i = difference.interval
        rows.append(
            [
                f"{difference.name_b} - {difference.name_a}",
                f"{i.point:+.3f} [{i.low:.3f}, {i.high:.3f}]",
                with_interval(one.improvement),
                p_text(difference.p_value),
                p_text(one.adjusted_p),
            ]
        )
    return rows


def comparison_json(found: Comparison | GroupComparison) -> str:
    """Everything a comparison found, as one JSON document. What is not finite becomes null."""
    document = _of_groups(found) if isinstance(found, GroupComparison) else _of_two(found)
    return json.dumps(without_infinity(document), indent=1, allow_nan=False)


def _of_two(found: Comparison) -> dict[str, Any]:
    plain = asdict(found)
    for name, difference in (("success", found.success), ("returns", found.returns)):
        plain[name] = _difference(difference) if difference is not None else None
    # Properties and methods, which `asdict` leaves out.
    return plain | {"target": found.target, "verdict": found.verdict()}


def _difference(one: PairedDifference) -> dict[str, Any]:
    more = {"decided": one.decided, "more_units_needed": one.more_units_needed, "verdict": one.verdict()}
    return asdict(one) | more


def _of_groups(found: GroupComparison) -> dict[str, Any]:
    groups = [
        {
            "name": group.name,
            "runs": list(group.runs),
            # `json` takes no array of numpy.
            "scores": group.scores.tolist(),
            "aggregates": {what: asdict(interval) for what, interval in group.aggregates.items()},
            "profile": group.profile.tolist(),
            "cost_per_success": None if group.cost is None else asdict(group.cost),
        }
        for group in found.groups
    ]
    return {
        "metric": found.metric,
        "tasks": list(found.tasks),
        "num_starts": found.num_starts,
        "target": found.target,
        "confidence": found.confidence,
        "world": found.world,
        "groups": groups,
        "thresholds": found.thresholds.tolist(),
        "procedure": found.procedure,
        "family": found.family,
        "num_comparisons": len(found.contrasts),
        "comparisons": [_contrast(one) for one in found.contrasts],
        "warnings": list(found.warnings),
    }


def _contrast(one: Contrast) -> dict[str, Any]:
    return {
        **_difference(one.difference),
        "adjusted_p": one.adjusted_p,
        "claimed": one.claimed,
        "probability_of_improvement": asdict(one.improvement),
        "verdict": one.verdict(),
    }


def comparison_csv(found: Comparison | GroupComparison) -> str:
    """The scores behind a comparison: one line per group, run and task."""
    text = io.StringIO()
    # `csv` ends lines by CR LF otherwise.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "run", "task", "score"])
    writer.writerows(_scores_of_groups(found) if isinstance(found, GroupComparison) else _scores_of_two(found))
    return text.getvalue()


def _scores_of_groups(found: GroupComparison) -> Iterator[list[object]]:
    for group in found.groups:
        for run, scores in zip(group.runs, group.scores.tolist(), strict=True):
            for task, score in zip(found.tasks, scores, strict=True):
                yield [_plain(group.name), _plain(run), _plain(task), score]


def _scores_of_two(found: Comparison) -> Iterator[list[object]]:
    for side, name in enumerate((found.name_a, found.name_b)):
        for task, scores in found.per_task.items():
            yield [_plain(name), _plain(name), _plain(task), scores[side]]


def _plain(name: str) -> str:
    # A spreadsheet takes a cell that begins so for a formula; names of tasks and runs come from others.
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
