"""Whether two readings can be paired: the same questions, judged in the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollwright.contracts import DataError
from rollwright.evaluation.foreign.log_reading import EvaluationReading, LogReport


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPairing:
    """How many rows have a number on both sides, and what makes the two logs less comparable."""

    num_paired: int
    num_only_a: int
    num_only_b: int
    warnings: tuple[str, ...] = ()


def check_same_content(
    a: EvaluationReading, b: EvaluationReading, *, name_a: str = "A", name_b: str = "B"
) -> LogPairing:
    """Demand that rows of one key ask the same question; count what has no partner.

    Raises:
        DataError: one is a log of others and the other our own, a paired row asks something else or expects another
            answer, or the scores are of different scorers, filters or metrics.
    """
    if a.evaluation.origin != b.evaluation.origin:
        own, foreign = (name_a, name_b) if a.evaluation.origin == "own" else (name_b, name_a)
        raise DataError(
            f"{own} is an evaluation of Rollwright and {foreign} a log of another tool: their episodes cannot be "
            "paired. Compare two evaluations, or two logs of the same tool"
        )
    # A row that faulted has no number that could be paired.
    keys_a, keys_b = ({row.key for row in side.evaluation.rows if not row.is_fault} for side in (a, b))

    def pairing(warnings: Sequence[str] = ()) -> LogPairing:
        return LogPairing(
            num_paired=len(keys_a & keys_b),
            num_only_a=len(keys_a - keys_b),
            num_only_b=len(keys_b - keys_a),
            warnings=tuple(warnings),
        )

    # Records of our own have no report; `check_worlds` holds them together.
    if a.report is None or b.report is None:
        return pairing()
    _check_choice(a.report, b.report, name_a, name_b)
    other_prompts = 0
    for key in a.rows.keys() & b.rows.keys():
        first, second = a.rows[key], b.rows[key]
        # A log that does not say what was asked has "" here.
        if first.question and second.question and first.question != second.question:
            raise DataError(
                f"{first.task} is another question in {name_a} than in {name_b}: its text or expected answer differs. "
                "The two logs are of different versions of the data and cannot be paired"
            )
        other_prompts += first.prompt != second.prompt
    warnings = _unlike_facts(a.report.facts, b.report.facts, name_a, name_b)
    if other_prompts:
        warnings.append(f"{other_prompts} questions were asked in other words: the prompt or chat template differs")
    return pairing(warnings)


def _check_choice(a: LogReport, b: LogReport, name_a: str, name_b: str) -> None:
    if a.reader != b.reader:
        raise DataError(f"{name_a} is a {a.reader} and {name_b} a {b.reader}: their rows cannot be paired")
    # Two metrics are two quantities, even where both lie between 0 and 1.
    for what in a.choice.keys() & b.choice.keys():
        if a.choice[what] != b.choice[what]:
            raise DataError(
                f"the scores of {name_a} come from {what} {a.choice[what]!r}, those of {name_b} from "
                f"{b.choice[what]!r}: name one that both have with --{what}"
            )


def _unlike_facts(a: Mapping[str, Any], b: Mapping[str, Any], name_a: str, name_b: str) -> list[str]:
    return [
        f"{name} differs: {_short(a[name])} in {name_a}, {_short(b[name])} in {name_b}"
        for name in a
        if name in b and a[name] != b[name]
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
