"""Proofs that a world or a reward keeps its contract, and the audit of what the reward means.

Lives here: `check_env` with the player that it uses (`env_check`, `env_player`), `check_reward` (`reward_check`), and
the audit of worlds (`audit`).
May import: methods and what stands above it.
"""

from rollwright.checks.audit.audit_policy import AuditLimits, AuditPlan
from rollwright.checks.audit.audit_report import audit_json, format_audit, read_identity
from rollwright.checks.audit.auditor import (
    Recorded,
    another_process_check,
    audit_world,
    judge_recorded,
    record_panel,
)
from rollwright.checks.audit.findings import AuditFinding, AuditReport, CheckResult, PanelRow
from rollwright.checks.audit.identity import WorldIdentity, async_behaviour_digest, behaviour_digest
from rollwright.checks.audit.reward_audit import reward_recorded, reward_title
from rollwright.checks.env_check import check_env, missing_attributes
from rollwright.checks.reward_check import check_reward

__all__ = [
    "AuditFinding",
    "AuditLimits",
    "AuditPlan",
    "AuditReport",
    "CheckResult",
    "PanelRow",
    "Recorded",
    "WorldIdentity",
    "another_process_check",
    "async_behaviour_digest",
    "audit_json",
    "audit_world",
    "behaviour_digest",
    "check_env",
    "check_reward",
    "format_audit",
    "judge_recorded",
    "missing_attributes",
    "read_identity",
    "record_panel",
    "reward_recorded",
    "reward_title",
]
