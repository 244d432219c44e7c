"""The table of runs as text, CSV or JSON: one line per run, or one per group."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from rollwright.view.records.run_groups import (
    GroupSummary,
    RunGroup,
    summarise_group,
    unlike_settings,
)
from rollwright.view.records.run_record import RunRecord, Value
from rollwright.view.transcripts import visible

SHOWN = (
    "name",
    "recipe",
    "world",
    "method",
    "state",
    "step",
    "seed",
    "success",
    "reward",
    "minutes",
    "tokens",
    "commit",
)
"""Columns of the text table where none are named. `success` shows its interval."""
GROUPED = ("success", "reward", "minutes")
MAX_CELL = 60

Table = tuple[list[str], list[list[Value]]]


def run_rows(records: Sequence[RunRecord], columns: Sequence[str]) -> Table:
    """Heading and one line of plain values per run."""
    return list(columns), [[record.value(column) for column in columns] for record in records]


def group_rows(groups: Sequence[RunGroup], keys: Sequence[str], columns: Sequence[str]) -> Table:
    """Heading and one line per group: its values, the number of runs, and four numbers for each column."""
    parts = ("mean", "iqm", "low", "high")
    heading = [*keys, "seeds", *(f"{column} {part}" for column in columns for part in parts)]
    rows: list[list[Value]] = []
    for group in groups:
        cells: list[Value] = [*group.key, len(group.records)]
        for column in columns:
            cells += _four(summarise_group(group, column))
        rows.append(cells)
    return heading, rows


def format_runs(records: Sequence[RunRecord], columns: Sequence[str]) -> str:
    """The table for a terminal."""
    lines = [[_run_cell(record, column) for column in columns] for record in records]
    return padded_columns([list(columns), *lines])


def format_run_groups(groups: Sequence[RunGroup], keys: Sequence[str], columns: Sequence[str]) -> str:
    """The same for groups: interquartile mean with its 95% interval over seeds, then the mean."""
    heading = [*keys, "seeds", *(text for column in columns for text in (f"{column} IQM [95%]", "mean"))]
    lines = []
    for group in groups:
        line = [*map(_cell, group.key), str(len(group.records))]
        for column in columns:
            line += _two(summarise_group(group, column))
        lines.append(line)
    # A mixture is told below the table: its interval looks like any other.
    return "\n".join([padded_columns([heading, *lines]), *map(_mixture, filter(unlike_settings, groups))])


def _mixture(group: RunGroup) -> str:
    unlike = unlike_settings(group)
    shown = ", ".join(unlike[:4]) + (f" and {len(unlike) - 4} more" if len(unlike) > 4 else "")
    return f"note: the runs of {_cell(group.label)} also differ in {shown}: the interval is not over seeds alone"


def table_csv(table: Table) -> str:
    """The table as CSV with a heading; an absent value is empty."""
    text = io.StringIO()
    # csv ends lines by "\r\n" unless told otherwise.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table[0])
    writer.writerows([["" if cell is None else cell for cell in row] for row in table[1]])
    return text.getvalue()


def table_json(table: Table) -> str:
    """The table as a JSON list with one object per line of it."""
    return json.dumps([dict(zip(table[0], row, strict=True)) for row in table[1]], indent=1)


def padded_columns(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if cell[:1].isdigit() or cell[:1] in "-+" else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _run_cell(record: RunRecord, column: str) -> str:
    value = record.value(column)
    if column == "success" and value is not None:
        return f"{value:.2f}{_span(record.value('success_low'), record.value('success_high'))}"
    # The step alone does not say whether a run is done.
    if column == "step" and (steps := record.value("steps")) is not None:
        return f"{value}/{steps}"
    return _cell(value)


def _span(low: Value, high: Value) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        # Names of runs and settings are foreign text and may hold terminal commands.
        text = visible(str(value)).replace("\n", " ")
        return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 3]}..."
    return f"{value:,}" if isinstance(value, int) else _short(value)


def _short(number: float) -> str:
    """Four significant digits; large numbers in full."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _four(summary: GroupSummary | None) -> list[Value]:
    if summary is None:
        # As many cells as a group with the number has, so that the columns stay aligned.
        return [None] * 4
    interval = summary.interval
    return [summary.mean, summary.iqm, *((None, None) if interval is None else (interval.low, interval.high))]


def _two(summary: GroupSummary | None) -> list[str]:
    if summary is None:
        return ["-", "-"]
    interval = summary.interval
    span = "" if interval is None else f" [{_short(interval.low)}, {_short(interval.high)}]"
    return [f"{_short(summary.iqm)}{span}", _short(summary.mean)]
