"""`report.html`: the page of `rollwright view` over one run, frozen into one file that needs no network."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rollwright.contracts import DataError, RunFolderError
from rollwright.view.frozen_page import frozen_page
from rollwright.view.live.evaluation_answers import comparison_answer
from rollwright.view.live.followed_run import FollowedRun
from rollwright.view.live.metric_columns import MetricColumns
from rollwright.view.live.page_routes import ROUTES, list_of_runs
from rollwright.view.live.reference_curves import metric_notes, reference_answer
from rollwright.view.live.run_catalogue import safe_name

MAX_IMAGE_BYTES = 500_000
MAX_PAGE_BYTES = 20_000_000
"""Of all pictures in the page together: a browser must still open it."""
MAX_STEPS = 1000
"""Of the curves: a longer run is thinned."""
# Far below the server's bound: this file holds all of its episodes at once.
MAX_EPISODE_TOKENS = 50_000

Row = Mapping[str, Any]


def write_report(folder: str | Path, *, num_replays: int = 24) -> Path:
    """Write `report.html` into a run folder from whatever the folder holds so far.

    Args:
        folder: the run's.
        num_replays: episodes shown at most; of each task the latest success and the latest failure.

    Raises:
        DataError: there is no such folder.
        RunFolderError: the report cannot be written.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"there is no run folder {path}")
    target = path / "report.html"
    # Written beside and then renamed: a reader never sees half a page. Two writers have two names.
    temporary = target.with_suffix(f".tmp-{os.getpid()}")
    try:
        page = frozen_page(path.resolve().name, report_answers(path, num_replays))
        # Half surrogates of foreign texts cannot be written as UTF-8.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
        temporary.replace(target)
    except OSError as error:
        raise RunFolderError(f"the report {target} cannot be written: {error.strerror or error}") from error
    return target


def report_answers(folder: Path, num_replays: int) -> dict[str, Any]:
    """What the page would be answered about a run, by address: all of it, but some of the episodes and steps alone."""
    run = FollowedRun(folder.resolve(), safe_name(folder.resolve().name))
    run.refresh()
    own = f"api/run/{run.name}"
    notes: list[str] = []
    episodes = replays(run, num_replays, notes)
    facts = ROUTES[""](run, {})
    answers: dict[str, Any] = {
        # By the addresses that the page asks the server for: in a frozen page it looks them up here.
        "api/runs": list_of_runs([run], [folder.resolve()]) | {"frozen": True},
        "api/metric-names": metric_notes(),
        own: facts | {"notes": [*facts["notes"], *notes]},
        f"{own}/metrics": thinned(run.metrics),
        **{f"{own}/{word}": ROUTES[word](run, {}) for word in ("tasks", "faults", "doctor")},
        f"{own}/episodes": _episode_list(run, episodes),
        **{f"{own}/episode/{episode['row']['key']}": episode for episode in episodes},
        **{f"{own}/group/{group}": found for group, found in _groups(run, episodes).items()},
        **_comparisons(run),
    }
    if facts["reference"] is not None:
        answers[f"api/reference/{facts['reference'].replace('/', '%2F')}"] = reference_answer(facts["reference"])
    images = Images(run)
    for name in dict.fromkeys(_pictures(episodes)):
        if address := images.address(name):
            answers[f"{own}/attachment/{name}"] = address
    return answers


def replays(run: FollowedRun, count: int, notes: list[str]) -> list[dict[str, Any]]:
    """Of each task the latest success and the latest other episode; of those the `count` latest that can be read."""
    columns = run.index.table.select(["task", "success"]).to_pydict()
    latest: dict[tuple[str, bool], int] = {}
    # In the order written, so that the last one of each kind stays.
    for place, key in enumerate(zip(columns["task"], columns["success"], strict=True)):
        latest[key[0], bool(key[1])] = place
    found = []
    for row in run.rows_at(sorted(latest.values())[-count:] if count else []):
        try:
            episode = run.episode(row["key"], max_tokens=MAX_EPISODE_TOKENS)
        except DataError as error:
            notes.append(str(error))
            continue
        if episode is not None:
            found.append(episode)
    # The links go from shown episode to shown episode: the store's neighbours are not in the page.
    for one, other in zip([None, *found], [*found, None], strict=True):
        if one is not None:
            one["next"] = None if other is None else other["row"]["key"]
        if other is not None:
            other["previous"] = None if one is None else one["row"]["key"]
    return found


def thinned(metrics: MetricColumns) -> dict[str, Any]:
    """All series, of a long run about `MAX_STEPS` steps, the last one among them; numbers with 7 digits."""
    answer = metrics.answer()
    # At least 1: a run without steps would make a stride of 0, which `range` refuses.
    stride = math.ceil(len(answer["steps"]) / MAX_STEPS) or 1
    # Backwards from the last step, which is thereby among them.
    kept = range(len(answer["steps"]) - 1, -1, -stride)[::-1]
    short = {
        # More digits than a curve can show would only lengthen the file.
        name: [None if values[place] is None else float(f"{values[place]:.7g}") for place in kept]
        for name, values in answer["series"].items()
    }
    return answer | {"steps": [answer["steps"][place] for place in kept], "series": short}


class Images:
    """The pictures of one page, embedded in it: the report stays one file. Made for one report."""

    def __init__(self, run: FollowedRun) -> None:
        self._run = run
        self._left = MAX_PAGE_BYTES

    def address(self, name: str) -> str:
        """A picture of the run's store as a data address; "" where there is none, or it is too large for the page."""
        # What is left of the page's budget also bounds a single picture.
        found = self._run.attachment(name, largest=min(MAX_IMAGE_BYTES, self._left))
        if found is None:
            return ""
        content, media_type = found
        self._left -= len(content)
        return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _pictures(episodes: Sequence[Row]) -> list[str]:
    """The hashes that episodes name, in their order."""
    turns = list(chain.from_iterable(episode["turns"] for episode in episodes))
    attached = [attachment["sha256"] for turn in turns for attachment in turn["attachments"]]
    return attached + [name for turn in turns for message in turn["observed"] for name in message["pictures"]]


def _episode_list(run: FollowedRun, episodes: Sequence[Row]) -> dict[str, Any]:
    rows = [dict(episode["row"]) | {"channels": episode["channels"]} for episode in episodes]
    choices = {key: sorted({row[key] for row in rows}) for key in ("task", "split", "stop", "tag", "origin", "start")}
    channels = sorted({name for row in rows for name in row["channels"]})
    return {
        "total": run.index.table.num_rows,
        "matching": len(rows),
        "offset": 0,
        "limit": max(1, len(rows)),
        # The newest first, as the server sorts.
        "rows": rows[::-1],
        "choices": choices | {"channel": channels},
        "searched": len(rows),
        "more": False,
    }


def _groups(run: FollowedRun, episodes: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The groups of the episodes, with those members alone that the page holds."""
    held = {episode["row"]["key"] for episode in episodes}
    found = {}
    for name in dict.fromkeys(episode["row"]["group"] for episode in episodes):
        group = run.group(name)
        if group is not None:
            found[name] = group | {"rows": [row for row in group["rows"] if row["key"] in held]}
    return found


def _comparisons(run: FollowedRun) -> dict[str, Any]:
    """Of each split with two evaluations or more: the first against the last."""
    found = {}
    evaluations = run.evaluations()
    for split in dict.fromkeys(evaluation.split for evaluation in evaluations):
        same = [evaluation for evaluation in evaluations if evaluation.split == split]
        if len(same) < 2:
            continue
        address = f"api/compare?a={run.name}/{same[0].name}&b={run.name}/{same[-1].name}"
        try:
            found[address] = comparison_answer((run, same[0]), (run, same[-1]))
        except DataError:  # no episode in common: `progress` of the run says why
            continue
    return found
