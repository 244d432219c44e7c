"""The report of an audit as text and as JSON. No time and no path stands in it: equal reports are equal bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollwright.checks.audit.findings import AuditFinding, AuditReport, PanelRow, TemplateRow
from rollwright.checks.audit.identity import WorldIdentity
from rollwright.checks.audit.panel_checks import interval_text
from rollwright.contracts import DataError
from rollwright.maths.statistics import Interval

# Each names what to conclude and not only the word: "fit" is about what was tried and nothing beyond.
_SAID = {
    "fit": "FIT: the verifier agreed with the truth in everything that was tried.",
    "unfit": "UNFIT: do not train on this before the failures below are mended.",
    "cannot tell": "CANNOT TELL: nothing failed, but something needed for a verdict could not be shown.",
}
_SHOWN_TEMPLATES = 40
_MARK = {"fail": "FAIL", "refuse": "CANNOT TELL", "warn": "WARNING", "note": "NOTE"}


def format_audit(report: AuditReport) -> str:
    """The whole report for a terminal."""
    head = f"Audit of {report.subject} {report.identity.version} (limits of policy version {report.policy_version})"
    lines = [head, f"{report.tasks} tasks, {report.starts} starts with known truth", "", *_table(report.rows), ""]
    lines += ["Checks", *(_check_line(check) for check in report.checks)]
    lines += _template_lines(report.templates)
    if report.findings:
        lines += ["", "Findings, the severest first"]
        for finding in report.findings:
            lines += _finding_lines(finding)
    identity = asdict(report.identity)
    lines += ["", "Identity: " + ", ".join(f"{name} {value}" for name, value in identity.items()), ""]
    lines.append(_SAID[report.verdict])
    return "\n".join(lines)


def _table(rows: Sequence[PanelRow]) -> list[str]:
    head = ("policy", "truth", "episodes", "accepted", "explained", "faults", "mean score", "rate [95 % interval]")
    body = [
        (
            row.policy,
            row.truth,
            str(row.episodes),
            str(row.accepted),
            str(row.explained),
            str(row.faults),
            "-" if row.mean is None else f"{row.mean:.3f}",
            # The note stands where the rate would: an empty cell would look like a rate of zero.
            row.note if row.rate is None else interval_text(row.rate) + (f"  ({row.note})" if row.note else ""),
        )
        for row in rows
    ]
    # Not the last column, so that no line ends in blanks.
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head) - 1)]
    return [
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[-1]]) for line in (head, *body)
    ]


def _template_lines(rows: Sequence[TemplateRow]) -> list[str]:
    """The templates that have a false accept or a false reject; the others are counted."""
    # A world can have a thousand templates; those without an error are only counted.
    odd = [row for row in rows if row.rejected or row.accepted]
    lines = ["", f"By template: {len(rows) - len(odd)} of {len(rows)} without a false accept or a false reject"]
    for row in odd[:_SHOWN_TEMPLATES]:
        rejects = "none played" if row.rejects is None else f"{row.rejected}/{row.golden}, {interval_text(row.rejects)}"
        accepts = "none" if row.accepts is None else f"{row.accepted}/{row.nonsolving}, {interval_text(row.accepts)}"
        lines.append(f"  {row.template}: refused {rejects}; accepted {accepts}")
    return lines if len(odd) <= _SHOWN_TEMPLATES else [*lines, f"  and {len(odd) - _SHOWN_TEMPLATES} more"]


def _check_line(check: Any) -> str:
    if check.skipped:
        return f"  skip         {check.name}: {check.skipped}"
    told = "; ".join(f"{name} {value}" for name, value in check.measured.items())
    return f"  {check.status:<12} {check.name}" + (f": {told}" if told else "")


def _finding_lines(finding: AuditFinding) -> list[str]:
    lines = [f"  {_MARK[finding.severity]} ({finding.probe}): {finding.message}.", f"    {finding.repair}"]
    return [*lines, *(f"    | {line}" for line in finding.transcript.splitlines())]


def audit_json(report: AuditReport) -> str:
    """The whole report as JSON, for `--json` and for a later `--before`."""
    told: dict[str, Any] = {
        "subject": report.subject,
        "verdict": report.verdict,
        "policy_version": report.policy_version,
        "tasks": report.tasks,
        "starts": report.starts,
        "identity": asdict(report.identity),
        "panel": [_row_json(row) for row in report.rows],
        "templates": [_template_json(row) for row in report.templates],
        "checks": [
            {"name": c.name, "status": c.status, "measured": dict(c.measured), "skipped": c.skipped}
            for c in report.checks
        ],
        "findings": [
            asdict(finding) | {"severity": finding.severity, "repair": finding.repair} for finding in report.findings
        ],
    }
    # ASCII: transcripts quote hostile texts, which a terminal or an older reader could not show.
    return json.dumps(told, indent=1, ensure_ascii=True)


def _row_json(row: PanelRow) -> dict[str, Any]:
    told = asdict(row)
    # A list of three, so that readers need not know the class Interval.
    told["rate"] = None if row.rate is None else [row.rate.point, row.rate.low, row.rate.high]
    return told


def _template_json(row: TemplateRow) -> dict[str, Any]:
    told = asdict(row)
    for name in ("rejects", "accepts"):
        rate: Interval | None = getattr(row, name)
        told[name] = None if rate is None else [rate.point, rate.low, rate.high]
    return told


def read_identity(path: Path) -> WorldIdentity:
    """The identity in the JSON of an earlier audit.

    Raises:
        DataError: no such file, or it is not a report of an audit.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["identity"]
        # Unknown fields raise TypeError, which is told as "not a report" like any other damage.
        return WorldIdentity(**{name: str(value) for name, value in told.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a report of `rollwright audit --json` ({error}): write one and name it"
        ) from error
