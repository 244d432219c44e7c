"""Rules about how episodes go: cut actions, full contexts, faults, endless episodes, format."""

from __future__ import annotations

from rollwright.view.doctor.rule_findings import Finding, NotJudged, Verdict
from rollwright.view.doctor.run_evidence import RunEvidence

CUT_FRAC = 0.05
OVERFLOW_FRAC = 0.05
PROMPT_SHARE = 0.9
FAULT_FRAC, MANY_FAULTS = 0.02, 0.1
ENDLESS_FRAC = 0.5
FORMAT_FAIL = 0.3
_FAULTS = ("env_error", "engine_error", "aborted")


def truncated_actions(run: RunEvidence) -> Verdict:
    """Actions that hit the token limit before the policy ended them."""
    cut = run.series("rollout/action_cut_frac")
    if not cut:
        return NotJudged("rollout/action_cut_frac is not logged")
    if cut.recent.mean <= CUT_FRAC:
        return None
    # For the words only; the default stands in where the settings cannot be read.
    limit = int(run.number("rollout.max_action_tokens", 64))
    return Finding(
        severity="serious" if cut.recent.mean > 0.5 else "harmful",
        certainty="certain",
        message=f"{cut.recent.mean:.0%} of the actions are cut at {limit} tokens: the world reads half an action.",
        evidence=(
            f"{cut.recent.said()} (healthy: below {CUT_FRAC})",
            run.series("rollout/action_tokens_mean").recent.said(),
        ),
        remedies=(
            f"rollout.max_action_tokens={2 * limit} - room for a whole action",
            "show the action's form in demonstrations (recipes/sft.py), if the policy rambles",
        ),
    )


def context_overflow(run: RunEvidence) -> Verdict:
    """Episodes that end because the context is full, or starts that have no room for an action."""
    full, no_room = run.series("rollout/max_tokens_frac"), run.series("eval/no_room_frac")
    prompts, context = run.series("rollout/prompt_tokens_mean"), run.number("engine.max_context", 0)
    if not full and not no_room and not prompts:
        return NotJudged("no episode was played")
    # Each sign counts alone: full contexts in training, no room in the evaluation, prompts that fill it nearly.
    evidence = [f"{full.recent.said()} (healthy: 0)"] if full and full.recent.mean > OVERFLOW_FRAC else []
    if no_room and no_room.values[-1] > 0:
        evidence.append(
            f"eval/no_room_frac: {no_room.values[-1]:.3g} at step {no_room.steps[-1]} (healthy: not logged)"
        )
    if prompts and context and prompts.recent.mean > PROMPT_SHARE * context:
        evidence.append(f"{prompts.recent.said()}, of {context:.0f} (engine.max_context)")
    if not evidence:
        return None
    return Finding(
        severity="harmful",
        certainty="certain",
        message="The context runs full: episodes end before the task does, for want of room.",
        evidence=tuple(evidence),
        remedies=(
            f"engine.max_context={int(2 * context) or 4096} - more room, within the positions of the model",
            "rollout.context=windowed - show the last turns only",
            "rollout.max_observation_tokens=512 - cut long observations",
        ),
    )


def many_faults(run: RunEvidence) -> Verdict:
    """Episodes lost to a world or an engine that broke."""
    found = [run.series(f"rollout/{name}_frac") for name in _FAULTS]
    if not any(found):
        return NotJudged("no episode was played")
    # The whole run and not the recent part: an episode that was lost early is lost all the same.
    frac = sum(series.mean for series in found if series)
    held_out = run.series("eval/fault_frac")
    parallel, call_s = int(run.number("rollout.parallel_episodes", 64)), run.number("rollout.env_call_s", 30)
    # The worst evaluation: each of them is a number that somebody reads.
    worst = max([frac, *held_out.values])
    if worst <= FAULT_FRAC:
        return None
    # From faults.jsonl: the metrics count faults and do not say what they were.
    kinds = [f"{count} times: {kind} - {what}" for (kind, what), count in run.faults.most_common(3)]
    evidence = [series.said() for series in found if series and series.mean > 0]
    evidence += [f"eval/fault_frac: {max(held_out.values):.3g} at most"] if held_out and max(held_out.values) else []
    return Finding(
        severity="serious" if worst > MANY_FAULTS else "harmful",
        certainty="certain",
        message=f"{worst:.0%} of the episodes are lost to faults; what is left may be the easy ones.",
        evidence=(*evidence, *kinds),
        remedies=(
            "read faults.jsonl: each line says what broke, and whose fault it was",
            f"rollout.parallel_episodes={max(1, parallel // 2)} - fewer at once, if memory or processes are short",
            f"rollout.env_call_s={2 * call_s:g} - more time for one call, if calls time out",
        ),
    )


def never_stops(run: RunEvidence) -> Verdict:
    """Most episodes run into the turn limit without success."""
    limit_hit, success = run.series("rollout/max_turns_frac"), run.series("rollout/success_frac")
    if not limit_hit:
        return NotJudged("no episode was played")
    # Episodes that succeed at the limit are no illness.
    if limit_hit.recent.mean <= ENDLESS_FRAC or (success and success.recent.mean >= 0.5):
        return None
    turns = int(run.number("rollout.max_turns", 0))
    return Finding(
        severity="harmful",
        certainty="likely",
        message=f"{limit_hit.recent.mean:.0%} of the episodes run into the limit of {turns or 'their'} turns and fail.",
        evidence=(limit_hit.recent.said(), *([success.recent.said()] if success else [])),
        remedies=(
            f"rollout.max_turns={2 * turns or 40} - if the task needs more turns than that",
            "imitate demonstrations first (recipes/sft.py), if the policy wanders",
            "pay less for each turn, or let an action end the episode",
        ),
    )


def format_failures(run: RunEvidence) -> Verdict:
    """A reward part about the format says that many actions do not have it."""
    # Nothing but the name says what a reward part means, hence the certainty "possible".
    parts = [name for name in run.names("reward/", "_mean") if "format" in name]
    if not parts:
        return NotJudged("no reward part is named after the format")
    bad = []
    for name in parts:
        recent = run.series(name).recent
        # Negative parts are penalties; of positive ones only a fall is bad, since their scale is unknown.
        if recent and (recent.mean < 0 or recent.mean < (1 - FORMAT_FAIL) * max(run.series(name).values)):
            bad.append(recent)
    success = run.series("rollout/success_frac")
    if not bad or (success and success.recent.mean >= 0.9):
        return None
    return Finding(
        severity="harmful",
        certainty="possible",
        message="Many actions do not have the form that the world reads.",
        evidence=tuple(series.said() for series in bad),
        remedies=(
            "rollwright show RUN --unsolved - see what the policy writes",
            "rollout.max_action_tokens - is there room for the whole form?",
            "show the form in demonstrations first (recipes/sft.py)",
        ),
    )
