"""The two lanes of a run's time by their parts, as metric files name them, and each part's share.

The lane of the generator and that of the learner are measured in `rollout.ledger`; whoever reads a metrics file needs
the names alone, and must not load an engine for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEARNER_LANE = {
    "wait": ("time/collect_s", "time/greedy_s"),
    "score": ("time/score_s",),
    "learn": ("time/update_s",),
    "sync": ("time/sync_s",),
}
"""Part of the learner's lane -> the timings of a step that belong to it."""
GENERATOR_PARTS = ("prefill", "decode", "engine", "environment", "queue")
LEARNER_PARTS = (*LEARNER_LANE, "other")


def time_shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Lane -> part -> its share of the lane's time, over all rows of a metrics file; no lane where none is noted."""
    lanes = {"generator": GENERATOR_PARTS, "learner": LEARNER_PARTS}
    found: dict[str, dict[str, float]] = {}
    for lane, parts in lanes.items():
        # A value that was not finite is null in the file.
        totals = {part: sum(float(row.get(f"ledger/{lane}_{part}_s") or 0.0) for row in rows) for part in parts}
        if (whole := sum(totals.values())) > 0:
            found[lane] = {part: seconds / whole for part, seconds in totals.items()}
    return found
