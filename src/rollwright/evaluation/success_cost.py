"""What one success costs: environment steps, sampled tokens, seconds, over the episodes of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollwright.evaluation.evaluation_record import EpisodeRow


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


def success_cost(rows: Sequence[EpisodeRow]) -> SuccessCost | None:
    """The cost per success of these episodes; None where no episode got a verdict."""
    judged = [row for row in rows if row.success is not None]
    if not judged:
        return None
    successes = sum(bool(row.success) for row in judged)

    def each(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values):  # a sum over some of the episodes would look cheaper than it is
            return None
        return sum(known) / successes if successes else float("inf")

    steps = each([row.num_turns for row in judged])
    return SuccessCost(
        num_successes=successes,
        steps=float("inf") if steps is None else steps,
        tokens=each([row.num_tokens for row in judged]),
        seconds=each([row.wall_s for row in judged]),
    )
