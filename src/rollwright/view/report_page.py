"""`report.html`: one file, no script, no network. Curves, evaluations, replays of episodes turn by turn."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rollwright.contracts import Attachment, DataError, RunFolderError, Trajectory, picture_type
from rollwright.evaluation import (
    Evaluation,
    compare,
    format_comparison,
    format_side_by_side,
    format_table,
    load_evaluation,
)
from rollwright.rollout import shares
from rollwright.run_io import RunFolder, read_metrics
from rollwright.store import Ref, TrajectoryStore
from rollwright.view.charts import line_chart
from rollwright.view.report_template import TEMPLATE
from rollwright.view.run_story import run_story
from rollwright.view.transcripts import headline, origins, outcome, turn_label, visible

log = logging.getLogger(__name__)

MAX_IMAGE_BYTES = 500_000
MAX_PAGE_BYTES = 20_000_000
"""Of all pictures in the page together: a browser must still open it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One metric's curve."""

    name: str
    last: float
    svg: Markup


def write_report(folder: str | Path, *, num_replays: int = 24) -> Path:
    """Write `report.html` into a run folder from whatever the folder holds so far.

    Args:
        folder: the run's.
        num_replays: episodes shown at most; of each task the latest success and the latest failure.

    Raises:
        DataError: there is no such folder.
        RunFolderError: the report cannot be written.
    """
    run = RunFolder(Path(folder))
    if not run.path.is_dir():
        raise DataError(f"there is no run folder {run.path}")
    target = run.path / "report.html"
    temporary = target.with_suffix(f".tmp-{os.getpid()}")
    try:
        temporary.write_text(render(run, num_replays), encoding="utf-8", errors="backslashreplace")
        temporary.replace(target)
    except OSError as error:
        raise RunFolderError(f"the report {target} cannot be written: {error.strerror or error}") from error
    return target


def render(run: RunFolder, num_replays: int) -> str:
    """The page. Every text is escaped by the template: observations and actions are foreign."""
    rows = read_metrics(run.metrics) if run.metrics.exists() else []
    notes = untaught(rows)
    evaluations = read_evaluations(run, notes)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    images = Images(run.path)
    environment.filters |= {"visible": visible, "outcome": outcome, "headline": headline}
    environment.filters |= {"label": turn_label, "origins": origins, "picture": images.uri}
    return environment.from_string(TEMPLATE).render(
        name=run.path.resolve().name,
        config=run.config.read_text(encoding="utf-8", errors="replace") if run.config.exists() else "",
        areas=charts(rows),
        ledger=ledger_lines(rows),
        story=run_story(run.path),
        tables=[format_table(evaluation) for evaluation in evaluations],
        progress=_progress(evaluations),
        faults=_fault_counts(run),
        episodes=replays(run, num_replays, notes),
        notes=notes,
    )


def charts(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Chart]]:
    """area -> its charts, by name. Rows as `read_metrics` gives them."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and isinstance(row.get("step"), int | float):
                series.setdefault(name, []).append((row["step"], value))
    areas: dict[str, list[Chart]] = {}
    for name, points in sorted(series.items()):
        chart = Chart(name=name, last=points[-1][1], svg=Markup(line_chart(points)))
        areas.setdefault(name.split("/")[0], []).append(chart)
    return areas


def untaught(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note where steps taught the policy nothing; none where all of them did."""
    told = [row["optim/taught_count"] for row in rows if "optim/taught_count" in row]
    idle = sum(not value for value in told)
    if not idle:
        return []
    return [f"{idle} of {len(told)} steps taught the policy nothing: see optim/taught_count, and the run's warnings"]


def ledger_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per lane: the share of the run's time that each of its parts took, the largest first."""
    return [
        f"{lane}: " + ", ".join(f"{part} {share:.0%}" for part, share in sorted(parts.items(), key=lambda p: -p[1]))
        for lane, parts in shares(rows).items()
    ]


def read_evaluations(run: RunFolder, notes: list[str]) -> list[Evaluation]:
    """All evaluations of a run, the earlier weights first. One that cannot be read becomes a note."""
    found: list[tuple[int, float, Evaluation]] = []
    for path in sorted(run.evaluations.glob("*.json")):
        try:
            evaluation = load_evaluation(path)
        except DataError as error:
            notes.append(str(error))
            continue
        found.append((evaluation.version, path.stat().st_mtime, evaluation))
    return [evaluation for _, _, evaluation in sorted(found, key=lambda entry: entry[:2])]


def replays(run: RunFolder, count: int, notes: list[str]) -> list[Trajectory]:
    """Of each task the latest success and the latest other episode; of those the `count` latest."""
    if not any(run.trajectories.glob("*/*.parquet")):
        return []
    try:
        store = TrajectoryStore(run.trajectories, mode="read")
    except DataError as error:
        notes.append(str(error))
        return []
    latest: dict[tuple[str, bool], Ref] = {}
    for ref, row in store.headers():
        latest[row["task_id"], bool(row["success"])] = ref
    found = []
    for ref in sorted(latest.values())[-count:]:
        try:
            found.append(store.read(ref))
        except DataError as error:
            notes.append(str(error))
    notes += store.warnings
    return sorted(found, key=lambda t: (t.task.id, not t.success))


class Images:
    """The pictures of one page, embedded in it: the report stays one file. Made for one rendering."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._left = MAX_PAGE_BYTES

    def uri(self, attachment: Attachment) -> str:
        """A picture of the run folder as a data URI.

        "" where it is no PNG, JPEG or WebP by its own first bytes, lies elsewhere, or is too large for the page.
        """
        if attachment.path is None:
            return ""
        path = (self._folder / attachment.path).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            return ""
        if path.stat().st_size > min(MAX_IMAGE_BYTES, self._left):
            return ""
        content = path.read_bytes()
        if picture_type(content) != attachment.media_type:  # what a store names a picture may be a page with a script
            return ""
        self._left -= len(content)
        return f"data:{attachment.media_type};base64,{base64.b64encode(content).decode()}"


def _progress(evaluations: Sequence[Evaluation]) -> list[str]:
    """Per split with two evaluations or more: all side by side, and the last against the first."""
    found = []
    for split in dict.fromkeys(evaluation.split for evaluation in evaluations):
        same = [evaluation for evaluation in evaluations if evaluation.split == split]
        if len(same) < 2:
            continue
        found.append(format_side_by_side({evaluation.name: evaluation for evaluation in same}))
        try:
            found.append(format_comparison(compare(same[0], same[-1], name_a=same[0].name, name_b=same[-1].name)))
        except DataError as error:
            found.append(str(error))
    return found


def _fault_counts(run: RunFolder) -> list[tuple[int, str, str, str]]:
    """(count, whose fault, what happened, what it befell), the most frequent first; retried attempts included."""
    counts: Counter[tuple[str, str, str]] = Counter()
    lines = run.faults.read_text(encoding="utf-8", errors="replace").splitlines() if run.faults.exists() else []
    for line in lines:
        try:
            counts[_fault_row(json.loads(line))] += 1
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
            log.warning("%s: left out a line that is no fault record", run.faults)
    return [(count, *row) for row, count in counts.most_common(30)]


def _fault_row(fault: Mapping[str, Any]) -> tuple[str, str, str]:
    """Of an episode's fault its stop reason, of any other the kind of error. Lines of older runs name no subject."""
    what = fault["stop_reason"] if "stop_reason" in fault else fault["fault"].partition(":")[0]
    subject = next(fault[key] for key in ("subject", "task", "group", "episode") if key in fault)
    return str(fault.get("kind", "")), str(what), str(subject)
