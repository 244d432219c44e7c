"""One question to a record of runs, and its answer as text, CSV, JSON or a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rollwright.contracts import DataError
from rollwright.view.records import run_listing as listing
from rollwright.view.records.run_conditions import parse_condition, select, sort_records
from rollwright.view.records.run_groups import RunGroup, group_records
from rollwright.view.records.run_plot import group_curves, plot_svg, run_curves
from rollwright.view.records.run_record import COLUMNS, RunRecord, check_known, read_records


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """The runs that were asked for, in order; `groups` is empty where none were asked for."""

    records: tuple[RunRecord, ...]
    group_by: tuple[str, ...] = ()
    groups: tuple[RunGroup, ...] = ()
    columns: tuple[str, ...] = ()

    def text(self) -> str:
        """For a terminal."""
        if self.group_by:
            return listing.format_run_groups(self.groups, self.group_by, self.columns or listing.GROUPED)
        return listing.format_runs(self.records, self.columns or listing.SHOWN)

    def csv(self) -> str:
        """With a heading; every column of its own where none were named."""
        return listing.table_csv(self._plain())

    def json(self) -> str:
        """A list of objects."""
        return listing.table_json(self._plain())

    def plot(self, metric: str) -> str:
        """SVG of a metric over steps: a line per run, or mean and 95% band per group.

        Raises:
            DataError: no run has the metric, or there are too many lines.
        """
        if self.group_by:
            return plot_svg(group_curves(self.groups, metric), metric)
        return plot_svg(run_curves(self.records, metric), metric)

    def _plain(self) -> listing.Table:
        if self.group_by:
            return listing.group_rows(self.groups, self.group_by, self.columns or listing.GROUPED)
        # All columns where a program reads on; a terminal gets the few that fit on a line.
        return listing.run_rows(self.records, self.columns or COLUMNS)


def query_runs(
    folders: Sequence[str | Path],
    *,
    where: Sequence[str] = (),
    sort: Sequence[str] = (),
    group_by: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> RunTable:
    """Find the runs below some folders, and filter, sort and group them.

    Args:
        folders: run folders, or folders of them.
        where: conditions that all must hold, such as `algorithm.preset=grpo` or `success>0.5`.
        sort: names to sort by; `-name` from the highest down.
        group_by: names whose values make a group.
        columns: what to show; by default a fixed choice.

    Raises:
        DataError: no run, none that meets the conditions, an unknown name, or a condition that is none.
    """
    # Before any folder is read: a mistake in a condition is told at once.
    conditions = [parse_condition(text) for text in where]
    records = read_records(folders)
    # A name that no run has would otherwise just select nothing.
    check_known([*(c.key for c in conditions), *(s.removeprefix("-") for s in sort), *group_by, *columns], records)
    chosen = sort_records(select(records, conditions), sort)
    if not chosen:
        raise DataError(f"none of the {len(records)} runs meets {' and '.join(where)}")
    groups = group_records(chosen, group_by) if group_by else []
    return RunTable(records=tuple(chosen), group_by=tuple(group_by), groups=tuple(groups), columns=tuple(columns))
