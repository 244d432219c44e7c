"""Checks on what the panel earned: false accepts and rejects, floor and gap, shape of the reward, faults, headroom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from rollwright.checks.audit.audit_episodes import AuditEpisode
from rollwright.checks.audit.audit_policy import AuditLimits
from rollwright.checks.audit.audit_rates import clustered_rate, informative_share, rank_correlation
from rollwright.checks.audit.findings import AuditFinding, CheckResult, PanelRow, TemplateRow, transcript_of
from rollwright.checks.audit.panel import DECEIVING, GOLDEN, PANEL, RANDOM, REWORDED, TRUTHS, ZERO_ACCEPTS
from rollwright.maths.statistics import Interval, wilson_interval

Panel = Mapping[str, Sequence[AuditEpisode]]
_SOLVING = (GOLDEN, REWORDED)
# Failures that act by the grammar: only of these is it asked whether length pays.
_WELL_FORMED = ("loop", "repeat", "constant", "early stop", RANDOM)


def panel_row(policy: str, episodes: Sequence[AuditEpisode], note: str = "") -> PanelRow:
    """One row of the table. Of a constant policy the candidate with the most successes counts."""
    # Three kinds that are counted apart: faults, undecided ends, and judged episodes.
    played = [e for e in episodes if not e.fault]
    judged = [e for e in played if e.accepted is not None]
    # The rate is that of the best candidate: a policy would learn that one, and the others would only dilute it.
    counted = _best_variant(judged) if policy == "constant" else judged
    scores = [e.score for e in counted if e.score is not None]
    return PanelRow(
        policy=policy,
        truth=TRUTHS[policy],
        episodes=len(played),
        # Over all candidates: a single false accept of any of them is one.
        accepted=sum(_hit(policy, e) for e in judged),
        explained=sum(bool(e.accepted) and not _unexplained(e) for e in judged),
        undecided=len(played) - len(judged),
        faults=len(episodes) - len(played),
        mean=fmean(scores) if scores else None,
        rate=clustered_rate((e.cluster, _hit(policy, e)) for e in counted) if counted else None,
        note=note,
    )


def _hit(policy: str, episode: AuditEpisode) -> bool:
    # Of solving policies every success counts: theirs need no explanation.
    return bool(episode.accepted) if policy in _SOLVING else _unexplained(episode)


def _unexplained(episode: AuditEpisode) -> bool:
    """A success that nothing shows to be real: no declaration, no state of the world, no known solution in it."""
    return bool(episode.accepted) and not (episode.declared or episode.luck or episode.truth)


def _best_variant(judged: Sequence[AuditEpisode]) -> list[AuditEpisode]:
    by_variant: dict[str, list[AuditEpisode]] = defaultdict(list)
    for episode in judged:
        by_variant[episode.variant].append(episode)

    def rank(own: list[AuditEpisode]) -> tuple[int, int, int]:
        # False accepts first, then real luck; the number of episodes decides ties.
        return sum(map(_unexplained, own)), sum(bool(e.accepted) for e in own), len(own)

    ranked = sorted(by_variant.values(), key=rank, reverse=True)
    return ranked[0] if ranked else []


def accepts_check(rows: Sequence[PanelRow], panel: Panel, limits: AuditLimits) -> CheckResult:
    """False accepts of every policy that does not solve by construction."""
    found, measured = [], {}
    for row in rows:
        # The rate of the random policy is the floor and no false accept.
        if row.truth == "solves" or row.rate is None or row.policy == RANDOM:
            continue
        measured[row.policy] = f"{row.accepted}/{row.episodes}, {interval_text(row.rate)}"
        sample = next((e for e in panel[row.policy] if _unexplained(e)), None)
        shown = transcript_of(sample) if sample else ""
        said = f"{row.policy}: {row.accepted} of {row.episodes} episodes were called a success"
        if row.accepted and row.policy in ZERO_ACCEPTS:
            kind = "any accept" if row.policy in DECEIVING else "false accept"
            found.append(AuditFinding(kind=kind, probe=row.policy, message=f"{said}; none may be", transcript=shown))
        # Without a single accept there is nothing to show, however wide the interval is; `few episodes` says that.
        elif row.accepted and row.rate.high > limits.false_accepts:
            message = f"{said}; upper end {row.rate.high:.3f}, limit {limits.false_accepts:g}"
            found.append(AuditFinding(kind="false accept", probe=row.policy, message=message, transcript=shown))
    if explained := _explanations(panel):
        measured["explained successes"] = explained
    # Not a fault of the verifier: the action is right. But scores below that rate show no skill.
    if (guess := _guessable(panel.get("constant", ()))) > limits.false_accepts:
        message = f"one constant action truly solves {guess:.2f} of the starts: scores below that say nothing"
        found.append(AuditFinding(kind="guessable", probe="constant", message=message))
    if (starts := _counted(panel["null"])) < limits.min_nonsolving:
        message = f"each policy played {starts} starts, {limits.min_nonsolving} are needed to show the limit"
        found.append(AuditFinding(kind="few episodes", probe="panel", message=message))
    return CheckResult(name="false accepts", measured=measured, findings=tuple(found))


def _guessable(episodes: Sequence[AuditEpisode]) -> float:
    """Share of the starts that the best constant action truly solves, where the world does not declare that."""
    return _success_rate("constant", [e for e in episodes if not _unexplained(e)])


def _counted(episodes: Sequence[AuditEpisode]) -> int:
    """Starts that were played. What a policy needs may be missing at some, so those of the null policy count."""
    return len({(e.task.id, e.task.split, e.seed) for e in episodes if not e.fault})


def rejects_check(rows: Mapping[str, PanelRow], panel: Panel, limits: AuditLimits) -> CheckResult:
    """Known solutions that were not called a success."""
    found, measured = [], {}
    golden = rows[GOLDEN]
    if golden.rate is None:
        message = "no task has a known solution: the world has no teacher that acts"
        return CheckResult(
            name="false rejects", findings=(AuditFinding(kind="no golden", probe=GOLDEN, message=message),)
        )
    for name, limit in ((GOLDEN, limits.golden_rejects), (REWORDED, limits.reworded_rejects)):
        row = rows[name]
        if row.rate is None:
            measured[name] = row.note
            continue
        # Rejects are what accepts are not, so the upper end of their rate is 1 minus the lower end of the other.
        rejected, upper = row.episodes - row.undecided - _accepted(panel[name]), 1 - row.rate.low
        measured[name] = f"{rejected}/{row.episodes}, upper end {upper:.3f}"
        if rejected:
            sample = next(e for e in panel[name] if e.accepted is False and not e.fault)
            said = f"{name}: {rejected} of {row.episodes} solutions were refused"
            message = f"{said}; upper end {upper:.3f}, limit {limit:g}"
            # A few refusals within the limit may be the teacher's own mistakes.
            kind = "false reject" if upper > limit else "some rejects"
            found.append(AuditFinding(kind=kind, probe=name, message=message, transcript=transcript_of(sample)))
    if golden.episodes < limits.min_golden:
        message = f"{golden.episodes} golden episodes, {limits.min_golden} are needed"
        found.append(AuditFinding(kind="few golden", probe=GOLDEN, message=message))
    return CheckResult(name="false rejects", measured=measured, findings=tuple(found))


def _accepted(episodes: Sequence[AuditEpisode]) -> int:
    return sum(bool(e.accepted) for e in episodes if not e.fault)


def truth_check(panel: Panel) -> CheckResult:
    """The verdict against the world's second opinion, where it has one."""
    # An episode that the policy left has no verdict yet that could differ.
    episodes = [e for own in panel.values() for e in own if e.truth is not None and e.ended and e.accepted is not None]
    if not episodes:
        return CheckResult(name="second opinion", skipped="the world has no `truly_solved`")
    unlike = [e for e in episodes if e.truth != e.accepted]
    found = [
        AuditFinding(
            kind="truth",
            probe=e.policy,
            message=f"{len(unlike)} of {len(episodes)} verdicts differ from the world's own state",
            transcript=transcript_of(e),
        )
        for e in unlike[:1]
    ]
    return CheckResult(
        name="second opinion", measured={"differ": f"{len(unlike)}/{len(episodes)}"}, findings=tuple(found)
    )


def gap_check(rows: Mapping[str, PanelRow], panel: Panel, limits: AuditLimits) -> CheckResult:
    """Floor, gap, and whether quitting or looping pays."""
    means = {name: row.mean for name, row in rows.items() if row.mean is not None}
    if GOLDEN not in means:
        return CheckResult(name="floor and gap", skipped="no known solution")
    others = {name: mean for name, mean in means.items() if name not in _SOLVING}
    if not others:
        return CheckResult(name="floor and gap", skipped="no policy of the panel was played")
    # Names break ties, so that equal runs give equal reports.
    floor_of = max(others, key=lambda name: (others[name], name))
    floor = others[floor_of]
    # Shown beside the means, since a gap means little without the range that rewards have.
    scores = [e.score for own in panel.values() for e in own if not e.fault and e.score is not None]
    solved = {name: _success_rate(name, panel[name]) for name in means}
    # By success and not by score: a policy that earns most need not be the one that succeeds most.
    luckiest = max(others, key=lambda name: (solved[name], name))
    gap = solved[GOLDEN] - solved[luckiest]
    measured = {
        "golden": f"{means[GOLDEN]:.3f}",
        "floor": f"{floor:.3f} ({floor_of})",
        "gap": f"{means[GOLDEN] - floor:.3f}",
        "success": f"{solved[GOLDEN]:.2f} against {solved[luckiest]:.2f} ({luckiest})",
        "scores": f"{min(scores):g} to {max(scores):g}",
    }
    found = []
    if gap < limits.gap:
        message = (
            f"{luckiest} succeeds in {solved[luckiest]:.2f}, solutions in {solved[GOLDEN]:.2f}; limit {limits.gap:g}"
        )
        found.append(AuditFinding(kind="gap", probe=luckiest, message=message))
    # Success may differ while the pay does not; a learner only sees the pay.
    elif means[GOLDEN] <= floor and not all(e.declared for e in panel[floor_of] if e.accepted):
        message = f"{floor_of} earns {floor:.3f}, solutions no more than {means[GOLDEN]:.3f}"
        found.append(AuditFinding(kind="gap", probe=floor_of, message=message))
    # Against random play and not against the solution: quitting must not beat trying.
    if (stop := others.get("early stop")) is not None and RANDOM in others and stop > others[RANDOM] + 1e-9:
        message = f"quitting at once earns {stop:.3f}, acting at random {others[RANDOM]:.3f}"
        found.append(AuditFinding(kind="quitting pays", probe="early stop", message=message))
    for name in ("loop", "repeat"):
        # The default lies below the solutions, so that a policy that was not played is no finding.
        if others.get(name, means[GOLDEN] - 1) >= means[GOLDEN]:
            message = f"{name} earns {others[name]:.3f}, solutions {means[GOLDEN]:.3f}"
            found.append(AuditFinding(kind="farming", probe=name, message=message))
    return CheckResult(name="floor and gap", measured=measured, findings=tuple(found))


def _success_rate(policy: str, episodes: Sequence[AuditEpisode]) -> float:
    # Declared successes are known and meant, so they do not narrow the gap.
    played = [e for e in episodes if not e.fault and e.accepted is not None and not e.declared]
    counted = _best_variant(played) if policy == "constant" else played
    return fmean(float(bool(e.accepted)) for e in counted) if counted else 0.0


def shape_check(panel: Panel, limits: AuditLimits) -> CheckResult:
    """Whether the reward follows the length of an episode, above all among failures."""
    played = [e for own in panel.values() for e in own if not e.fault and e.score is not None and e.steps]
    # Among failures alone, where pay for mere length (farming) cannot hide behind success.
    failures = [e for e in played if not e.accepted and e.policy in _WELL_FORMED]
    measured = {}
    turns = rank_correlation([e.score or 0.0 for e in played], [len(e.steps) for e in played])
    size = rank_correlation([e.score or 0.0 for e in played], [sum(map(len, e.actions)) for e in played])
    failed = rank_correlation([e.score or 0.0 for e in failures], [len(e.steps) for e in failures])
    for name, value in (("with turns", turns), ("with action length", size), ("with turns among failures", failed)):
        measured[name] = "constant" if value is None else f"{value:+.2f}"
    found = []
    if failed is not None and abs(failed) > limits.rank_correlation:
        longest = max(failures, key=lambda e: (abs(e.score or 0.0), e.policy))
        way = "more" if failed > 0 else "less, as with a step cost"
        said = f"longer failures earn {way}: reward and turns correlate by {failed:+.2f} among failures"
        message = f"{said} (limit {limits.rank_correlation:g})"
        found.append(
            AuditFinding(kind="length pays", probe="length", message=message, transcript=transcript_of(longest))
        )
    return CheckResult(name="reward and length", measured=measured, findings=tuple(found))


def faults_check(panel: Panel, limits: AuditLimits) -> CheckResult:
    """Faults, and finished episodes without a verdict."""
    episodes = [e for own in panel.values() for e in own]
    faulted = [e for e in episodes if e.fault]
    undecided = [e for e in episodes if e.accepted is None and not e.fault]
    kinds = Counter(e.fault.split(":")[0] for e in faulted)
    measured = {
        "faults": f"{len(faulted)}/{len(episodes)}"
        + (f" ({', '.join(f'{k} {n}' for k, n in sorted(kinds.items()))})" if kinds else ""),
        "undecided": f"{len(undecided)}/{len(episodes)}",
    }
    found = []
    hostile = [e for e in faulted if e.policy in ("garbage", "null", "forger", "injection", "shotgun") and e.steps]
    if hostile:
        message = f"{len(hostile)} episodes of hostile actions ended in a fault of the world"
        found.append(
            AuditFinding(
                kind="policy makes faults",
                probe=hostile[0].policy,
                message=message,
                transcript=transcript_of(hostile[0]),
            )
        )
    if len(faulted) > limits.fault_share * len(episodes):
        message = f"{len(faulted)} of {len(episodes)} episodes faulted, limit {limits.fault_share:g}"
        found.append(AuditFinding(kind="faults", probe="faults", message=message, transcript=transcript_of(faulted[0])))
    if len(undecided) > limits.undecided_share * len(episodes):
        message = (
            f"{len(undecided)} of {len(episodes)} episodes ended without a verdict, limit {limits.undecided_share:g}"
        )
        found.append(AuditFinding(kind="undecided", probe="faults", message=message))
    return CheckResult(name="faults", measured=measured, findings=tuple(found))


def headroom_check(
    groups: Mapping[str, Sequence[bool]] | None, golden: float | None, limits: AuditLimits, group_size: int
) -> CheckResult:
    """Whether groups of the policy that will train have both results.

    Args:
        groups: for each task the results of the policy's episodes; None where no policy was given.
        golden: success rate of the known solutions.
    """
    if not groups:
        return CheckResult(name="headroom", skipped="no policy was given: name a store of its episodes with --episodes")
    # Per task and not pooled: groups are drawn per task, so only the spread within one can teach.
    rates = [fmean(map(float, own)) for own in groups.values()]
    # A group with one result has no advantage to learn from.
    mixed = sum(0 < rate < 1 for rate in rates) / len(rates)
    measured = {
        "tasks": str(len(rates)),
        "groups with both results": f"{mixed:.2f}",
        "expected at this group size": f"{informative_share(rates, group_size):.2f} (K = {group_size})",
        "none solved": f"{sum(rate == 0 for rate in rates)}/{len(rates)}",
        "all solved": f"{sum(rate == 1 for rate in rates)}/{len(rates)}",
        "headroom": "unknown" if golden is None else f"{golden - fmean(rates):+.2f}",
    }
    found = []
    if mixed < limits.informative_groups:
        kind = "no informative group" if mixed == 0 else "few informative groups"
        message = f"{mixed:.2f} of the tasks have both results in their group (limit {limits.informative_groups:g})"
        found.append(AuditFinding(kind=kind, probe="headroom", message=message))
    return CheckResult(name="headroom", measured=measured, findings=tuple(found))


def interval_text(rate: Interval) -> str:
    """`0.012 [0.002, 0.050]`."""
    return f"{rate.point:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def template_rows(panel: Panel) -> tuple[TemplateRow, ...]:
    """False accepts and rejects of each template, or of each task where the world names no templates."""
    golden: dict[str, list[AuditEpisode]] = defaultdict(list)
    others: dict[str, list[AuditEpisode]] = defaultdict(list)
    for name, own in panel.items():
        for episode in own:
            # Reworded solutions are no golden ones, and random successes are the floor: neither is an error.
            if not episode.fault and episode.accepted is not None and name not in (REWORDED, RANDOM):
                (golden if name == GOLDEN else others)[str(episode.cluster)].append(episode)
    found = []
    for template in sorted({*golden, *others}):
        rejected = sum(not e.accepted for e in golden[template])
        accepted = sum(map(_unexplained, others[template]))
        row = TemplateRow(
            template=template,
            golden=len(golden[template]),
            rejected=rejected,
            nonsolving=len(others[template]),
            accepted=accepted,
            # Plain Wilson: within one template there is only one cluster.
            rejects=wilson_interval(rejected, len(golden[template])) if golden[template] else None,
            accepts=wilson_interval(accepted, len(others[template])) if others[template] else None,
        )
        found.append(row)
    return tuple(found)


def _explanations(panel: Panel) -> str:
    """Why successes of policies that do not solve are no false accepts, with how many."""
    reasons = Counter(
        e.declared or e.luck or "the world's own state confirms it"
        for name, own in panel.items()
        for e in own
        if name not in (GOLDEN, REWORDED) and e.accepted and not _unexplained(e)
    )
    return "; ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items()))


def panel_rows(panel: Panel, notes: Mapping[str, str]) -> dict[str, PanelRow]:
    """All rows in the order of the panel; a policy that could not play has an empty one with its note."""
    names = (GOLDEN, REWORDED, *(policy.name for policy in PANEL), RANDOM)
    return {name: panel_row(name, panel.get(name, ()), notes.get(name, "")) for name in names}
