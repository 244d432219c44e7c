"""The lines of a run, by table: what is missing is left out; the time left, by a clock of our own."""

from __future__ import annotations

import io

import pytest

from rollwright.run_io.console import StepReport, duration, evaluation_line, faulted_count, say, step_line

FULL = {
    "rollout/success_frac": 0.42,
    "reward/total_mean": 0.4,
    "policy/kl_ref_mean": 0.0123,
    "policy/kl_old_mean": 0.5,
    "policy/entropy_mean": 1.314,
    "rollout/nll_mean": 2.0,
    "rollout/episodes_count": 64.0,
    "rollout/env_error_frac": 1 / 64,
    "rollout/num_turns_mean": 4.0,
    "rollout/action_tokens_mean": 8.0,
    "time/step_s": 20.0,
    "time/collect_s": 10.3,
    "time/greedy_s": 2.0,
    "time/score_s": 0.1,
    "time/update_s": 7.2,
    "time/sync_s": 0.04,
}
BEFORE = [{"rollout/success_frac": 0.3}, {"rollout/success_frac": 0.44}, {}]  # mean 0.37


@pytest.mark.parametrize(
    ("metrics", "previous", "left_s", "expected"),
    [
        (
            FULL,
            BEFORE,
            840.0,
            # 63 whole episodes x 4 turns x 8 tokens in 20 s: 100.8 tokens a second; sync took too little to be named
            "step 3 of 24 | success 0.42 (+0.05) | reward 0.40 | kl 0.0123 | entropy 1.31 | 3.2 ep/s | 101 tok/s | "
            "collect 12.3 s, score 0.1 s, update 7.2 s | faults 1 | 14 min left",
        ),
        ({}, [], None, "step 3 of 24"),
        ({"reward/total_mean": -7.5}, [{"reward/total_mean": -9.0}], None, "step 3 of 24 | reward -7.50 (+1.50)"),
        ({"rollout/success_frac": None, "reward/total_mean": 1.0}, [], None, "step 3 of 24 | reward 1.00"),
        ({"policy/kl_ref_mean": float("nan")}, [], None, "step 3 of 24"),
        ({"policy/kl_old_mean": 0.25, "rollout/nll_mean": 2.0}, [], None, "step 3 of 24 | kl old 0.25 | nll 2"),
        (
            {"v_step/loss": 0.5, "policy/loss": 1.25, "time/step_s": 2.0, "time/update_s": 1.9},
            [{"v_step/loss": 0.75}],
            None,
            "step 3 of 24 | v step loss 0.50 (-0.25) | policy loss 1.25 | update 1.9 s",
        ),
        ({"rollout/nll_mean": -0.0, "policy/kl_ref_mean": 0.0}, [], None, "step 3 of 24 | kl 0"),
        ({"reward/total_mean": 0.0, "policy/loss": 9.0}, [], None, "step 3 of 24 | reward 0.00"),
        ({"optim/skipped_count": 1.0}, [], 61.0, "step 3 of 24 | no update | 61 s left"),
    ],
)
def test_a_step_in_one_line(metrics: dict, previous: list[dict], left_s: float | None, expected: str) -> None:
    assert step_line(3, 24, metrics, previous, left_s=left_s) == expected


def test_a_last_step_has_no_time_left_and_a_run_without_end_no_total() -> None:
    assert step_line(24, 24, {}, left_s=5.0) == "step 24 of 24"
    assert step_line(5, 0, {}, unit="batch") == "batch 5"


def test_episodes_that_break_are_counted_by_whole_ones() -> None:
    shares = {"rollout/env_error_frac": 0.25, "rollout/engine_error_frac": 0.125, "rollout/episodes_count": 8.0}
    assert faulted_count(shares) == 3 and faulted_count({"rollout/episodes_count": 8.0}) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            {"success": (0.8, 0.63, 0.93), "tasks": 6, "starts": 50, "faults": 3},
            "evaluation final: success 0.80 [0.63, 0.93] on 6 tasks × 50 starts, 3 faults left out",
        ),
        (
            {"success": (1.0, 0.2, 1.0), "tasks": 1, "starts": 1, "faults": 1, "attempts": 4},
            "evaluation final: success 1.00 [0.20, 1.00] on 1 task × 1 start × 4 attempts, 1 fault left out",
        ),
        (
            {"success": None, "reward": -6.8, "tasks": 2, "starts": 3},
            "evaluation final: mean return -6.80, no verdicts on 2 tasks × 3 starts",
        ),
        ({"success": None, "tasks": 2, "starts": 3}, "evaluation final: nothing was judged on 2 tasks × 3 starts"),
    ],
)
def test_an_evaluation_in_one_line(words: dict, expected: str) -> None:
    assert evaluation_line("final", **words) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (89.4, "89 s"),
        (89.6, "2 min"),
        (840, "14 min"),
        (5390, "1 h 30 min"),
        (7200, "2 h"),
        (200_000, "2 d 7 h"),
    ],
)
def test_lengths_of_time(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_time_left_is_by_recent_steps_and_ends_with_the_minutes_of_the_run() -> None:
    now = [0.0]
    report = StepReport(10, clock=lambda: now[0])
    now[0] = 100.0  # a first evaluation
    report.begin()
    now[0] = 110.0
    assert report.step(1, {}).endswith("| 2 min left")  # 9 steps of 10 s
    for step in range(2, 7):
        now[0] += 2.0
        line = report.step(step, {})
    assert line.endswith("| 8 s left")  # 4 steps of 2 s: the slow first one is forgotten
    short = StepReport(10, max_minutes=0.5, clock=lambda: now[0])
    now[0] += 20.0
    assert short.step(1, {}).endswith("| 10 s left")


def test_only_the_first_rank_speaks_and_no_sign_breaks_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("6 tasks × 50", stream=ascii_only)
    monkeypatch.setenv("RANK", "1")
    say("and me", stream=ascii_only)
    ascii_only.seek(0)
    assert ascii_only.read() == "6 tasks ? 50\n"
