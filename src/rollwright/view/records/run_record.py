"""One run folder as values by name: facts, settings, metrics and evaluations.

The idea of one record of runs that every plot is made from is Open RL Benchmark's (arXiv:2402.03046).
"""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from rollwright.contracts import DataError
from rollwright.evaluation import Evaluation, load_evaluation, summarise
from rollwright.run_io import RunFolder, is_held, open_regular, read_facts, read_metrics, settings_tree
from rollwright.view.live.followed_run import started_by
from rollwright.view.live.run_answers import flat_settings
from rollwright.view.live.run_catalogue import find_runs

log = logging.getLogger(__name__)

Value = str | float | int | bool | None
COLUMNS = (
    *("name", "recipe", "config", "world", "method", "state", "step", "steps", "seed"),
    *("success", "success_low", "success_high", "reward", "minutes", "episodes", "tokens", "commit"),
)
"""Names of every run's own values. Beside them: dotted settings, metrics, `eval/<name>/<figure>`, `spent.<what>`."""
FIGURES = ("success_frac", "success_low", "success_high", "return_mean", "episodes_count", "fault_frac")
SUMMARIES = ("last", "first", "mean", "max", "min")


class RunRecord:
    """The values of one run. Made by `read_records`; each part is read when it is first asked for.

    Args:
        folder: the run's.
        name: how the run is called in tables: its path below the folder that was given.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._run = RunFolder(folder)

    def value(self, key: str) -> Value:
        """The value of a name; None where this run has none.

        Names: one of `COLUMNS`; a dotted setting (`algorithm.preset`); what was spent (`spent.tokens_sampled`); a
        metric (`rollout/success_frac`, its last value, or `...:mean`, `:max`, `:min`, `:first`); a figure of an
        evaluation (`eval/final/success_frac`).
        """
        if key in COLUMNS:
            found: Value = self._own(key)
            return found
        if key.startswith("spent."):
            totals = _mapping(self.facts.get("totals"))
            return _plain(totals.get(key.removeprefix("spent.")))
        # Settings have dots and metrics have slashes, so the spelling says where to look.
        if "/" in key:
            return self._of_evaluation(key) if key.count("/") == 2 and key.startswith("eval/") else self._of_metric(key)
        return _plain(self._setting(key))

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """The content of `run.json`."""
        return read_facts(self.folder)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The run's settings as a tree; empty where they cannot be read."""
        try:
            with open_regular(self._run.config) as file:
                return settings_tree(file.read().decode("utf-8"))
        except (OSError, ValueError):
            return {}

    @cached_property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The lines of `metrics.jsonl`."""
        return read_metrics(self._run.metrics) if self._run.metrics.is_file() else []

    def curve(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and finite values of a metric."""
        points = [(int(row["step"]), float(row[metric])) for row in self.rows if _is_number(row.get(metric))]
        return [step for step, _ in points], [value for _, value in points]

    def evaluation(self, name: str) -> Evaluation | None:
        """An evaluation of the run by its name; None where there is none or it cannot be read."""
        path = self._run.evaluations / f"{name}.json"
        # A name with a slash in it would lead out of the folder.
        if not path.is_file() or path.parent != self._run.evaluations:
            return None
        try:
            return load_evaluation(path)
        except DataError as error:
            log.warning("%s", error)
            return None

    @cached_property
    def final(self) -> Evaluation | None:
        """The evaluation `final`, else the one of the latest weights."""
        # Written at the end of a run; one that was stopped has only those in between.
        found = self.evaluation("final")
        if found is not None:
            return found
        rest = [self.evaluation(path.stem) for path in sorted(self._run.evaluations.glob("*.json"))]
        # By the version of the weights: names of files have no order that could be relied on.
        return max((one for one in rest if one is not None), key=lambda one: one.version, default=None)

    def keys(self) -> set[str]:
        """Every name that `value` knows here, for the nearest name of a misspelt one."""
        metrics = {name for row in self.rows for name in row if name != "step"}
        evaluations = {f"eval/{p.stem}/{f}" for p in self._run.evaluations.glob("*.json") for f in FIGURES}
        spent = {f"spent.{name}" for name in _mapping(self.facts.get("totals"))}
        return {*COLUMNS, *metrics, *evaluations, *spent, *(key for key, _ in flat_settings(self.settings))}

    def _own(self, key: str) -> Value:
        recipe, shipped = started_by(str(self._session.get("command") or ""))
        match key:
            case "name":
                return self.name
            case "recipe":
                return recipe or None
            case "config":
                return shipped or None
            case "world":
                return _plain(self._setting("world.name"))
            case "method":
                return _plain(self._setting("algorithm.preset")) or recipe or None
            case "state":
                return self._state()
            case "step":
                # Rows of evaluations carry a step too, but only training rows have its time. Steps count from 0.
                return 1 + max((int(row["step"]) for row in self.rows if "time/step_s" in row), default=-1)
            case "steps":
                return _plain(self._setting("run.steps"))
            case "seed":
                return _plain(self._setting("run.seed"))
            case "commit":
                return str(_mapping(self._session.get("commit")).get("id") or "")[:8] or None
        return self._measured(key)

    def _measured(self, key: str) -> Value:
        totals = _mapping(self.facts.get("totals"))
        match key:
            case "reward":
                return self._of_metric("reward/total_mean")
            case "minutes":
                seconds = totals.get("wall_s")
                return seconds / 60 if _is_number(seconds) else None
            case "episodes":
                return _plain(totals.get("episodes"))
            case "tokens":
                return _plain(totals.get("tokens_sampled"))
        evaluation = self.final  # success and its interval
        return None if evaluation is None else _figure(evaluation, "success_frac" if key == "success" else key)

    @property
    def _session(self) -> Mapping[str, Any]:
        sessions = self.facts.get("sessions") or [{}]
        return _mapping(sessions[-1])

    def _state(self) -> str:
        outcome = str(self._session.get("outcome") or "unknown")
        if outcome == "running":
            # A process that was killed leaves "running" behind; its lock tells.
            return outcome if is_held(self.folder) else "killed"
        # An error's name; its message is too long for a table.
        return outcome.partition(":")[0]

    def _setting(self, key: str) -> Any:
        found: Any = self.settings
        for part in key.split("."):
            found = _mapping(found).get(part)
        return found

    def _of_metric(self, key: str) -> Value:
        name, _, summary = key.partition(":")
        _, values = self.curve(name)
        if not values or (summary and summary not in SUMMARIES):
            return None
        match summary:
            case "mean":
                return sum(values) / len(values)
            case "max":
                return max(values)
            case "min":
                return min(values)
            case "first":
                return values[0]
        return values[-1]

    def _of_evaluation(self, key: str) -> Value:
        _, name, figure = key.split("/")
        evaluation = self.evaluation(name)
        return None if evaluation is None else _figure(evaluation, figure)


def read_records(folders: Sequence[str | Path]) -> list[RunRecord]:
    """The runs at and below some folders, each once, in the order of their names.

    Raises:
        DataError: a folder is not there, or no run lies below any of them.
    """
    found: dict[Path, str] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}: name a run folder, or a folder that holds run folders")
        for path in find_runs(folder):
            below = path.relative_to(folder)
            # One run may lie below two of the folders, or be reached by a link.
            found.setdefault(path.resolve(), str(below) if below.parts else path.resolve().name)
    if not found:
        named = ", ".join(map(str, folders))
        raise DataError(f"no run folder lies at or below {named}: a run writes metrics.jsonl and run.json")
    return [RunRecord(path, name) for path, name in sorted(found.items(), key=lambda entry: entry[1])]


def check_known(keys: Sequence[str], records: Sequence[RunRecord]) -> None:
    """Refuse a name that no run has.

    Raises:
        DataError: with the nearest name.
    """
    known: set[str] = set()
    for key in keys:
        # Without its summary, since `keys` lists metrics bare.
        name = key.partition(":")[0] if "/" in key else key
        if key in COLUMNS or any(record.value(key) is not None for record in records):
            continue
        # Only now: to list all names means to read every file of every run.
        known = known or set().union(*(record.keys() for record in records))
        if name in known:
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"no run here has {key!r}.{hint} Names are columns ({', '.join(COLUMNS)}), settings such as "
            "algorithm.preset, metrics such as rollout/success_frac, spent.tokens_sampled and "
            "eval/final/success_frac"
        )


def _figure(evaluation: Evaluation, figure: str) -> Value:
    summary = summarise(evaluation)
    success, returns = summary.success, summary.mean_return
    match figure:
        case "success_frac":
            return None if success is None else success.point
        case "success_low":
            # An interval without a bound is no number to sort or plot by.
            return None if success is None or not math.isfinite(success.low) else success.low
        case "success_high":
            return None if success is None or not math.isfinite(success.high) else success.high
        case "return_mean":
            return None if returns is None else returns.point
        case "episodes_count":
            return summary.num_episodes
        case "fault_frac":
            return summary.fault_frac
    return None


def _plain(value: Any) -> Value:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, default=str)


def _is_number(value: object) -> TypeGuard[float]:
    # beyond 1e150 no mean or variance is finite
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e150


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
