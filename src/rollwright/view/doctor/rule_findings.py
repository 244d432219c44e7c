"""What a rule of the doctor says: a finding with its evidence and what to try, or why it cannot judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rollwright.view.doctor.run_evidence import RunEvidence

Severity = Literal["serious", "harmful", "minor"]
"""Nothing is learned or the result is wrong · learning is slower or worse than it need be · worth knowing."""
Certainty = Literal["certain", "likely", "possible"]
"""A count that speaks for itself · a pattern with one usual cause · a pattern with several causes."""
# The order is the order of the report.
SEVERITIES: tuple[Severity, ...] = ("serious", "harmful", "minor")
CERTAINTIES: tuple[Certainty, ...] = ("certain", "likely", "possible")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `remedies` begin with a `key=value` where a setting helps, then a dash and the reason.

    `rule`, `title` and `follows` are filled in by the diagnosis; `follows` names its usual cause.
    """

    severity: Severity
    certainty: Certainty
    message: str
    evidence: tuple[str, ...]
    remedies: tuple[str, ...]
    rule: str = ""
    title: str = ""
    follows: str = ""


@dataclass(frozen=True, slots=True)
class NotJudged:
    """A rule that lacks what it needs; `reason` says what."""

    reason: str


Verdict = Finding | NotJudged | None
"""None: the rule looked and found nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorRule:
    """One rule: its name, what it finds as a heading, when it does, and the function that judges.

    `explains` names rules whose findings usually follow from this one.
    """

    name: str
    title: str
    when: str
    judge: Callable[[RunEvidence], Verdict]
    explains: tuple[str, ...] = ()
