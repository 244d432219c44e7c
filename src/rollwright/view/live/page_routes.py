"""The addresses of the page: from the path of a request to the JSON, picture or file that answers it.

The whole table is `ROUTES`. What a browser sends is only looked up: ids among the runs that were found, keys among the
episodes of the index, hashes among the pictures of a store. No part of an address becomes a path of the file system.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from rollwright import __version__
from rollwright.contracts import DataError, RollwrightError
from rollwright.view.doctor.diagnosis import Diagnosis, examine
from rollwright.view.live.episode_query import EpisodeQuery
from rollwright.view.live.evaluation_answers import comparison_answer
from rollwright.view.live.followed_run import FollowedRun, stamp_of
from rollwright.view.live.reference_curves import metric_notes, reference_answer
from rollwright.view.live.run_answers import fault_answer, run_answer, settings_diff, task_answer
from rollwright.view.live.run_catalogue import RunCatalogue

log = logging.getLogger(__name__)

Asked = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: bytes with their media type and status."""

    content: bytes
    media_type: str = "application/json; charset=utf-8"
    status: int = 200


def answer_to(catalogue: RunCatalogue, address: str) -> Answer:
    """The answer to one address below `/api/`; what cannot be found or read is a sentence with its status."""
    try:
        parts = urlsplit(address)
        # More fields than any page sends raise ValueError.
        asked = dict(parse_qsl(parts.query, max_num_fields=50))
    except ValueError as error:
        return _sentence(f"this is no address: {error}", 400)
    # Split first, so that an encoded slash stays within its word.
    words = [unquote(word) for word in parts.path.strip("/").split("/")]
    try:
        return _routed(catalogue, words[1:], asked)
    # Mistakes in the address and files that cannot be read, in the error's own words.
    except RollwrightError as error:
        return _sentence(str(error), 400)


def _routed(catalogue: RunCatalogue, words: list[str], asked: Asked) -> Answer:
    if words == ["runs"]:
        return json_answer(runs_answer(catalogue))
    if words == ["metric-names"]:
        return json_answer(metric_notes())
    if words[:1] == ["reference"]:
        # Joined again: the name of a reference curve holds a slash.
        return _or_none(reference_answer("/".join(words[1:])), "reference curve")
    if words == ["compare"]:
        return json_answer(_compared(catalogue, asked))
    if words == ["diff"]:
        a, b = (_run(catalogue, asked.get(side, "")) for side in ("a", "b"))
        return json_answer(settings_diff(a, b))
    if words[:1] == ["run"] and len(words) in (2, 3, 4):
        return _of_run(_run(catalogue, words[1]), words[2:], asked)
    return _sentence("there is nothing at this address", 404)


def runs_answer(catalogue: RunCatalogue) -> dict[str, Any]:
    """The list of runs, the latest first."""
    return list_of_runs(catalogue.runs(), catalogue.folders)


def list_of_runs(runs: Sequence[FollowedRun], folders: Sequence[Path]) -> dict[str, Any]:
    """The same of these runs."""
    summaries = []
    for run in runs:
        with run.lock:
            try:
                run.refresh()
                summaries.append(run.summary())
            except Exception as error:  # one odd folder must not hide all others
                said = f"{type(error).__name__}: {error}"[:300]
                # Through the cache, so that the log tells it once and not at every look.
                run.cached("left out", said, partial(log.warning, "%s is left out: %s", run.folder.path, said))
    summaries.sort(key=lambda summary: -summary["updated"])
    return {
        "version": __version__,
        "frozen": False,
        "folders": [str(folder) for folder in folders],
        "runs": summaries,
    }


Route = Callable[[FollowedRun, Asked], dict[str, Any]]


def _metrics(run: FollowedRun, asked: Asked) -> dict[str, Any]:
    names = asked["names"].split(",") if asked.get("names") else None
    since = asked.get("since", "")
    return run.metrics.answer(names, int(since) if re.fullmatch(r"\d{1,15}", since) else None)


def doctor_answer(run: FollowedRun) -> dict[str, Any]:
    """What `rollwright doctor` says of the run, as it stands."""
    files = (run.folder.metrics, run.folder.faults, run.folder.config)
    # The state is part of it: a run that is killed changes no file.
    stamp = (*map(stamp_of, files), len(run.evaluations()), run.state())
    try:
        found: Diagnosis = run.cached("doctor", stamp, lambda: examine(run.folder.path))
    except DataError:  # a folder of episodes or evaluations alone: there is nothing to judge
        return {"available": False, "findings": [], "unjudged": []}
    findings = [
        {
            **{"rule": finding.rule, "severity": finding.severity, "certainty": finding.certainty},
            **{"title": finding.title, "text": finding.message},
            **{"evidence": list(finding.evidence), "try": list(finding.remedies)},
        }
        for finding in found.findings
    ]
    unjudged = [f"{rule}: {reason}" for rule, reason in found.not_judged.items()]
    return {"available": True, "findings": findings, "unjudged": unjudged}


ROUTES: dict[str, Route] = {
    "": lambda run, _: run_answer(run),
    "metrics": _metrics,
    "tasks": lambda run, _: task_answer(run),
    "faults": lambda run, _: fault_answer(run),
    "episodes": lambda run, asked: run.episode_list(EpisodeQuery.of(asked)),
    "doctor": lambda run, _: doctor_answer(run),
}
"""Word behind `api/run/ID/` -> what answers it."""


def _of_run(run: FollowedRun, words: list[str], asked: Asked) -> Answer:
    with run.lock:
        run.refresh()
        match words:
            case []:
                return json_answer(ROUTES[""](run, asked))
            case [word] if word in ROUTES and word:
                return json_answer(ROUTES[word](run, asked))
            case ["episode", key]:
                return _or_none(run.episode(key), "episode")
            case ["group", group]:
                return _or_none(run.group(group), "group")
            case ["attachment", name]:
                picture = run.attachment(name)
                return _sentence("there is no such picture", 404) if picture is None else Answer(*picture)
    return _sentence("there is nothing at this address", 404)


def _compared(catalogue: RunCatalogue, asked: Asked) -> dict[str, Any]:
    sides = []
    for side in ("a", "b"):
        name, _, evaluation = asked.get(side, "").partition("/")
        run = _run(catalogue, name)
        # One lock at a time: two requests that name the runs in opposite orders would otherwise wait for each other.
        with run.lock:
            run.refresh()
            found = {one.name: one for one in run.evaluations()}
        if evaluation not in found:
            known = ", ".join(found) or "none"
            raise DataError(f"{name} has no evaluation {evaluation[:80]!r}; it has: {known}")
        sides.append((run, found[evaluation]))
    return comparison_answer(sides[0], sides[1])


def _run(catalogue: RunCatalogue, name: str) -> FollowedRun:
    run = catalogue.run(name)
    if run is None:
        raise DataError(f"there is no run {name[:80]!r} here")
    return run


def _or_none(found: dict[str, Any] | None, what: str) -> Answer:
    return _sentence(f"there is no such {what}", 404) if found is None else json_answer(found)


def _sentence(text: str, status: int) -> Answer:
    return Answer(json.dumps({"error": text}).encode(), status=status)


def json_answer(content: Any) -> Answer:
    """JSON in which every number is finite: browsers read no NaN."""
    try:
        # Most answers are finite, and to walk through a large one first would cost more than writing it.
        return Answer(json.dumps(content, allow_nan=False).encode())
    except ValueError:
        return Answer(json.dumps(finite(content), allow_nan=False).encode())


def finite(content: Any) -> Any:
    """The same content with None in place of numbers that are not finite."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    return [finite(value) for value in content] if isinstance(content, list | tuple) else content
