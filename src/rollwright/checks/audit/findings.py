"""What an audit found: rows of the panel, checks, findings, and the verdict over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rollwright.checks.audit.audit_episodes import AuditEpisode
from rollwright.checks.audit.audit_policy import POLICY_VERSION, REPAIR, SEVERITY, Severity
from rollwright.checks.audit.identity import WorldIdentity
from rollwright.maths.statistics import Interval

Verdict = Literal["fit", "unfit", "cannot tell"]
Status = Literal["pass", "fail", "warn", "cannot tell", "skip"]
# 2 is what argparse exits with, so "cannot tell" takes 3.
EXIT_CODES: dict[Verdict, int] = {"fit": 0, "unfit": 1, "cannot tell": 3}
"""Exit codes of `rollwright audit`; 2 is a mistake in the command line."""
# The severest first; both the order of the report and the status of a check go by it.
_RANK: dict[Severity, int] = {"fail": 0, "refuse": 1, "warn": 2, "note": 3}
# A loop plays 500 turns and garbage has 10,000 characters: transcripts of them must stay readable.
_SHOWN_TURNS, _SHOWN_CHARS = 8, 160


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelRow:
    """What one policy did. `accepted` counts successes; of a policy that does not solve, only unexplained ones.

    `explained` are successes that the world declares or that its own state confirms. `rate` is the interval of
    `accepted`, None where nothing was played; `mean` the mean score.
    """

    policy: str
    truth: str
    episodes: int = 0
    accepted: int = 0
    explained: int = 0
    undecided: int = 0
    faults: int = 0
    mean: float | None = None
    rate: Interval | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRow:
    """One task or template: how often its solutions were refused and its non-solving episodes called a success."""

    template: str
    golden: int
    rejected: int
    nonsolving: int
    accepted: int
    rejects: Interval | None
    accepts: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One thing that is wrong. `kind` names its severity and repair in `audit_policy`; `probe` is what found it."""

    kind: str
    probe: str
    message: str
    transcript: str = ""

    @property
    def severity(self) -> Severity:
        """What it does to the verdict."""
        return SEVERITY[self.kind]

    @property
    def repair(self) -> str:
        """What to do."""
        return REPAIR[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check: what it measured, what it found, or what it lacked (`skipped`)."""

    name: str
    measured: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[AuditFinding, ...] = ()
    skipped: str = ""

    @property
    def status(self) -> Status:
        """The worst of its findings."""
        if self.skipped:
            return "skip"
        # A check without findings passes, as does one that only has notes.
        worst: Severity = "note"
        for finding in self.findings:
            worst = min(worst, finding.severity, key=_RANK.__getitem__)
        said: dict[Severity, Status] = {"fail": "fail", "refuse": "cannot tell", "warn": "warn", "note": "pass"}
        return said[worst]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Everything that an audit of one world, or of a reward on it, found."""

    subject: str
    rows: tuple[PanelRow, ...]
    templates: tuple[TemplateRow, ...]
    checks: tuple[CheckResult, ...]
    identity: WorldIdentity
    tasks: int
    starts: int
    policy_version: str = POLICY_VERSION

    @property
    def findings(self) -> list[AuditFinding]:
        """All findings, the severest first."""
        found = [finding for check in self.checks for finding in check.findings]
        return sorted(found, key=lambda finding: _RANK[finding.severity])

    @property
    def verdict(self) -> Verdict:
        """`unfit` where something failed, `cannot tell` where something could not be shown, else `fit`."""
        severities = {finding.severity for finding in self.findings}
        # A failure outweighs what could not be shown: more episodes would not make it go away.
        if "fail" in severities:
            return "unfit"
        return "cannot tell" if "refuse" in severities else "fit"

    @property
    def exit_code(self) -> int:
        """0 fit, 1 unfit, 3 cannot tell."""
        return EXIT_CODES[self.verdict]

    def row(self, policy: str) -> PanelRow:
        """The row of one policy.

        Raises:
            KeyError: no such policy.
        """
        found = {row.policy: row for row in self.rows}
        return found[policy]


def transcript_of(episode: AuditEpisode) -> str:
    """One episode in a few lines, as data: control characters are escaped and long texts are cut."""
    lines = [f"{episode.policy} on {episode.where}" + (f" ({_cut(episode.variant)})" if episode.variant else "")]
    if episode.goal:
        lines.append(f"goal: {_cut(episode.goal)}")
    lines.append(f"sees: {_cut(episode.first)}")
    told = _told(episode)
    # The last turn stays: it is the one that the verdict followed.
    for line in told if len(told) <= _SHOWN_TURNS else [*told[: _SHOWN_TURNS - 1], "...", told[-1]]:
        lines.append(line)
    if episode.fault:
        lines.append(f"fault: {_cut(episode.fault)}")
    return "\n".join(lines)


def _told(episode: AuditEpisode) -> list[str]:
    """A line per turn; turns that repeat the one before are counted on its line."""
    found: list[tuple[int, str, int]] = []
    for place, step in enumerate(episode.steps):
        paid = sum(number for _, number in step.rewards)
        end = " terminated" if step.terminated else " truncated" if step.truncated else ""
        told = f"{_cut(step.action)} -> {_cut(step.text)} [{paid:g}{end}, success {step.success}]"
        if found and found[-1][1] == told:
            found[-1] = (found[-1][0], told, found[-1][2] + 1)
        else:
            found.append((place + 1, told, 1))
    return [f"{place}. {told}" + (f" ({count} times)" if count > 1 else "") for place, told, count in found]


def _cut(text: str) -> str:
    # Hostile texts hold terminal commands and signs that turn the line around.
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}... ({len(shown)} characters)"
