"""Rules about whether anything is learned: signal, success, reward against score, evaluations, curriculum."""

from __future__ import annotations

from statistics import fmean

from rollwright.evaluation import checkpoint_scores, mismatch_alarms
from rollwright.view.doctor.rule_findings import Finding, NotJudged, Verdict
from rollwright.view.doctor.run_evidence import RunEvidence

# The limits stand in words in the `when` of each rule in `diagnosis`: change both.
FEW_STEPS = 5
INFORMATIVE_FRAC = 0.1
IDLE_FRAC = 0.2
FALL = 0.2
OVERFIT_GAP = 0.2
WIDE_INTERVAL = 0.3
REWARD_RISE, SUCCESS_FALL = 0.05, 0.05


def no_informative_groups(run: RunEvidence) -> Verdict:
    """Episodes of a group all earn the same, so that their comparison teaches nothing."""
    groups = run.series("rollout/groups_informative_frac")
    if not groups:
        return NotJudged("the method does not compare groups")
    recent = groups.recent
    # A policy that solves everything also makes groups with one result, and nothing is wrong with it.
    if recent.mean >= INFORMATIVE_FRAC or run.learned_it:
        return None
    success = run.series("rollout/success_frac").recent
    # Groups of one result are all solved or all failed; the success rate says which.
    easy = bool(success) and success.mean > 0.5
    remedies = (
        ("rollout.group_size=16 - larger groups more often hold a failure", "choose harder tasks for this policy")
        if easy
        else (
            "start from a policy that sometimes succeeds: imitate demonstrations first (recipes/sft.py)",
            "starts=snapshots - groups may begin in mid-episode, nearer to the goal",
            "rollout.group_size=16 - larger groups more often hold a success",
        )
    )
    how = "too easy" if easy else "too hard"
    return Finding(
        severity="serious",
        certainty="certain",
        message=f"Nearly all episodes of a group earn the same: the tasks are {how}, and nothing is learned.",
        evidence=(recent.said(), *([success.said()] if success else [])),
        remedies=remedies,
    )


def steps_taught_nothing(run: RunEvidence) -> Verdict:
    """Steps whose episodes moved no weight."""
    taught = run.series("optim/taught_count")
    if not taught:
        return NotJudged("no step says whether it taught anything")
    idle = [step for step, value in zip(taught.steps, taught.values, strict=True) if not value]
    frac = len(idle) / len(taught)
    # Idle steps in the second half only are what a learned task looks like.
    if frac <= IDLE_FRAC or (run.learned_it and idle[0] >= taught.steps[len(taught) // 2]):
        return None
    return Finding(
        severity="serious" if frac > 0.5 else "harmful",
        certainty="certain",
        message=f"{len(idle)} of {len(taught)} steps moved nothing by what their episodes earned.",
        evidence=(f"optim/taught_count: 0 in {len(idle)} steps, first in step {idle[0]}",),
        remedies=(
            "read the run's warnings: the first idle step says why",
            "rollout.groups_per_step=16 - more groups, so that some can teach",
            "algorithm.max_rounds=3 - collect again where no group can teach",
        ),
    )


def success_collapsed(run: RunEvidence) -> Verdict:
    """Training success fell far below what it had been."""
    success = run.series("rollout/success_frac")
    if len(success) < 2 * FEW_STEPS:
        return NotJudged(f"{2 * FEW_STEPS} steps with a success rate are needed, there are {len(success)}")
    # Means over several steps: the best single step of a noisy run is luck.
    windows = [
        (success.steps[i], fmean(success.values[i : i + FEW_STEPS])) for i in range(len(success) - FEW_STEPS + 1)
    ]
    step, best = max(windows, key=lambda window: window[1])
    now = success.last(FEW_STEPS)
    if best - now.mean <= FALL:
        return None
    return Finding(
        severity="serious",
        certainty="likely",
        message=f"Success fell from {best:.2f} to {now.mean:.2f}: the policy unlearned what it could do.",
        evidence=(f"rollout/success_frac: mean {best:.3g} over steps {step} to {step + FEW_STEPS - 1}", now.said()),
        remedies=(
            f"learner.learning_rate={run.number('learner.learning_rate', 1e-5) / 3:.1g} - smaller updates",
            "algorithm.kl_coef=0.01 - hold the policy near the reference",
            "run.checkpoint_every=5 - keep the checkpoints from which the best one can be chosen",
        ),
    )


def reward_hacking(run: RunEvidence) -> Verdict:
    """Reward rises while success, in training or held out, falls."""
    reward, success = run.series("reward/total_mean"), run.series("rollout/success_frac")
    alarms = [
        alarm
        for alarm in mismatch_alarms(checkpoint_scores(run.rows))
        if alarm.beyond_noise and alarm.rule in ("reward_against_score", "longer_not_better")
    ]
    enough = len(reward) >= 2 * FEW_STEPS and len(success) >= 2 * FEW_STEPS
    if not enough and not alarms:
        return NotJudged(f"{2 * FEW_STEPS} steps with reward and success are needed, there are {len(success)}")
    evidence = [alarm.message for alarm in alarms]
    # Rewards have any unit, so the rise is taken as a share of the largest one; the bound avoids dividing by zero.
    scale = max(1e-9, max(map(abs, reward.values), default=0.0))
    rise = (reward.recent.mean - reward.early.mean) / scale if enough else 0.0
    # Both must move: a reward that rises alone is what learning looks like.
    if enough and rise > REWARD_RISE and success.early.mean - success.recent.mean > SUCCESS_FALL:
        evidence += [reward.early.said(), reward.recent.said(), success.early.said(), success.recent.said()]
    if not evidence:
        return None
    return Finding(
        severity="serious",
        certainty="likely",
        message="The reward rises while success falls: the policy has found a way to be paid without doing the task.",
        evidence=tuple(evidence),
        remedies=(
            "rollwright show RUN --unsolved - read episodes with a high reward and no success",
            "rollwright audit WORLD - does the verifier accept garbage, repetition or constant answers?",
            "reward.name=env - train on the world's own verdict alone, if it has one",
            "algorithm.kl_coef=0.05 - hold the policy near the reference",
        ),
    )


def overfit_to_training(run: RunEvidence) -> Verdict:
    """Training success is far above held-out success."""
    train, held_out = run.series("rollout/success_frac"), run.series("eval/success_frac")
    # The evaluation at step 0 is that of the untrained policy.
    if len(train) < FEW_STEPS or not held_out or held_out.steps[-1] == 0:
        return NotJudged("training success and a held-out evaluation after the first step are needed")
    high = run.series("eval/success_high")
    # The steps before the evaluation: later ones come from a policy that was never evaluated.
    near = [v for s, v in zip(train.steps, train.values, strict=True) if s <= held_out.steps[-1]][-FEW_STEPS:]
    now, limit = fmean(near or train.last(FEW_STEPS).values), high.values[-1] if high else held_out.values[-1]
    # Within the evaluation's own interval, the gap may be chance.
    if now - held_out.values[-1] <= OVERFIT_GAP or now <= limit:
        return None
    return Finding(
        severity="harmful",
        certainty="likely",
        message="The policy solves its training starts far more often than held-out ones: it learned them by heart.",
        evidence=(
            f"rollout/success_frac: mean {now:.3g} over the {len(near)} steps before the evaluation",
            f"eval/success_frac: {held_out.values[-1]:.3g} at step {held_out.steps[-1]}, upper end {limit:.3g}",
        ),
        remedies=(
            "train on more tasks or starts: see the world's options that vary them",
            f"learner.epochs={max(1, int(run.number('learner.epochs', 1)) // 2)} - fewer passes over the same episodes",
            "evaluation.temperature=1 - if evaluation is greedy and training sampled, compare like with like first",
        ),
    )


def held_out_fell(run: RunEvidence) -> Verdict:
    """The last held-out score is below an earlier one by more than noise."""
    scores = checkpoint_scores(run.rows)
    if len(scores) < 2:
        return NotJudged("two held-out evaluations after the first step are needed")
    # Of equal scores the earliest step: it was reached with less training.
    best, last = max(scores, key=lambda row: (row.score, -row.step)), scores[-1]
    # The floor holds for evaluations whose noise is stated as zero.
    if best.score - last.score <= max(best.noise, last.noise, 0.02):
        return None
    return Finding(
        severity="harmful",
        certainty="likely",
        message=f"The held-out score was best at step {best.step} and is lower now: keep that checkpoint.",
        evidence=(
            f"eval/success_frac: {best.score:.3g} at step {best.step}",
            f"eval/success_frac: {last.score:.3g} at step {last.step}",
        ),
        remedies=(
            f"run.checkpoint_every={max(1, best.step // 2)} - so that the best checkpoint is kept",
            f"run.steps={best.step} - stop there",
        ),
    )


def evaluation_too_small(run: RunEvidence) -> Verdict:
    """The interval of the held-out success is too wide for any verdict."""
    low, high = run.series("eval/success_low"), run.series("eval/success_high")
    if not low or not high:
        return NotJudged("no held-out evaluation with an interval was logged")
    width = high.values[-1] - low.values[-1]
    if width <= WIDE_INTERVAL:
        return None
    seeds = int(run.number("evaluation.seeds_per_task", 8))
    # The width shrinks with the square root of the number of starts.
    enough = max(seeds + 1, round(seeds * (width / 0.2) ** 2))
    count = run.series("eval/episodes_count")
    return Finding(
        severity="minor",
        certainty="certain",
        message=f"The interval of the held-out success is {width:.2f} wide: too wide to tell runs apart.",
        evidence=(
            f"eval/success_low {low.values[-1]:.3g}, eval/success_high {high.values[-1]:.3g} at step {high.steps[-1]}",
            *([f"eval/episodes_count: {count.values[-1]:.0f}"] if count else []),
        ),
        remedies=(f"evaluation.seeds_per_task={enough} - about as many starts give a width of 0.2",),
    )


def dead_curriculum(run: RunEvidence) -> Verdict:
    """The curriculum has nothing left to offer: every task is mastered or hopeless, or no new one is kept."""
    if not (names := run.names("curriculum/")):
        return NotJudged("the run has no curriculum that logs anything")
    if run.learned_it:
        return None
    # Each kind of curriculum logs one of these; those that a run does not have are passed over.
    checks = (
        # p (1 - p) of 0.06 means a success rate below 0.064 or above 0.936.
        ("curriculum/learnability_mean", 0.06, "nearly all tasks are mastered or hopeless"),
        ("curriculum/score_mean", 1e-6, "no task surprises any more"),
        ("curriculum/progress_mean", 1e-3, "no task's outcome changes"),
        ("curriculum/kept_count", 0.0, "no new task is kept"),
    )
    found = [
        (run.series(name).recent, why)
        for name, limit, why in checks
        if name in names and len(run.series(name)) >= 3 and run.series(name).recent.mean <= limit
    ]
    if not found:
        return None
    return Finding(
        severity="harmful",
        certainty="certain",
        message=f"The curriculum has stopped: {found[0][1]}.",
        evidence=tuple(series.said() for series, _ in found),
        remedies=(
            "curriculum=uniform - draw all tasks alike again",
            "widen the world's tasks: see its options",
            "start from a stronger policy, so that more tasks are within reach",
        ),
    )
