"""What the rules of the doctor look at: one run folder, read once."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rollwright.contracts import DataError
from rollwright.run_io import RunFolder, read_facts, read_metrics, settings_tree

log = logging.getLogger(__name__)

# `early` and `recent` overlap below ten values, so rules that compare them ask for ten.
RECENT_FRAC, RECENT_STEPS = 1 / 3, 5
"""A rule about the present state looks at the last third of the steps, and at 5 steps at least."""
# A bound on time: a run whose world is broken writes a line per episode.
MAX_FAULT_LINES = 100_000


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the steps in which it was logged, finite values only."""

    name: str
    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def recent(self) -> Series:
        """The last third, 5 values at least."""
        return self.last(max(RECENT_STEPS, math.ceil(len(self.values) * RECENT_FRAC)))

    @property
    def early(self) -> Series:
        """The first third, 5 values at least."""
        count = max(RECENT_STEPS, math.ceil(len(self.values) * RECENT_FRAC))
        return Series(self.name, self.steps[:count], self.values[:count])

    def last(self, count: int) -> Series:
        """The last values, all where there are fewer."""
        return Series(self.name, self.steps[-count:], self.values[-count:])

    @property
    def mean(self) -> float:
        """NaN where there is no value."""
        return fmean(self.values) if self.values else math.nan

    def said(self, digits: int = 3) -> str:
        """Name, mean and steps, as evidence is printed."""
        span = f"step {self.steps[0]}" if len(self.steps) == 1 else f"steps {self.steps[0]} to {self.steps[-1]}"
        return f"{self.name}: mean {self.mean:.{digits}g} over {span}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """Metrics, settings, facts and faults of a run. Made by `read_evidence`; parts that are missing are empty."""

    folder: Path
    rows: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)

    def series(self, name: str) -> Series:
        """A metric's finite values; empty where it was never logged."""
        # Rows without the metric are passed over: evaluations and training write rows of their own.
        pairs = [(int(row["step"]), float(row[name])) for row in self.rows if _is_finite(row.get(name))]
        return Series(name, tuple(step for step, _ in pairs), tuple(value for _, value in pairs))

    def names(self, start: str, end: str = "") -> list[str]:
        """The metrics of these rows whose names begin and end so."""
        return sorted({name for row in self.rows for name in row if name.startswith(start) and name.endswith(end)})

    def not_finite(self, name: str) -> list[int]:
        """The steps in which a metric was NaN or infinite, which the file holds as null."""
        # JSON has no NaN, so the writer of the file puts null in its place.
        return [int(row["step"]) for row in self.rows if name in row and row[name] is None]

    def setting(self, key: str) -> Any:
        """The value of a dotted key of the run's settings; None where there is none."""
        found: Any = self.settings
        # A mapping is asked at each part: a damaged file may hold a number where a section should be.
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def number(self, key: str, default: float) -> float:
        """A setting that is a number."""
        found = self.setting(key)
        # `True` is an int in Python.
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else default

    @property
    def learned_it(self) -> bool:
        """Whether the policy solves nearly all training episodes by now, so that little is left to learn."""
        success = self.series("rollout/success_frac")
        # No success rate means not known, and then rules do not excuse a run by it.
        return bool(success) and success.recent.mean >= 0.95


def read_evidence(folder: Path) -> RunEvidence:
    """Read a run folder; a part that cannot be read is left out with a warning.

    Raises:
        DataError: there is no such folder, or it holds no metrics of a run.
    """
    if not folder.is_dir():
        raise DataError(f"there is no run folder {folder}")
    run = RunFolder(folder)
    facts = read_facts(folder)
    # Either alone is enough: a run that was killed at once has facts and no metrics.
    if not run.metrics.is_file() and not facts:
        raise DataError(f"{folder} is not a run folder: expected metrics.jsonl and run.json in it")
    rows = read_metrics(run.metrics) if run.metrics.is_file() else []
    try:
        # Without settings the rules fall back on defaults, which is better than no diagnosis.
        settings = settings_tree(run.config.read_text(encoding="utf-8")) if run.config.is_file() else {}
    except (OSError, ValueError) as error:
        log.warning("%s: the settings cannot be read: %s", run.config, error)
        settings = {}
    return RunEvidence(
        folder=folder,
        rows=rows,
        settings=settings,
        facts=facts,
        faults=_faults(run.faults),
    )


def _faults(path: Path) -> Counter[tuple[str, str]]:
    """(whose fault, what happened) -> how often."""
    found: Counter[tuple[str, str]] = Counter()
    if not path.is_file():
        return found
    # Read line by line: the file may be larger than memory.
    with path.open(encoding="utf-8", errors="replace") as lines:
        for _, line in zip(range(MAX_FAULT_LINES), lines, strict=False):
            try:
                fault = json.loads(line)
                # Cut, so that messages which differ in a long tail only are counted together.
                found[str(fault.get("kind", "")), str(fault.get("fault", ""))[:160]] += 1
            except (ValueError, AttributeError, RecursionError):
                log.warning("%s: left out a line that is not a fault record", path)
    return found


def _is_finite(value: object) -> bool:
    # beyond 1e150 no mean or variance is finite
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e150
