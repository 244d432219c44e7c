"""Where the reward that a policy is trained on and the score that it is judged by part company.

A learned reward, the reward of training and the held-out score are three proxies in a row. These rules watch the last
two over the checkpoints of one run; the selection rule is always the held-out score.

Sources: arXiv:2311.00168 (The Alignment Ceiling).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rollwright.maths.statistics import spearman

WINDOW = 5
"""Checkpoints that the rules look back on."""
FEWEST = 3
"""Two checkpoints have a rank correlation of 1 or -1 whatever happened."""
LONGER, FLAT = 1.2, 0.01
"""Lengths that grew by this factor, and scores that rose by no more than this, set off the rule about length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointScores:
    """One checkpoint: the training reward around it, its held-out score, and how long its episodes were.

    `noise` is half the width of the score's interval, 0 where it is unknown. `length` counts the sampled tokens of an
    episode, or whatever else measures it; None where nobody did.
    """

    step: int
    reward: float
    score: float
    length: float | None = None
    noise: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MismatchAlarm:
    """One rule that fired: its name, what was seen, and whether it is more than the noise of the scores."""

    rule: str
    message: str
    beyond_noise: bool


def mismatch_alarms(rows: Sequence[CheckpointScores]) -> list[MismatchAlarm]:
    """The alarms of a run's checkpoints, oldest first; [] where reward and score agree, or there are too few.

    Rules: `reward_against_score` (rank correlation below 0 over the last checkpoints), `longer_not_better` (episodes
    grew by a fifth, the score did not), `best_differs` (the checkpoint of the highest reward is not the best one).
    """
    rows = sorted(rows, key=lambda row: row.step)
    recent = rows[-WINDOW:]
    if len(recent) < FEWEST:
        return []
    # The last rule looks at the whole run, for any of its checkpoints may be kept.
    found = (_reward_against_score(recent), _longer_not_better(recent), _best_differs(rows))
    return [alarm for alarm in found if alarm is not None]


def best_by_score(rows: Sequence[CheckpointScores]) -> CheckpointScores:
    """The checkpoint to keep: the highest held-out score, the earliest of equal ones.

    Raises:
        ValueError: no checkpoint.
    """
    return max(rows, key=lambda row: (row.score, -row.step))


def checkpoint_scores(metrics: Sequence[Mapping[str, float]]) -> list[CheckpointScores]:
    """The checkpoints of a run from the rows of its `metrics.jsonl`: one for every evaluation.

    The reward and the length are means over the steps since the evaluation before. An evaluation before the first step
    is left out: nothing was earned yet.
    """
    found: list[CheckpointScores] = []
    rewards: list[float] = []
    lengths: list[float] = []
    for row in metrics:
        if (reward := _finite(row, "reward/total_mean")) is not None:
            rewards.append(reward)
            turns, tokens = _finite(row, "rollout/num_turns_mean"), _finite(row, "rollout/action_tokens_mean")
            if turns is not None and tokens is not None:
                lengths.append(turns * tokens)  # sampled tokens of an episode
        score = _finite(row, "eval/success_frac")
        score = _finite(row, "eval/return_mean") if score is None else score
        if score is None or not rewards:
            continue
        # Metrics hold an interval of the success alone; a return has no noise here.
        low, high = _finite(row, "eval/success_low"), _finite(row, "eval/success_high")
        found.append(
            CheckpointScores(
                step=int(row.get("step", len(found))),
                reward=fmean(rewards),
                score=score,
                length=fmean(lengths) if lengths else None,
                noise=0.0 if low is None or high is None else (high - low) / 2,
            )
        )
        # The next evaluation judges other weights, so its means begin anew.
        rewards, lengths = [], []
    return found


def _finite(row: Mapping[str, float], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _reward_against_score(recent: Sequence[CheckpointScores]) -> MismatchAlarm | None:
    rho = spearman([row.reward for row in recent], [row.score for row in recent])
    if not rho < 0:  # NaN, where one of them did not move, is no alarm
        return None
    peak = max(row.score for row in recent)
    # From the best score on: a run that began low has not fallen.
    fall = peak - recent[-1].score
    return MismatchAlarm(
        rule="reward_against_score",
        message=(
            f"over the last {len(recent)} evaluations the training reward went from {recent[0].reward:.3f} to "
            f"{recent[-1].reward:.3f} while the held-out score went from {recent[0].score:.3f} to "
            f"{recent[-1].score:.3f} (rank correlation {rho:.2f}): the policy may be gaming the reward"
        ),
        beyond_noise=fall > max(row.noise for row in recent),
    )


def _longer_not_better(recent: Sequence[CheckpointScores]) -> MismatchAlarm | None:
    first, last = recent[0], recent[-1]
    if first.length is None or last.length is None or last.length <= LONGER * first.length:
        return None
    if last.score - first.score > FLAT:
        return None
    return MismatchAlarm(
        rule="longer_not_better",
        message=(
            f"episodes grew from {first.length:.1f} to {last.length:.1f} ({last.length / first.length - 1:+.0%}) while "
            f"the held-out score went from {first.score:.3f} to {last.score:.3f}: the reward may pay for length"
        ),
        beyond_noise=True,
    )


def _best_differs(rows: Sequence[CheckpointScores]) -> MismatchAlarm | None:
    by_reward = max(rows, key=lambda row: (row.reward, -row.step))
    by_score = best_by_score(rows)
    # Another checkpoint with the same score is as good a choice.
    if by_reward.score >= by_score.score:
        return None
    return MismatchAlarm(
        rule="best_differs",
        message=(
            f"the training reward is highest at step {by_reward.step}, where the held-out score is "
            f"{by_reward.score:.3f}; the score is highest at step {by_score.step} ({by_score.score:.3f}). "
            f"Keep the checkpoint of step {by_score.step}"
        ),
        beyond_noise=by_score.score - by_reward.score > max(by_score.noise, by_reward.noise),
    )
