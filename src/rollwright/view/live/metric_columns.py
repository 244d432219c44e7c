"""A metrics file as columns, read on from where the last look ended."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollwright.run_io import metric_row, open_regular

MAX_SPARK = 60
PIECE_BYTES = 16 << 20
"""Read at once; a line of metrics is a few KiB."""


class MetricColumns:
    """The metrics of one run by name. Rows of one step are merged: training and evaluation log apart.

    Args:
        path: the run's `metrics.jsonl`; it may not be there yet.

    Attributes:
        epoch: grows when the file was rewound by a resumed run: what was shown before may no longer hold.
        steps: [S] ascending in the order they were first logged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.epoch = path, 0
        self.steps: list[int] = []
        self._places: dict[int, int] = {}
        # Eight bytes a value: a list of Python floats takes four times as much.
        self._series: dict[str, array[float]] = {}
        self._offset, self._file = 0, 0

    def refresh(self) -> None:
        """Take in the lines that were written since the last call. A torn line is left out, an unfinished one waits."""
        try:
            with open_regular(self.path) as file:
                found = os.fstat(file.fileno())
                # A resumed run replaces the file or cuts it back; then all is read anew.
                if found.st_ino != self._file or found.st_size < self._offset:
                    self._forget(found.st_ino)
                file.seek(self._offset)
                while self._read_on(file.read(PIECE_BYTES)):
                    file.seek(self._offset)
        except OSError:
            return

    def _read_on(self, content: bytes) -> bool:
        """Take in the whole lines of a piece of the file; whether there may be more of them."""
        # Whole lines only; the rest waits for its end and is read again.
        whole, newline, _ = content.rpartition(b"\n")
        if newline:
            self._offset += len(whole) + len(newline)
            for line in whole.split(b"\n"):
                self._take(line)
        elif len(content) == PIECE_BYTES:  # no line of metrics is so long: it is passed over, up to its end
            self._offset += len(content)
        return len(content) == PIECE_BYTES

    @property
    def position(self) -> int:
        """Bytes of the file that were read."""
        return self._offset

    @property
    def names(self) -> list[str]:
        """The metrics that the run has, sorted."""
        return sorted(self._series)

    def column(self, name: str) -> list[float | None]:
        """[S] the values of one metric; None where a step has none, or none that is finite."""
        values = self._series.get(name, array("d"))
        found = [value if math.isfinite(value) else None for value in values]
        # A series ends at its last value, and the steps after it have none.
        return found + [None] * (len(self.steps) - len(found))

    def answer(self, names: Sequence[str] | None = None, since: int | None = None) -> dict[str, Any]:
        """Steps and series as the page reads them.

        Args:
            names: only these; None = all.
            since: only steps from this one on; None = all.
        """
        kept = [place for place, step in enumerate(self.steps) if since is None or step >= since]
        chosen = self.names if names is None else [name for name in dict.fromkeys(names) if name in self._series]
        columns = {name: self.column(name) for name in chosen}
        return {
            "epoch": self.epoch,
            "steps": [self.steps[place] for place in kept],
            "series": {name: [column[place] for place in kept] for name, column in columns.items()},
            "names": self.names,
        }

    def known(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric where it has a value."""
        pairs = zip(self.steps, self.column(name), strict=True)
        return [(step, value) for step, value in pairs if value is not None]

    def spark(self, name: str) -> dict[str, Any] | None:
        """A small curve of one metric with its first and last value; None where it was never logged."""
        known = self.known(name)
        if not known:
            return None
        stride = math.ceil(len(known) / MAX_SPARK)
        kept = known[::-1][::stride][::-1]  # the last value is always among them
        return {
            "first": known[0][1],
            "last": known[-1][1],
            "step": known[-1][0],
            "steps": [step for step, _ in kept],
            "values": [value for _, value in kept],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per step, as `read_metrics` gives them, for what reads whole rows."""
        columns = {name: self.column(name) for name in self._series}
        return [
            {"step": step} | {name: column[place] for name, column in columns.items() if column[place] is not None}
            for place, step in enumerate(self.steps)
        ]

    def _forget(self, file: int) -> None:
        # Only where something was shown before: the first file of a run is no rewind.
        self.epoch += bool(self.steps)
        self.steps, self._places, self._series = [], {}, {}
        self._offset, self._file = 0, file

    def _take(self, line: bytes) -> None:
        row = metric_row(line)
        if row is not None:
            self._merge(row.pop("step"), row)

    def _merge(self, step: int, row: Mapping[str, Any]) -> None:
        place = self._places.get(step)
        if place is None:
            place = self._places[step] = len(self.steps)
            self.steps.append(step)
        for name, value in row.items():
            # Neither text nor truth values can be drawn.
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            series = self._series.setdefault(name, array("d"))
            # A metric that begins late has no value at the steps before.
            series.extend([math.nan] * (place + 1 - len(series)))
            series[place] = value
