"""Alarms where training reward and held-out score part, and the choice of a checkpoint by score."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rollwright.evaluation import CheckpointScores, best_by_score, checkpoint_scores, mismatch_alarms

REWARDS = (0.60, 0.65, 0.70, 0.75)


def run(scores: Sequence[float], rewards: Sequence[float] = REWARDS, **more: Sequence[float]) -> list[CheckpointScores]:
    return [
        CheckpointScores(step=10 * n, reward=reward, score=score, **{name: values[n] for name, values in more.items()})
        for n, (reward, score) in enumerate(zip(rewards, scores, strict=True))
    ]


def rules(rows: list[CheckpointScores]) -> list[str]:
    return [alarm.rule for alarm in mismatch_alarms(rows)]


def test_the_cards_numbers() -> None:
    """Spearman 0.4 is no alarm about the trend, -1 is; the score picks the checkpoint."""
    assert "reward_against_score" not in rules(run((0.30, 0.38, 0.41, 0.36)))
    falling = run((0.41, 0.40, 0.38, 0.36))
    assert rules(falling) == ["reward_against_score", "best_differs"]
    assert best_by_score(falling) is falling[0]
    assert "(rank correlation -1.00)" in mismatch_alarms(falling)[0].message
    assert "Keep the checkpoint of step 0" in mismatch_alarms(falling)[1].message


def test_a_healthy_run_gives_none_and_two_checkpoints_tell_nothing() -> None:
    assert rules(run((0.30, 0.38, 0.41, 0.46))) == []
    assert rules(run((0.41, 0.30), REWARDS[:2])) == []
    assert rules(run((0.4, 0.4, 0.4, 0.4))) == []


def test_only_the_last_five_count_for_the_trend() -> None:
    rewards = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert "reward_against_score" in rules(run((0.1, 0.2, 0.9, 0.8, 0.7, 0.6, 0.5), rewards))
    assert "reward_against_score" not in rules(run((0.9, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5), rewards))


def test_longer_episodes_with_a_flat_score() -> None:
    lengths = (100.0, 110.0, 115.0, 130.0)
    assert rules(run((0.40, 0.41, 0.405, 0.405), length=lengths)) == ["longer_not_better", "best_differs"]
    assert "longer_not_better" not in rules(run((0.40, 0.41, 0.42, 0.45), length=lengths))
    assert "longer_not_better" not in rules(run((0.4, 0.4, 0.4, 0.4), length=(100.0, 110.0, 115.0, 119.0)))


def test_a_fall_inside_the_noise_is_told_apart() -> None:
    falling = (0.41, 0.40, 0.38, 0.36)
    loud, quiet = (mismatch_alarms(run(falling, noise=(noise,) * 4)) for noise in (0.2, 0.01))
    assert [alarm.beyond_noise for alarm in loud] == [False, False]
    assert [alarm.beyond_noise for alarm in quiet] == [True, True]


def test_checkpoints_from_the_rows_of_a_metrics_file() -> None:
    steps = [
        {"step": n, "reward/total_mean": float(n), "rollout/num_turns_mean": 2.0, "rollout/action_tokens_mean": n + 1.0}
        for n in range(4)
    ]
    start = {"step": 0, "eval/success_frac": 0.1}
    middle = {"step": 2, "eval/success_frac": 0.5, "eval/success_low": 0.4, "eval/success_high": 0.8}
    last = {"step": 4, "eval/return_mean": 0.7}
    found = checkpoint_scores([start, *steps[:2], middle, *steps[2:], last])
    assert [(row.step, row.reward, row.score, row.length) for row in found] == [(2, 0.5, 0.5, 3.0), (4, 2.5, 0.7, 7.0)]
    assert found[0].noise == pytest.approx(0.2) and found[1].noise == 0
    assert checkpoint_scores([{"step": 1, "reward/total_mean": float("nan"), "eval/success_frac": 1.0}]) == []
