"""Conditions on runs such as `algorithm.preset=grpo` or `success>0.5`: parsed, never evaluated."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rollwright.contracts import DataError
from rollwright.view.records.run_record import RunRecord, Value

# `>=` stands before `>`, which would match its first character; the name is taken as short as possible.
_CONDITION = re.compile(r"\s*(?P<key>[\w./:+-]+?)\s*(?P<sign>>=|<=|!=|=|>|<|~)\s*(?P<value>.*?)\s*", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCondition:
    """One condition: a name, a sign (= != > >= < <= ~), and the text to compare with. `~` means "contains"."""

    key: str
    sign: str
    text: str

    def holds(self, record: RunRecord) -> bool:
        """Whether a run meets it. A run without a value meets none but `!=`."""
        found = record.value(self.key)
        if found is None:
            return self.sign == "!="
        if self.sign == "~":
            return self.text.lower() in str(found).lower()
        wanted = _as(found, self.text)
        if wanted is None:
            return self.sign == "!="
        return _COMPARE[self.sign](found, wanted)


def parse_condition(text: str) -> RunCondition:
    """Read one condition.

    Raises:
        DataError: it has no sign, or compares sizes with what is no number.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise DataError(
            f"{text!r} is not a condition: write NAME=VALUE, or another of != > >= < <= ~ (contains), such as "
            "'algorithm.preset=grpo' or 'success>0.5'; quote it, since a shell reads > and < itself"
        )
    condition = RunCondition(key=found["key"], sign=found["sign"], text=found["value"])
    # Refused at once: no run could meet such a condition, and the answer would look like an empty record.
    if condition.sign in (">", ">=", "<", "<=") and _number(condition.text) is None:
        raise DataError(f"{text!r} compares with {condition.text!r}, which is not a number")
    return condition


def select(records: Sequence[RunRecord], conditions: Sequence[RunCondition]) -> list[RunRecord]:
    """The runs that meet all conditions."""
    return [record for record in records if all(condition.holds(record) for condition in conditions)]


def sort_records(records: Sequence[RunRecord], keys: Sequence[str]) -> list[RunRecord]:
    """Sort by names, the first one first; `-name` from the highest down. Runs without a value come last."""
    found = list(records)
    # Sorting is stable: the last key first, so that the first one decides in the end.
    for key in reversed(keys):
        name, down = key.removeprefix("-"), key.startswith("-")
        having = [record for record in found if record.value(name) is not None]
        lacking = [record for record in found if record.value(name) is None]
        found = sorted(having, key=lambda record: _order(record.value(name)), reverse=down) + lacking
    return found


def _order(value: Value) -> tuple[int, float, str]:
    """Numbers before texts, each among themselves."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    # One name may hold numbers in some runs and text in others, which Python does not compare.
    return 1, 0.0, str(value)


def _as(like: Value, text: str) -> Value:
    """The text as a value of the same kind; None where it cannot be one."""
    # Before numbers, since `True` is an int in Python.
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text.lower())
    if isinstance(like, int | float):
        return _number(text)
    return text


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # `nan` and `inf` parse as floats, but no run can be compared with them.
    return number if math.isfinite(number) else None
