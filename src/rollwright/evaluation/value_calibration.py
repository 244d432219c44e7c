"""The calibration report of an outcome model: one object with every figure, as JSON and as a page of Markdown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rollwright.contracts import RunFolderError
from rollwright.maths.statistics import (
    Bin,
    Confusion,
    Interval,
    area_under_curve,
    brier_score,
    calibration_bins,
    confusion,
    expected_calibration_error,
    wilson_interval,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """One task's share of the held-out episodes."""

    task: str
    count: int
    success_rate: Interval
    accuracy: Interval
    mean_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How good a judge is on episodes it was not trained on. Intervals are Wilson's, 95 %.

    auc: None where only one class is there. brier_constant: of always saying the success rate. ece: expected
    calibration error over `bins`. num_unread: episodes that the model could not judge; they are in no figure.
    """

    num_train: int
    num_held_out: int
    num_unread: int
    threshold: float
    success_rate: Interval
    accuracy: Interval
    precision: Interval | None
    recall: Interval | None
    specificity: Interval | None
    auc: float | None
    brier: float
    brier_constant: float
    ece: float
    confusion: Confusion
    bins: tuple[Bin, ...]
    by_task: tuple[TaskLine, ...]


def calibrate(
    labels: Sequence[bool],
    probabilities: Sequence[float | None],
    tasks: Sequence[str],
    *,
    threshold: float = 0.5,
    num_train: int = 0,
    num_bins: int = 10,
) -> Calibration:
    """Every figure of the report; labels, probabilities and tasks [N], one entry per held-out episode.

    Raises:
        ValueError: no episode was judged, or lengths differ.
    """
    judged = [(label, p, task) for label, p, task in zip(labels, probabilities, tasks, strict=True) if p is not None]
    truth, given = [float(label) for label, _, _ in judged], [p for _, p, _ in judged]
    counts = confusion(truth, given, threshold)
    bins = calibration_bins(truth, given, num_bins=num_bins)
    rate = wilson_interval(int(sum(truth)), len(truth))
    return Calibration(
        num_train=num_train,
        num_held_out=len(judged),
        num_unread=len(labels) - len(judged),
        threshold=threshold,
        success_rate=rate,
        accuracy=counts.accuracy,
        precision=counts.precision,
        recall=counts.recall,
        specificity=counts.specificity,
        auc=area_under_curve(truth, given),
        brier=brier_score(truth, given),
        # The mean of (q - y)^2 over outcomes y of rate q.
        brier_constant=rate.point * (1 - rate.point),
        ece=expected_calibration_error(bins),
        confusion=counts,
        bins=tuple(bins),
        by_task=tuple(_task_lines(judged, threshold)),
    )


def _task_lines(judged: Sequence[tuple[bool, float, str]], threshold: float) -> list[TaskLine]:
    of_task: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for label, probability, task in judged:
        of_task[task].append((label, probability))
    return [
        TaskLine(
            task=task,
            count=len(rows),
            success_rate=wilson_interval(sum(label for label, _ in rows), len(rows)),
            # At the threshold an episode is called a success, as in `confusion`.
            accuracy=wilson_interval(sum(label == (p >= threshold) for label, p in rows), len(rows)),
            mean_probability=float(np.mean([p for _, p in rows])),
        )
        for task, rows in sorted(of_task.items())
    ]


def format_calibration(found: Calibration) -> str:
    """The report as Markdown."""
    c = found.confusion
    rows: list[tuple[str, object]] = [
        ("held-out episodes", f"{found.num_held_out} ({found.num_train} for training, {found.num_unread} not judged)"),
        ("success rate", found.success_rate),
        (f"accuracy at {found.threshold:.3g}", found.accuracy),
        ("precision", found.precision),
        ("recall", found.recall),
        ("specificity", found.specificity),
        ("AUC", "one class only" if found.auc is None else f"{found.auc:.3f}"),
        ("Brier score", f"{found.brier:.4f} (always saying the success rate: {found.brier_constant:.4f})"),
        ("expected calibration error", f"{found.ece:.4f}"),
    ]
    lines = [
        "# Calibration of the outcome model",
        "",
        "Intervals: Wilson, 95 %.",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    lines += [f"| {name} | {'none' if value is None else value} |" for name, value in rows]
    lines += ["", "| | called success | called failure |", "|---|---|---|"]
    lines += [f"| success | {c.true_positives} | {c.false_negatives} |"]
    lines += [f"| failure | {c.false_positives} | {c.true_negatives} |"]
    lines += ["", "| P(success) | episodes | mean P | success rate |", "|---|---|---|---|"]
    lines += [
        f"| {b.low:.2f} to {b.high:.2f} | {b.count} | {b.mean_probability:.3f} | {b.success_rate} |"
        for b in found.bins
        # An empty bin has no rate.
        if b.count
    ]
    lines += ["", "| task | episodes | success rate | mean P | accuracy |", "|---|---|---|---|---|"]
    lines += [
        f"| {_cell(t.task)} | {t.count} | {t.success_rate} | {t.mean_probability:.3f} | {t.accuracy} |"
        for t in found.by_task
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    # A bar or a line break would end the cell of a Markdown table.
    return text.replace("|", "\\|").replace("\n", " ")


def save_calibration(found: Calibration, run_folder: Path) -> Path:
    """Write `eval/calibration.json` and `.md`; returns the JSON's path.

    Raises:
        RunFolderError: they cannot be written.
    """
    folder = run_folder / "eval"
    document = {"calibration_version": 1} | _plain(asdict(found))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "calibration.md").write_text(format_calibration(found), encoding="utf-8")
        path = folder / "calibration.json"
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"the calibration report cannot be written to {folder}: {error.strerror}") from error
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
