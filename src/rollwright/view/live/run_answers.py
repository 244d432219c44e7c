"""What the page shows of a run besides its episodes: facts, settings and their differences, faults, tasks, time."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import pyarrow.compute as pc

from rollwright.contracts import StopReason
from rollwright.evaluation import Evaluation
from rollwright.maths.statistics import wilson_interval
from rollwright.run_io import time_shares
from rollwright.store import unpack_text
from rollwright.view.live.evaluation_answers import evaluation_answer, interval_answer, progress_lines
from rollwright.view.live.followed_run import FollowedRun, read_text
from rollwright.view.live.reference_curves import reference_of
from rollwright.view.run_story import run_story

MAX_FAULT_ROWS, MAX_LATEST_FAULTS = 100, 50
_STAGE = re.compile(r"time/(collect|score|greedy|update|sync|evaluate|evolve|checkpoint)_s")


def run_answer(run: FollowedRun) -> dict[str, Any]:
    """Everything of one run that changes with a step at most: facts, settings, evaluations, where the time went."""
    # Epoch and position change with every line that is read.
    rows = run.cached("rows", (run.metrics.epoch, run.metrics.position), run.metrics.rows)
    facts, summary, evaluations = run.facts(), run.summary(), run.evaluations()
    # Intervals are bootstrapped, and the page asks every two seconds: the same evaluations are summarised once.
    judged = run.cached("judged", tuple(map(id, evaluations)), lambda: _judged(evaluations))
    return {
        "run": summary,
        "notes": [*untaught(rows), *run.unreadable()],
        "story": run_story(run.folder.path),
        "sessions": list(facts.get("sessions") or []),
        "totals": dict(facts.get("totals") or {}),
        "config_text": run.config_text(),
        "settings": dict(flat_settings(run.settings())),
        **judged,
        "ledger": time_shares(rows),
        "seconds": stage_seconds(rows),
        "tags": tag_counts(run),
        # Only runs of a shipped YAML have a curve to be compared with.
        "reference": reference_of(summary["config"]),
    }


def _judged(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    return {
        "evaluations": [evaluation_answer(evaluation) for evaluation in evaluations],
        "progress": progress_lines(evaluations),
    }


def untaught(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note where steps taught the policy nothing; none where all of them did."""
    # Evaluations write rows without it, which taught nothing and were not meant to.
    told = [row["optim/taught_count"] for row in rows if "optim/taught_count" in row]
    idle = sum(not value for value in told)
    if not idle:
        return []
    return [f"{idle} of {len(told)} steps taught the policy nothing: see optim/taught_count, and the run's warnings"]


def stage_seconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Stage -> the seconds that it took over all rows; `other` is what no stage accounts for."""
    totals: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            stage = _STAGE.fullmatch(name)
            if stage and isinstance(value, int | float):
                totals[stage[1]] = totals.get(stage[1], 0.0) + value
    whole = sum(row.get("time/step_s") or 0.0 for row in rows)
    # Evaluations log their own time, outside `time/step_s`.
    inside = sum(seconds for stage, seconds in totals.items() if stage != "evaluate")
    return totals | ({"other": max(0.0, whole - inside)} if whole else {})


def tag_counts(run: FollowedRun) -> list[dict[str, Any]]:
    """How many episodes each tag has, in the order written."""
    counts = pc.value_counts(run.index.table["tag"]).to_pylist()
    return [{"tag": unpack_text(entry["values"]), "episodes": entry["counts"]} for entry in counts]


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every setting; a list is one value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            # An empty mapping is a value: it would vanish otherwise.
            yield from flat_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it: YAML also has dates and sets."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | None) else str(value)


def settings_diff(a: FollowedRun, b: FollowedRun) -> dict[str, Any]:
    """The settings in which two runs differ."""
    first, second = dict(flat_settings(a.settings())), dict(flat_settings(b.settings()))
    keys = list(dict.fromkeys([*first, *second]))
    # A key that one side lacks differs, even from None.
    differ = [key for key in keys if key not in first or key not in second or first[key] != second[key]]
    return {
        "a": a.name,
        "b": b.name,
        "rows": [{"key": key, "a": first.get(key), "b": second.get(key)} for key in differ],
        "same": len(keys) - len(differ),
    }


def fault_answer(run: FollowedRun) -> dict[str, Any]:
    """The faults of a run: counted by kind, and the latest lines as they stand in the file."""
    counts: Counter[tuple[str, str, str]] = Counter()
    latest: list[Mapping[str, Any]] = []
    for line in read_text(run.folder.faults, limit=50_000_000).splitlines():
        try:
            fault = json.loads(line)
            counts[_fault_row(fault)] += 1
            # Short at all times: the file may hold millions of lines.
            latest = [*latest[1 - MAX_LATEST_FAULTS :], fault]
        # StopIteration: a fault that names nothing it befell.
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
            continue
    rows = [
        {"count": count, "kind": kind, "what": what, "where": where}
        for (kind, what, where), count in counts.most_common(MAX_FAULT_ROWS)
    ]
    return {"rows": rows, "total": counts.total(), "latest": latest[::-1]}


def _fault_row(fault: Mapping[str, Any]) -> tuple[str, str, str]:
    """Whose fault, what happened, what it befell. Of an episode's fault the stop reason, of any other the error."""
    what = fault["stop_reason"] if "stop_reason" in fault else fault["fault"].partition(":")[0]
    subject = next(fault[key] for key in ("subject", "task", "group", "episode") if key in fault)
    return str(fault.get("kind", "")), str(what), str(subject)


def task_answer(run: FollowedRun) -> dict[str, Any]:
    """One row per task and split: its episodes, success with an interval, and how that changed.

    `first` and `last` are success in the first and the last third of the task's training episodes; for tasks that were
    only evaluated, in the first and the last evaluation.
    """
    table = run.index.table
    columns = {name: table[name].to_pylist() for name in ("task", "split", "tag", "stop", "success", "reward", "turns")}
    members: dict[tuple[str, str, bool], list[int]] = {}
    for place, tag in enumerate(columns["tag"]):
        # Episodes that were collected and dropped: nothing was learned from them.
        if tag != "unused":
            key = (columns["task"][place], columns["split"][place], tag.startswith("eval_"))
            members.setdefault(key, []).append(place)
    rows = [_task_row(key, places, columns) for key, places in members.items()]
    return {"splits": list(dict.fromkeys(row["split"] for row in rows)), "rows": rows}


_FAULTS = {reason.value for reason in StopReason if reason.is_fault}


def _task_row(key: tuple[str, str, bool], places: list[int], columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    task, split, evaluated = key
    # Faults are no failures of the policy, so rates and means leave them out.
    whole = [place for place in places if columns["stop"][place] not in _FAULTS]
    if evaluated:
        tags = list(dict.fromkeys(columns["tag"][place] for place in whole))
        ends = [
            [p for p in whole if columns["tag"][p] == tag] for tag in (tags[:1] + tags[-1:] if len(tags) > 1 else [])
        ]
    else:
        # Below three episodes there is no change to speak of.
        third = len(whole) // 3
        ends = [whole[:third], whole[-third:]] if third else []
    first, last = ends if len(ends) == 2 else ([], [])
    return {
        "task": unpack_text(task),
        "split": split,
        "evaluated": evaluated,
        "episodes": len(places),
        "faults": len(places) - len(whole),
        "success": _rate(whole, columns),
        "first": _rate(first, columns),
        "last": _rate(last, columns),
        "mean_reward": fmean(columns["reward"][place] for place in whole) if whole else None,
        "mean_turns": fmean(columns["turns"][place] for place in whole) if whole else None,
    }


def _rate(places: Sequence[int], columns: Mapping[str, list[Any]]) -> dict[str, float | None] | None:
    judged = [columns["success"][place] for place in places if columns["success"][place] is not None]
    return interval_answer(wilson_interval(sum(judged), len(judged))) if judged else None
