"""Waypoints: states in the middle of an episode that others can begin at. Out of a trajectory, to JSON and back."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from rollwright.contracts import Attachment, Passed, Shown, Task, Trajectory, Turn, Way, Waypoint
from rollwright.rollout import prompt_digest


def waypoints_of(
    trajectory: Trajectory, way: Way, start: Waypoint | None = None, *, every: int = 1
) -> tuple[Waypoint, ...]:
    """The states before each `every`-th turn, counted from the task's initial state, which is left out.

    Args:
        way: what the trajectory was shown (`Group.ways`).
        start: where the trajectory itself began; its way becomes the beginning of these.
    """
    passed = list(start.passed) if start else []
    found: list[Waypoint] = []
    # Not strict: a turn whose prompt left no room was shown something and did not act.
    for index, (turn, shown) in enumerate(zip(trajectory.turns, way.shown, strict=False)):
        if passed and len(passed) % every == 0:
            one = Waypoint(
                source=trajectory.id,
                task=trajectory.task,
                seed=trajectory.seed,
                passed=tuple(passed),
                shown=shown,
                state_key=turn.state_key,
                prompt_digest=prompt_digest(turn.prompt_ids),
                # Snapshots are numbered by the turns of the episode itself; None where the world replays.
                snapshot=way.snapshots.get(index),
            )
            found.append(one)
        passed.append(_behind(turn, shown))
    return tuple(found)


def _behind(turn: Turn, shown: Shown) -> Passed:
    return Passed(
        shown=shown, state_key=turn.state_key, action=turn.action, action_ids=turn.action_ids, finish=turn.finish
    )


def to_row(waypoints: tuple[Waypoint, ...]) -> dict[str, Any]:
    """The waypoints of one episode as JSON. Their ways are beginnings of the longest one, which is kept once."""
    if not waypoints:
        return {"points": []}
    longest = waypoints[-1]
    return {
        "source": longest.source,
        # JSON takes no other mapping than a dict.
        "task": asdict(longest.task) | {"params": dict(longest.task.params)},
        "seed": longest.seed,
        "passed": [asdict(passed) for passed in longest.passed],
        "points": [
            {
                "turn": len(one.passed),
                # Pictures are kept by their hash, without bytes (`restoring.shown_of`), so this is JSON.
                "shown": asdict(one.shown),
                "state_key": one.state_key,
                "prompt_digest": one.prompt_digest,
                "snapshot": None if one.snapshot is None else base64.b64encode(one.snapshot).decode(),
            }
            for one in waypoints
        ],
    }


def point_row(one: Waypoint) -> dict[str, Any]:
    """One waypoint as JSON, with its kind and what became of its episode; what is forced there is drawn anew."""
    return to_row((one,)) | {"kind": one.kind, "status": one.status}


def waypoint_of(row: Mapping[str, Any]) -> Waypoint:
    """The inverse of `point_row`."""
    return replace(from_row(row)[0], kind=row["kind"], status=row["status"])


def from_row(row: Mapping[str, Any]) -> tuple[Waypoint, ...]:
    """The inverse of `to_row`."""
    return tuple(_points(row)) if row["points"] else ()


def _points(row: Mapping[str, Any]) -> Iterator[Waypoint]:
    task = Task(**row["task"])
    passed = tuple(_passed(one) for one in row["passed"])
    for point in row["points"]:
        packed = point["snapshot"]
        yield Waypoint(
            source=row["source"],
            task=task,
            seed=row["seed"],
            passed=passed[: point["turn"]],
            shown=_shown(point["shown"]),
            state_key=point["state_key"],
            prompt_digest=point["prompt_digest"],
            snapshot=None if packed is None else base64.b64decode(packed),
        )


def _passed(row: Mapping[str, Any]) -> Passed:
    # JSON gave a list; a context adds these ids to a tuple of its own.
    return Passed(**{**row, "shown": _shown(row["shown"]), "action_ids": tuple(row["action_ids"])})


def _shown(row: Mapping[str, Any]) -> Shown:
    # A replay compares what is shown with `!=`, and a list never equals a tuple.
    return Shown(**{**row, "attachments": tuple(Attachment(**one) for one in row["attachments"])})
