"""How much the audit plays, what it allows, and how severe each finding is. Change `POLICY_VERSION` with any of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["fail", "warn", "refuse", "note"]
# Stands in every report: the same world can be fit under one version and unfit under another.
POLICY_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLimits:
    """What a fit world keeps to. Rates are judged by the upper end of their 95 % interval.

    `false_accepts` holds per policy, `golden_rejects` and `reworded_rejects` for the solving ones. `gap` is a share of
    the range of rewards seen. `min_golden` and `min_nonsolving` are episodes: with fewer the limit cannot be shown.
    `rank_correlation` bounds reward against length among failures; `informative_groups` is the share of tasks whose
    group has both results.
    """

    # The limits are the project's own choices.
    false_accepts: float = 0.05
    golden_rejects: float = 0.10
    reworded_rejects: float = 0.15
    gap: float = 0.5
    # 0 refusals of 60 have an upper end of 6.0 %, clearly below `golden_rejects`.
    min_golden: int = 60
    # 0 accepts of 73 have an upper end of 5.0 %: with fewer, not even a clean policy keeps to `false_accepts`.
    min_nonsolving: int = 73
    fault_share: float = 0.05
    undecided_share: float = 0.10
    rank_correlation: float = 0.5
    informative_groups: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """How much is played.

    Args:
        tasks: tasks at most, spread over splits and templates.
        starts: starts per task at least.
        panel_starts: starts of each non-solving policy at least; all templates are among them.
        constants: candidates of the constant policy per start.
        repeats: replays of each episode in the check of determinism.
        replayed: episodes replayed there.
        leak_pairs: pairs of tasks in the check of leakage.
        group_size: episodes per group for the expected share of informative groups.
        parallel: episodes at once, in worlds that wait.
        call_s: longest time of a single call, seconds.
    """

    # Many tasks rather than many starts: 60 of many tasks miss a defect of 5 % with probability 0.046.
    tasks: int = 1000
    starts: int = 1
    # 0 of 80 has an upper end of 4.6 %; a single accept lifts it to 6.7 % and breaks the limit of 5 %.
    panel_starts: int = 80
    constants: int = 6
    repeats: int = 3
    replayed: int = 40
    leak_pairs: int = 6
    group_size: int = 8
    parallel: int = 4
    call_s: float = 60.0


# The checks name kinds only, so that what a finding means to the verdict is decided in this one place.
SEVERITY: dict[str, Severity] = {
    "false accept": "fail",
    "any accept": "fail",
    "false reject": "fail",
    "some rejects": "warn",
    "changed while playing": "refuse",
    "truth": "fail",
    "gap": "fail",
    "few golden": "refuse",
    "few episodes": "refuse",
    "no golden": "refuse",
    "verdict repeats": "fail",
    # Not a failure of the verifier, but whatever compares episodes cannot be trusted any more.
    "observation repeats": "refuse",
    "reset leakage": "fail",
    # Some tasks show it on purpose, and a world can declare that.
    "answer shown": "warn",
    "no informative group": "fail",
    "few informative groups": "warn",
    "quitting pays": "fail",
    # Every step cost shows here, and most are meant.
    "length pays": "warn",
    "guessable": "warn",
    "farming": "fail",
    "split overlap": "fail",
    "policy makes faults": "fail",
    # The episodes that are left are a selection, so their rates say nothing about the world.
    "faults": "refuse",
    "fault scored": "fail",
    "undecided": "refuse",
    "behaviour changed": "fail",
    "version changed": "note",
    "own error": "refuse",
}
"""Name of a finding -> what it does to the verdict: `fail` makes the world unfit, `refuse` leaves it undecided."""

# The same keys as SEVERITY.
REPAIR: dict[str, str] = {
    "false accept": "Read the transcript and tighten the verifier, or declare in `audit_facts` why this policy solves.",
    "any accept": "The verifier read what the policy wrote as if it were a result. Judge the state, not the text.",
    "false reject": "Play the transcript by hand. Either the task cannot be solved, or the verifier is too strict.",
    "some rejects": "Play the transcript by hand: the teacher may be wrong on this task, or the verifier.",
    "changed while playing": "Build the task list once: it was another one after the episodes than before them.",
    "truth": "The verifier and the world's own state disagree: find out which of the two reads the state wrongly.",
    "gap": "Pay success clearly more than anything else: the policy has no reason to prefer it.",
    "few golden": "Play more: raise --starts or --tasks.",
    "few episodes": "Play more: raise --starts or --tasks, or leave out --quick.",
    "no golden": "Give the world `teacher(task)`: without a known solution, nobody can say whether tasks are solvable.",
    "verdict repeats": "Draw all chance of world and verifier from the seed that `reset` is given.",
    "observation repeats": "Draw all chance from the seed that `reset` is given; then run the audit again.",
    "reset leakage": "Build everything of an episode in `reset`; share no state between episodes or environments.",
    "answer shown": "Take the answer out of the first observation, or declare `answer_shown` with the reason.",
    "no informative group": "All groups have one result, so there is nothing to learn: take harder or easier tasks.",
    "few informative groups": "Most groups teach nothing: take tasks that the policy solves sometimes.",
    "quitting pays": "Give failing a price, or take the price off the steps: the best policy here is to quit at once.",
    "length pays": "Check whether rewards before the end pay for length. A step cost shows here too, and may be meant.",
    "guessable": "Vary the answers more, or keep this floor in mind when you read success rates.",
    "farming": "Pay progress once, not each time: a loop earns as much as a solution.",
    "split overlap": "Move the shared tasks to one split: scores on the test split are not held out.",
    "policy makes faults": "Answer such actions with an observation; only a failure of the world itself may raise.",
    "faults": "Mend the faults first: results of the other episodes are a selection.",
    "fault scored": "Raise `EnvironmentFault` where the verifier itself fails; do not return a reward.",
    "undecided": "Give every finished episode a verdict: set `success` to True or False at the end.",
    "behaviour changed": "Change the world's `version`: scores before and after cannot be compared.",
    "version changed": "Scores of the two versions cannot be compared.",
    "own error": "This is a defect of the audit: please report it with the command.",
}
