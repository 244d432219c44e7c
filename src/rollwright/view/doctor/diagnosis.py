"""The doctor: every rule in one table, the diagnosis of a run folder, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rollwright.view.doctor import cost_rules, learning_rules, policy_rules, rollout_rules
from rollwright.view.doctor.rule_findings import CERTAINTIES, SEVERITIES, DoctorRule, Finding, NotJudged
from rollwright.view.doctor.run_evidence import read_evidence

_NO_SIGNAL = ("no-informative-groups", "steps-taught-nothing")
# What a policy shows once updates have destroyed it, whatever destroyed it.
_COLLAPSE = (
    "success-collapsed",
    "collapsed-entropy",
    "truncated-actions",
    "format-failures",
    "never-stops",
    *_NO_SIGNAL,
)

RULES: tuple[DoctorRule, ...] = (
    DoctorRule(
        name="ended-badly",
        title="The run did not finish",
        when="the last start in `run.json` neither finished nor is running",
        judge=cost_rules.ended_badly,
    ),
    DoctorRule(
        name="nothing-measured",
        title="Nothing measured yet",
        when="`metrics.jsonl` holds no training step, and the run has not finished",
        judge=cost_rules.nothing_measured,
    ),
    DoctorRule(
        name="no-informative-groups",
        title="No group can teach",
        when="`rollout/groups_informative_frac` below 0.1 recently, and success below 0.95",
        judge=learning_rules.no_informative_groups,
        explains=("steps-taught-nothing",),
    ),
    DoctorRule(
        name="steps-taught-nothing",
        title="Steps that taught nothing",
        when="`optim/taught_count` is 0 in more than a fifth of the steps",
        judge=learning_rules.steps_taught_nothing,
    ),
    DoctorRule(
        name="success-collapsed",
        title="Success collapsed",
        when="`rollout/success_frac` is more than 0.2 below its best five steps",
        judge=learning_rules.success_collapsed,
    ),
    DoctorRule(
        name="reward-hacking",
        title="The reward is being gamed",
        when="`reward/total_mean` rises while `rollout/success_frac` or `eval/success_frac` falls beyond its noise",
        judge=learning_rules.reward_hacking,
    ),
    DoctorRule(
        name="collapsed-entropy",
        title="Collapsed entropy",
        when="`policy/entropy_mean`, else `rollout/nll_mean`, below 0.02 nats recently, and success below 0.9",
        judge=policy_rules.collapsed_entropy,
        explains=_NO_SIGNAL,
    ),
    DoctorRule(
        name="kl-runaway",
        title="KL runaway",
        when="`policy/kl_ref_mean` above 1, or `policy/kl_old_mean` above 0.1, recently",
        judge=policy_rules.kl_runaway,
        explains=_COLLAPSE,
    ),
    DoctorRule(
        name="learning-rate-too-high",
        title="Learning rate too high",
        when=(
            "a loss or gradient that is not finite, `policy/ratio_clipped_frac` above 0.3, or `optim/grad_norm` above "
            "ten times its median in a twentieth of the steps"
        ),
        judge=policy_rules.learning_rate_too_high,
        explains=("kl-runaway", *_COLLAPSE),
    ),
    DoctorRule(
        name="learning-rate-too-low",
        title="Learning rate too low",
        when="`optim/learning_rate` is 0 throughout, or `policy/kl_old_mean` stays at 0 over several updates per batch",
        judge=policy_rules.learning_rate_too_low,
        explains=("never-stops",),
    ),
    DoctorRule(
        name="engine-mismatch",
        title="Engine and learner disagree",
        when=(
            "`policy/sampler_gap_mean` or `engine/parity_mean` above 1e-3 in float32 or 0.08 in bfloat16, "
            "`policy/weight_mean` outside 0.9 to 1.1, or `policy/weight_capped_frac` above 0.02"
        ),
        judge=policy_rules.engine_mismatch,
        explains=("kl-runaway", "success-collapsed"),
    ),
    DoctorRule(
        name="stale-data",
        title="Stale data",
        when="`rollout/stale_frac` above 0.05, or `policy/weight_capped_frac` above 0.02 with `rollout.max_staleness`",
        judge=policy_rules.stale_data,
    ),
    DoctorRule(
        name="truncated-actions",
        title="Truncated actions",
        when="`rollout/action_cut_frac` above 0.05 recently",
        judge=rollout_rules.truncated_actions,
        explains=("format-failures", "never-stops", *_NO_SIGNAL),
    ),
    DoctorRule(
        name="context-overflow",
        title="Context overflow",
        when=(
            "`rollout/max_tokens_frac` above 0.05, `eval/no_room_frac` above 0, or `rollout/prompt_tokens_mean` above "
            "nine tenths of `engine.max_context`"
        ),
        judge=rollout_rules.context_overflow,
    ),
    DoctorRule(
        name="many-faults",
        title="Many faults",
        when="`rollout/env_error_frac`, `engine_error_frac`, `aborted_frac` in sum, or `eval/fault_frac`, above 0.02",
        judge=rollout_rules.many_faults,
    ),
    DoctorRule(
        name="never-stops",
        title="Episodes never end",
        when="`rollout/max_turns_frac` above 0.5 recently, and success below 0.5",
        judge=rollout_rules.never_stops,
    ),
    DoctorRule(
        name="format-failures",
        title="Format failures",
        when="a reward part with `format` in its name is negative, or 30% below its best, and success below 0.9",
        judge=rollout_rules.format_failures,
    ),
    DoctorRule(
        name="dead-curriculum",
        title="Dead curriculum",
        when=(
            "`curriculum/learnability_mean` at most 0.06, `curriculum/score_mean` or `curriculum/progress_mean` at 0, "
            "or `curriculum/kept_count` 0 in every recent round"
        ),
        judge=learning_rules.dead_curriculum,
        explains=_NO_SIGNAL,
    ),
    DoctorRule(
        name="overfit-to-training",
        title="Overfit to training starts",
        when="`rollout/success_frac` more than 0.2 above `eval/success_frac` and above `eval/success_high`",
        judge=learning_rules.overfit_to_training,
    ),
    DoctorRule(
        name="held-out-fell",
        title="The held-out score fell",
        when="the last `eval/success_frac` is below the best one by more than half the interval's width",
        judge=learning_rules.held_out_fell,
    ),
    DoctorRule(
        name="evaluation-too-small",
        title="Evaluation too small to tell",
        when="`eval/success_high` minus `eval/success_low` above 0.3 in the last evaluation",
        judge=learning_rules.evaluation_too_small,
    ),
    DoctorRule(
        name="environment-bound",
        title="Bound by the environment",
        when="`ledger/generator_environment_s` above half of the steps' time",
        judge=cost_rules.environment_bound,
    ),
    DoctorRule(
        name="engine-bound",
        title="Bound by the engine",
        when="the engine's part of the ledger above 85%, and steps of 30 s or more",
        judge=cost_rules.engine_bound,
    ),
)
"""Every rule, in the order in which findings of equal weight are printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What the rules said of one run: findings, the worst first, and the reason of each rule that could not judge."""

    findings: tuple[Finding, ...]
    not_judged: Mapping[str, str]
    num_rules: int


def diagnose(run: str | Path) -> list[Finding]:
    """The findings of a run folder, the worst first; [] for a healthy run.

    Raises:
        DataError: this is not a run folder.
    """
    return list(examine(run).findings)


def examine(run: str | Path, rules: Sequence[DoctorRule] = RULES) -> Diagnosis:
    """The same, with what could not be judged.

    Raises:
        DataError: this is not a run folder.
    """
    evidence = read_evidence(Path(run))
    findings, not_judged = [], {}
    # Every rule looks at the same evidence, which was read once; none depends on another's verdict.
    for rule in rules:
        verdict = rule.judge(evidence)
        if isinstance(verdict, NotJudged):
            not_judged[rule.name] = verdict.reason
        elif verdict is not None:
            findings.append(replace(verdict, rule=rule.name, title=rule.title))
    return Diagnosis(findings=_ordered(findings, rules), not_judged=not_judged, num_rules=len(rules))


def _ordered(findings: Sequence[Finding], rules: Sequence[DoctorRule]) -> tuple[Finding, ...]:
    """Causes before what follows from them, then the worst first."""
    found = {finding.rule for finding in findings}
    # Reversed, so that of several causes the first one of the table is named: later entries overwrite earlier ones.
    causes = {effect: rule.title for rule in reversed(rules) if rule.name in found for effect in rule.explains}
    told = [replace(finding, follows=causes.get(finding.rule, "")) for finding in findings]

    def weight(one: Finding) -> tuple[bool, int, int]:
        # False sorts first: what has no cause among the findings comes before what follows from them.
        return bool(one.follows), SEVERITIES.index(one.severity), CERTAINTIES.index(one.certainty)

    # The sort is stable, so findings of equal weight stay in the order of the table.
    return tuple(sorted(told, key=weight))


def format_diagnosis(diagnosis: Diagnosis, name: str, *, all_rules: bool = False) -> str:
    """The diagnosis as text. `all_rules` lists what could not be judged one by one."""
    judged = diagnosis.num_rules - len(diagnosis.not_judged)
    count = len(diagnosis.findings)
    found = "nothing found" if not count else f"{count} finding{'s' if count > 1 else ''}, the worst first"
    lines = [f"{name}: {found} ({judged} of {diagnosis.num_rules} rules could judge)"]
    for number, finding in enumerate(diagnosis.findings, start=1):
        lines += ["", f"{number}. {finding.title} [{finding.severity}, {finding.certainty}; rule {finding.rule}]"]
        lines += [f"   Probably follows from: {finding.follows}"] if finding.follows else []
        lines += [f"   {finding.message}", "   Evidence:", *(f"     {line}" for line in finding.evidence)]
        lines += ["   Try:", *(f"     {line}" for line in finding.remedies)]
    if diagnosis.not_judged and all_rules:
        lines += ["", "Not judged:", *(f"  {rule}: {why}" for rule, why in diagnosis.not_judged.items())]
    elif diagnosis.not_judged:
        lines += ["", f"Not judged: {', '.join(diagnosis.not_judged)} (--all says why)"]
    return "\n".join(lines)
