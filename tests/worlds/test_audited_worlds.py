"""Worlds without a browser or a sandbox stay fit; the audit of all of them is `benchmarks/audit_worlds.py`."""

from __future__ import annotations

import pytest

from rollwright.checks import AuditPlan, audit_world, format_audit
from rollwright.config import create
from rollwright.contracts import AuditFacts

PLAN = AuditPlan(tasks=74, panel_starts=74, constants=2, leak_pairs=1, replayed=6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web.sites", "device.phone", "text.navigation", "text.second_attempt"])
def test_a_world_that_ships_is_fit_and_refuses_no_teacher(name: str):
    report = audit_world(lambda: create("envs", name), plan=PLAN)
    assert report.verdict == "fit", format_audit(report)
    assert report.row("golden").accepted == report.row("golden").episodes >= 74
    for policy in ("null", "constant", "forger", "injection"):
        assert report.row(policy).accepted == 0 and report.row(policy).episodes >= 74


def test_only_what_was_looked_at_is_declared():
    phone, sites = create("envs", "device.phone"), create("envs", "web.sites")
    solved = {t.id: phone.audit_facts(t).solved_by for t in phone.tasks("train") + phone.tasks("test")}
    assert 0 < sum(map(bool, solved.values())) < len(solved) / 4
    assert all(isinstance(sites.audit_facts(task), AuditFacts) for task in sites.tasks("test"))
    asked = [task.id for task in sites.tasks("train") if sites.audit_facts(task).solved_by]
    assert 0 < len(asked) < len(sites.tasks("train")) / 2 + 1
