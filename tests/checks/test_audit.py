"""The audit finds every planted fault by its own probe, and calls the unmodified world fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.checks import (
    AuditPlan,
    AuditReport,
    audit_json,
    audit_world,
    behaviour_digest,
    format_audit,
    judge_recorded,
    read_identity,
    record_panel,
    reward_recorded,
)
from rollwright.checks.audit.audit_rates import clustered_rate, informative_share, rank_correlation
from rollwright.contracts import DataError, Group, Score, Split, Task
from rollwright.maths.statistics import wilson_interval
from tests.checks import planted_worlds as planted

SMALL = AuditPlan(constants=3, leak_pairs=2, replayed=24)


@pytest.fixture(scope="module")
def base() -> AuditReport:
    return audit_world(planted.SheetWorld)


def test_the_unmodified_world_is_fit_and_says_what_was_not_run(base: AuditReport):
    assert (base.verdict, base.exit_code) == ("fit", 0), format_audit(base)
    assert not [f for f in base.findings if f.severity != "note"], format_audit(base)
    assert base.row("golden").accepted == base.row("golden").episodes == 90
    assert base.row("reworded").accepted == base.row("reworded").episodes > 150
    skipped = {check.name for check in base.checks if check.status == "skip"}
    assert skipped == {"second opinion", "headroom"}
    for row in base.rows:
        assert row.rate is not None and row.episodes >= 26, row
        assert row.truth == "solves" or row.accepted == 0, row


def probes(report: AuditReport, severity: str) -> set[str]:
    return {finding.probe for finding in report.findings if finding.severity == severity}


FAULTS: list[tuple[int, Callable[[], Any], str, str]] = [
    (1, planted.world_with(planted.EmptyIsRight), "null", "fail"),
    (2, planted.world_with(planted.LimitIsSuccess), "null", "fail"),
    (2, planted.world_with(planted.LimitIsSuccess), "loop", "fail"),
    (3, planted.world_with(planted.PartIsSuccess), "half", "fail"),
    (4, planted.MostlyYes, "constant", "fail"),
    (5, planted.world_with(planted.Substring), "shotgun", "fail"),
    (6, planted.world_with(planted.AnswerShown), "echo", "fail"),
    (6, planted.world_with(planted.AnswerShown), "answer leakage", "warn"),
    (7, planted.world_with(planted.ObeysItsInput), "injection", "fail"),
    (8, planted.world_with(planted.ParsesTheScore), "forger", "fail"),
    (9, planted.world_with(planted.SomeImpossible), "golden", "fail"),
    (10, planted.world_with(planted.ExactSpacing), "reworded", "fail"),
    (11, planted.world_with(planted.FlagSurvives), "leakage", "fail"),
    (12, planted.world_with(planted.CountsResets), "leakage", "fail"),
    (13, planted.world_with(planted.AnswersStay), "leakage", "fail"),
    (14, planted.world_with(planted.DrawsItsOwn), "determinism", "fail"),
    (15, planted.world_with(planted.PaysEachAction), "length", "warn"),
    (16, planted.world_with(planted.ScoresItsFaults), "fault", "fail"),
    (17, planted.HeldOutTaskInTrain, "splits", "fail"),
    (17, planted.SameTasks, "splits", "fail"),
    (18, planted.world_with(planted.CostsEachAction), "early stop", "fail"),
]


@pytest.fixture(scope="module")
def audited() -> Callable[[Callable[[], Any]], AuditReport]:
    known: dict[Callable[[], Any], AuditReport] = {}

    def audit(build: Callable[[], Any]) -> AuditReport:
        if build not in known:
            known[build] = audit_world(build, plan=SMALL)
        return known[build]

    return audit


@pytest.mark.parametrize(
    ("number", "build", "probe", "severity"), FAULTS, ids=[f"{i}-{f[0]}-{f[2]}" for i, f in enumerate(FAULTS)]
)
def test_every_planted_fault_is_found_by_its_probe(number, build, probe, severity, audited):
    report = audited(build)
    assert probe in probes(report, severity), format_audit(report)
    assert report.verdict == ("fit" if severity == "warn" and number == 15 else "unfit")
    assert report.row("golden").faults == report.row("null").faults == 0
    assert all(finding.repair and finding.kind != "own error" for finding in report.findings)


def test_a_changed_wording_under_one_version_is_found_by_the_behaviour_digest(base: AuditReport, tmp_path: Path):
    file = tmp_path / "before.json"
    file.write_text(audit_json(base))
    before = read_identity(file)
    assert before == base.identity
    changed = audit_world(planted.OtherWording, plan=SMALL, before=before)
    assert "behaviour digest" in probes(changed, "fail") and changed.verdict == "unfit"
    named = type("Named", (planted.OtherWording,), {"version": "2"})
    assert audit_world(named, plan=SMALL, before=before).verdict == "fit"
    assert behaviour_digest(planted.SheetWorld()) == behaviour_digest(planted.SheetWorld()) == before.behaviour
    with pytest.raises(DataError, match="not a report"):
        read_identity(tmp_path / "nothing.json")


@pytest.fixture(scope="module")
def recorded() -> Any:
    return asyncio.run(record_panel(planted.SheetWorld, plan=SMALL))


def test_groups_of_one_result_leave_nothing_to_learn(recorded: Any):
    solved = judge_recorded(recorded, groups={f"t{i}": [True] * 8 for i in range(20)})
    assert "headroom" in probes(solved, "fail") and solved.verdict == "unfit"
    few = {f"t{i}": [i != 0, *[True] * 7] for i in range(20)}
    assert "headroom" in probes(judge_recorded(recorded, groups=few), "warn")
    mixed = judge_recorded(recorded, groups={f"t{i}": [True, False] for i in range(20)})
    assert mixed.verdict == "fit" and mixed.exit_code == 0


def test_fewer_golden_episodes_than_the_limit_needs_cannot_tell(recorded: Any):
    cut = replace(recorded, panel={**recorded.panel, "golden": recorded.panel["golden"][:59]})
    report = judge_recorded(cut)
    assert (report.verdict, report.exit_code) == ("cannot tell", 3)
    assert judge_recorded(replace(cut, panel={**cut.panel, "golden": recorded.panel["golden"][:60]})).verdict == "fit"


def test_a_world_without_a_teacher_cannot_be_judged_and_the_exit_code_says_so():
    untaught = type("Untaught", (planted.SheetWorld,), {"teacher": lambda self, task: None})
    report = audit_world(untaught, plan=SMALL)
    assert (report.verdict, report.exit_code) == ("cannot tell", 3), format_audit(report)
    assert "golden" in probes(report, "refuse")


def test_a_task_list_that_changes_while_it_is_played_cannot_be_judged():
    class Growing(planted.SheetWorld):
        listed = 0

        def tasks(self, split: Split) -> list[Task]:
            self.listed += 1
            return super().tasks(split) if self.listed < 10 else super().tasks(split)[1:]

    report = audit_world(Growing, plan=SMALL)
    assert report.verdict == "cannot tell" and "identity" in probes(report, "refuse"), format_audit(report)


def test_a_few_refused_solutions_are_shown_though_they_pass_the_limit():
    class OneRefused(planted.Sheet):
        def right(self, action: str) -> bool:
            return self.task.id != "train/sum/3" and super().right(action)

    report = audit_world(planted.world_with(OneRefused), plan=SMALL)
    assert report.verdict == "fit" and "golden" in probes(report, "warn"), format_audit(report)
    row = next(row for row in report.templates if row.template == "sum")
    assert (row.rejected, row.golden) == (1, 30) and "train/sum/3" in format_audit(report)


def test_the_same_audit_twice_gives_the_same_bytes():
    twice = [audit_world(planted.SheetWorld, plan=SMALL) for _ in range(2)]
    assert audit_json(twice[0]) == audit_json(twice[1])
    assert format_audit(twice[0]) == format_audit(twice[1])
    assert json.loads(audit_json(twice[0]))["verdict"] == "fit"


class SaysYes:
    """A judge that believes whoever claims success, and nobody else."""

    name = "says_yes"

    def score(self, group: Group) -> list[Score]:
        claims = ["verdict: yes" in "".join(turn.action for turn in t.turns).lower() for t in group.trajectories]
        right = [t.success is True for t in group.trajectories]
        return [Score(value=float(a or b), verifier=self.name) for a, b in zip(claims, right, strict=True)]


class Fickle:
    """Scores by the place in the group."""

    name = "fickle"

    def score(self, group: Group) -> list[Score]:
        return [
            Score(value=float(t.success is True) - 0.1 * (i % 2), verifier=self.name)
            for i, t in enumerate(group.trajectories)
        ]


class Success:
    name = "success"

    def score(self, group: Group) -> list[Score]:
        return [Score(value=float(t.success is True), verifier=self.name) for t in group.trajectories]


@pytest.mark.parametrize(
    ("reward", "probe"),
    [(Success(), None), (SaysYes(), "injection"), (Fickle(), "determinism")],
    ids=["success", "judge", "fickle"],
)
def test_a_reward_is_audited_on_the_same_episodes(recorded: Any, reward: Any, probe: str | None):
    told = reward_recorded(recorded, reward, accept=1.0, instructions="Answer.", repeats=3)
    report = judge_recorded(told, subject=reward.name)
    assert (probe is None) == (report.verdict == "fit"), format_audit(report)
    assert probe is None or probe in probes(report, "fail")


def test_hostile_text_stays_data_in_the_report(recorded: Any):
    text = format_audit(judge_recorded(reward_recorded(recorded, SaysYes(), accept=1.0, instructions="", repeats=2)))
    assert "\x1b" not in text and "\x00" not in text


def test_rates_by_hand():
    # Wilson by hand in the card of the audit: 0 of 60 -> .0602, 58 of 60 -> [.8864, .9908].
    none = clustered_rate((i, False) for i in range(60))
    assert (none.low, round(none.high, 4)) == (0.0, 0.0602)
    most = clustered_rate((i, i > 1) for i in range(60))
    assert (round(most.low, 4), round(most.high, 4)) == (0.8864, 0.9908)
    # Two clusters of 30 that disagree wholly are nearly two trials, so the interval is much wider.
    split = clustered_rate((i // 30, i < 30) for i in range(60))
    plain = wilson_interval(30, 60)
    assert split.low < plain.low - 0.2 and split.high > plain.high + 0.2
    # 1 - p^K - (1 - p)^K by hand, and its mean over eight tasks at K = 4.
    assert round(informative_share([0.05], 8), 4) == 0.3366
    assert round(informative_share([0.5], 8), 4) == 0.9922
    assert round(informative_share([0, 0, 0.05, 0.1, 0.5, 0.9, 1, 1], 8), 4) == 0.3085
    assert rank_correlation([1.0, 0.0, 1.0, 0.0, 1.0], [4, 4, 6, 6, 5]) == pytest.approx(0.0)
    assert rank_correlation([0.1, 0.2, 0.2, 0.4, 0.5], [3, 5, 6, 9, 12]) == pytest.approx(0.9747, abs=1e-4)
    assert rank_correlation([1.0, 1.0, 1.0], [1, 2, 3]) is None
