"""What a success costs, by the episodes of an evaluation, and what a run spent, by its `run.json`.

Two runs of as many updates may have cost very different amounts: a comparison shows both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessCost:
    """Totals over judged episodes, divided by the successes among them. None where the record does not say.

    With no success every cost is infinite. `seconds` adds up the wall clock of the episodes, which may have run side by
    side.
    """

    num_successes: int
    steps: float
    tokens: float | None
    seconds: float | None


def success_cost(evaluation: Evaluation, rows: Sequence[EpisodeRow]) -> SuccessCost | None:
    """The cost per success of these episodes; None without a verdict, or of a log that counts no turns."""
    # An episode without a verdict can be no success, so its cost counts for none.
    judged = [row for row in rows if row.success is not None]
    if not judged or evaluation.origin == "foreign":
        return None
    successes = sum(bool(row.success) for row in judged)

    def each(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values):  # a sum over some of the episodes would look cheaper than it is
            return None
        return sum(known) / successes if successes else float("inf")

    # A search calls the world beside the turns of the path that it decides for.
    steps = each([row.num_turns if row.env_calls is None else row.env_calls for row in judged])
    return SuccessCost(
        num_successes=successes,
        # Every row counts its turns, so None never comes; only the type of `each` allows it.
        steps=float("inf") if steps is None else steps,
        tokens=each([row.num_tokens for row in judged]),
        seconds=each([row.wall_s for row in judged]),
    )


def training_cost(run: str | Path) -> str:
    """'the run spent 960 episodes, 4,812 environment steps, 93 s'; '' where nobody wrote it."""
    try:
        document = json.loads((Path(run) / "run.json").read_text(encoding="utf-8"))
        total = {key: float(document["totals"][key]) for key in _SPENT}
    # The line is an extra: evaluations are compared without it.
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    parts = [f"{total[key]:,.0f} {words}" for key, words in _SPENT.items() if total[key]]
    return f"the run spent {', '.join(parts)}, evaluations included" if parts else ""


_SPENT = {
    "episodes": "episodes",
    "turns": "environment steps",
    "tokens_sampled": "sampled tokens",
    "tokens_trained": "trained tokens",
    "wall_s": "s",
}
