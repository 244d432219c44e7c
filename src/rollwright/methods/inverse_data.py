"""Who teaches a model of inverse dynamics, what its labels are judged by, what it labels, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rollwright.contracts import DataError, Trajectory
from rollwright.methods.demonstrations import imitable
from rollwright.methods.inverse_dynamics import LabelReport, held_out, require_logs
from rollwright.run_io import RunFolder
from rollwright.store import TrajectoryStore


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseEpisodes:
    """Who teaches the model (`teach`), what its labels are judged by (`aside`), and what it labels.

    hidden: episodes whose actions it is not shown. logs: those that have none.
    """

    teach: list[Trajectory]
    aside: list[Trajectory]
    hidden: list[Trajectory]
    logs: list[Trajectory]

    @classmethod
    def read(
        cls, stores: Sequence[str], logs: Sequence[str], *, hide_frac: float, held_out_frac: float, seed: int
    ) -> InverseEpisodes:
        """All of them, before anything is trained.

        Args:
            stores, logs: folders of stored episodes, with actions and without.
            hide_frac: share of `stores` whose actions are hidden. held_out_frac: share of the rest that judges.

        Raises:
            DataError: there is nothing to learn from, to judge by or to label, or the logs have actions.
        """
        if not stores or not (logs or hide_frac):
            raise DataError(
                "name stores with actions in data.stores, and what to label in data.logs (or data.hide_frac)"
            )
        # Failures show what an action does as well as successes.
        stored = imitable(_stored_episodes(stores), only_success=False)
        # An episode's side depends on its id and not on its place, so it stays there when the stores grow.
        hidden = [t for t in stored if held_out(t, hide_frac, seed=seed, what="hidden")]
        known = [t for t in stored if not held_out(t, hide_frac, seed=seed, what="hidden")]
        if not known:
            raise DataError(f"data.hide_frac = {hide_frac:g} leaves none of {len(stored)} episodes to learn from")
        aside = [t for t in known if held_out(t, held_out_frac, seed=seed, what="held-out")]
        teach = [t for t in known if t not in aside]
        _require_teachers_and_judges(teach, aside, held_out_frac)
        unlabelled = require_logs(_stored_episodes(logs)) if logs else []
        return cls(teach=teach, aside=aside, hidden=hidden, logs=unlabelled)


def _require_teachers_and_judges(
    teach: Sequence[Trajectory], aside: Sequence[Trajectory], held_out_frac: float
) -> None:
    """Raises DataError where there is nothing to learn from, or nothing else to judge the labels by."""
    if teach and aside:
        return
    missing, change = ("to judge the labels by", "raise") if teach else ("to learn from", "lower")
    raise DataError(
        f"data.held_out_frac = {held_out_frac:g} of {len(teach) + len(aside)} episodes with actions leaves none "
        f"{missing}: {change} it, or name larger stores"
    )


def _stored_episodes(stores: Sequence[str]) -> list[Trajectory]:
    """All episodes of these folders."""
    return [t for store in stores for t in TrajectoryStore(store, mode="read").iter_trajectories()]


def tell_labels(folder: RunFolder, reports: dict[str, LabelReport], kept: Sequence[Trajectory], count: int) -> None:
    """Print what came of it, and write labels.json.

    Args:
        kept: the logs that got a label. count: all logs.
    """
    turns = [turn for t in kept for turn in t.turns]
    # A turn below the threshold is kept without an action.
    filled = sum(bool(turn.action_ids) for turn in turns)
    document: dict[str, dict[str, float]] = {name: asdict(report) for name, report in reports.items()}
    document["store"] = {"logs": count, "labelled": len(kept), "turns": len(turns), "turns_labelled": filled}
    (folder.path / "labels.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, report in reports.items():
        print(f"{name}: {report}")
    print(f"{len(kept)} of {count} logs labelled, {filled} of their {len(turns)} turns: {folder.trajectories}")
