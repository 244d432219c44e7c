"""Rules about the policy and its updates: entropy, KL, learning rate, engine against learner, stale data."""

from __future__ import annotations

from statistics import median

from rollwright.view.doctor.rule_findings import Finding, NotJudged, Verdict
from rollwright.view.doctor.run_evidence import RunEvidence, Series

FEW_STEPS = 5
# In nats per token, as the metrics are.
LOW_ENTROPY = 0.02
KL_REF, KL_OLD = 1.0, 0.1
CLIPPED_HIGH = 0.3
SPIKE = 10.0
STILL = 1e-8
# By arithmetic: two correct implementations differ far more in half precision than in float32.
GAP = {"float32": 1e-3, "bfloat16": 0.08, "float16": 0.08}
WEIGHTS_LOW, WEIGHTS_HIGH, CAPPED_FRAC = 0.9, 1.1, 0.02
STALE_FRAC = 0.05


def collapsed_entropy(run: RunEvidence) -> Verdict:
    """The policy gives one answer and nothing else, though it does not solve its tasks."""
    # The mean nll of sampled tokens is an estimate of the entropy; every method logs it.
    series = run.series("policy/entropy_mean") or run.series("rollout/nll_mean")
    if len(series) < FEW_STEPS:
        return NotJudged(f"{FEW_STEPS} steps with policy/entropy_mean or rollout/nll_mean are needed")
    success = run.series("rollout/success_frac")
    # A policy that solves its tasks may well be sure of its answers.
    solves = bool(success) and success.recent.mean >= 0.9
    if solves or series.recent.mean >= LOW_ENTROPY:
        return None
    return Finding(
        severity="serious",
        certainty="likely",
        message="The policy has collapsed onto one answer, though it does not solve its tasks: it explores no more.",
        evidence=(series.early.said(), series.recent.said(), *([success.recent.said()] if success else [])),
        remedies=(
            "algorithm.entropy_coef=0.01 - pay for spread",
            f"learner.learning_rate={run.number('learner.learning_rate', 1e-5) / 3:.1g} - smaller updates",
            "rollout.temperature=1.0 - sample as the policy is, not sharper",
            "go back to a checkpoint from before the collapse",
        ),
    )


def kl_runaway(run: RunEvidence) -> Verdict:
    """The policy moves too far from the reference, or too far in one update."""
    reference, old = run.series("policy/kl_ref_mean"), run.series("policy/kl_old_mean")
    if not reference and not old:
        return NotJudged("no KL is logged by this method")
    # The reference may be left far behind in a long run. One update must stay small in any.
    found = [s.recent for s, limit in ((reference, KL_REF), (old, KL_OLD)) if s and s.recent.mean > limit]
    if not found:
        return None
    whom = "the reference" if found[0].name == "policy/kl_ref_mean" else "itself within single updates"
    return Finding(
        severity="serious",
        certainty="likely",
        message=f"The policy runs away from {whom}: KL is far above its healthy range.",
        evidence=tuple(f"{s.said()} (healthy: below {KL_REF if 'ref' in s.name else 0.02:g})" for s in found),
        remedies=(
            f"learner.learning_rate={run.number('learner.learning_rate', 1e-5) / 3:.1g} - smaller updates",
            "algorithm.kl_coef=0.05 - hold the policy near the reference",
            "learner.epochs=1 - one pass over each batch",
        ),
    )


def learning_rate_too_high(run: RunEvidence) -> Verdict:
    """Updates that are clipped, explode, or are not finite."""
    clipped, norm = run.series("policy/ratio_clipped_frac"), run.series("optim/grad_norm")
    if not clipped and not norm:
        return NotJudged("neither policy/ratio_clipped_frac nor optim/grad_norm is logged")
    # A single such step is enough: this is no matter of degree.
    lost = sorted(set(run.not_finite("optim/grad_norm")) | set(run.not_finite("optim/loss")))
    evidence = [f"loss or gradient was not finite in steps {', '.join(map(str, lost[:5]))}"] if lost else []
    if clipped and clipped.recent.mean > CLIPPED_HIGH:
        evidence.append(f"{clipped.recent.said()} (healthy: below {CLIPPED_HIGH})")
    evidence += _spikes(norm)
    if not evidence:
        return None
    return Finding(
        severity="serious" if lost else "harmful",
        certainty="certain" if lost else "likely",
        message="Single updates are too large: the learning rate is too high for these batches.",
        evidence=tuple(evidence),
        remedies=(
            f"learner.learning_rate={run.number('learner.learning_rate', 1e-5) / 3:.1g} - smaller updates",
            "learner.warmup_steps=5 - begin with small updates",
            f"learner.max_grad_norm={run.number('learner.max_grad_norm', 1.0) / 2:g} - cut the spikes",
            "rollout.groups_per_step=16 - larger batches have steadier gradients",
        ),
    )


def _spikes(norm: Series) -> list[str]:
    """Gradient norms far above the run's own median; a rare one is no illness."""
    if len(norm) < 2 * FEW_STEPS:
        return []
    # The median, which the spikes themselves do not move.
    usual = median(norm.values)
    high = [s for s, v in zip(norm.steps, norm.values, strict=True) if usual > 0 and v > SPIKE * usual]
    # One spike per twenty steps, and never a single one, before it is called an illness.
    if len(high) < max(2, len(norm) // 20):
        return []
    return [
        f"optim/grad_norm: above {SPIKE:g} times its median {usual:.3g} in {len(high)} steps, first in step {high[0]}"
    ]


def learning_rate_too_low(run: RunEvidence) -> Verdict:
    """Steps that have something to teach, and updates that change nothing."""
    rate, norm = run.series("optim/learning_rate"), run.series("optim/grad_norm")
    old = run.series("policy/kl_old_mean")
    if len(rate) < FEW_STEPS:
        return NotJudged(f"{FEW_STEPS} steps with optim/learning_rate are needed, there are {len(rate)}")
    # All of them: a warm-up begins at 0, and a decay may end there.
    zero = all(value == 0 for value in rate.values)
    # The first pass over a batch has ratio 1 by definition; only with several updates per batch can it move.
    rate_now = run.number("learner.learning_rate", 0.0)
    several = run.number("learner.epochs", 1) * run.number("learner.minibatches", 1) > 1
    still = several and len(old) >= FEW_STEPS and all(abs(value) < STILL for value in old.values)
    # A gradient that is not zero says that there was something to learn.
    still = still and bool(norm) and median(norm.values) > 0 and not run.learned_it
    if not zero and not still:
        return None
    evidence = [f"optim/learning_rate: {max(rate.values):.3g} at most"]
    evidence += [old.said(), norm.said()] if still else []
    return Finding(
        severity="serious",
        certainty="certain" if zero else "likely",
        message="The updates change nothing: the learning rate is " + ("0." if zero else "too low."),
        evidence=tuple(evidence),
        remedies=(
            f"learner.learning_rate={max(1e-6, 10 * rate_now):.1g} - or the value of the shipped YAML of this world",
            "learner.warmup_steps=0 - no slow start, where the run is short",
        ),
    )


def engine_mismatch(run: RunEvidence) -> Verdict:
    """The engine samples from another policy than the learner trains."""
    names = ("policy/sampler_gap_mean", "engine/parity_mean", "engine/parity_max")
    found = {name: run.series(name) for name in names}
    weight, capped = run.series("policy/weight_mean"), run.series("policy/weight_capped_frac")
    if not any(found.values()) and not weight:
        return NotJudged("no metric compares the engine with the learner")
    # Unknown means bfloat16, whose limit is the loosest: no run is blamed for a setting that is not there.
    dtype = str(run.setting("engine.dtype") or run.setting("learner.precision") or "bfloat16")
    limit = GAP.get(dtype, GAP["bfloat16"])
    # A maximum over tokens lies far above their mean.
    limits = {"policy/sampler_gap_mean": limit, "engine/parity_mean": limit, "engine/parity_max": 10 * limit}
    evidence = [
        f"{s.recent.said()} (healthy in {dtype}: below {limits[name]:g})"
        for name, s in found.items()
        if s and s.recent.mean > limits[name]
    ]
    fresh = not run.number("rollout.max_staleness", 0)  # weights of stale episodes differ from 1 for another reason
    if fresh and weight and not WEIGHTS_LOW <= weight.recent.mean <= WEIGHTS_HIGH:
        evidence.append(f"{weight.recent.said()} (healthy: {WEIGHTS_LOW} to {WEIGHTS_HIGH})")
    if fresh and capped and capped.recent.mean > CAPPED_FRAC:
        evidence.append(f"{capped.recent.said()} (healthy: below {CAPPED_FRAC})")
    if not evidence:
        return None
    return Finding(
        severity="serious",
        certainty="likely",
        message="The engine samples from another policy than the learner trains: their log-probs differ.",
        evidence=tuple(evidence),
        remedies=(
            "run.parity_checks=0 - check every step, and stop at the first that differs",
            "engine.dtype=float32 - rule out the arithmetic",
            "rollout.temperature=1.0 - train and sample under the same settings",
            "algorithm.correction=token_tis - weigh what the engine sampled, while you look for the cause",
        ),
    )


def stale_data(run: RunEvidence) -> Verdict:
    """Episodes are too old for the weights that they train."""
    limit = run.number("rollout.max_staleness", 0)
    stale, age = run.series("rollout/stale_frac"), run.series("rollout/staleness_mean")
    # 0 means that the engine waits for the learner, so no episode can be old.
    if not limit or not (stale or age):
        return NotJudged("the engine does not run ahead (rollout.max_staleness is 0)")
    capped = run.series("policy/weight_capped_frac")
    evidence = (
        [f"{stale.recent.said()} (healthy: below {STALE_FRAC})"] if stale and stale.recent.mean > STALE_FRAC else []
    )
    # Without an age, weights are cut for another reason: see `engine_mismatch`.
    if capped and capped.recent.mean > CAPPED_FRAC and age:
        evidence += [age.recent.said(), f"{capped.recent.said()} (healthy: below {CAPPED_FRAC})"]
    if not evidence:
        return None
    return Finding(
        severity="harmful",
        certainty="certain",
        message="Episodes are too old when they are learned from: they are dropped, or their weights are cut.",
        evidence=tuple(evidence),
        remedies=(
            f"rollout.max_staleness={int(limit) + 1} - drop fewer episodes, if few weights are cut",
            f"rollout.max_staleness={max(0, int(limit) - 1)} - use fresher episodes, if many weights are cut",
            "rollout.max_turns=10 - shorter episodes outlive fewer updates",
        ),
    )
