"""Figures by attempt: the arithmetic, the record on disk, the lines a reader sees, and which checkpoint is the best."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from rollwright.contracts import Split, StopReason, episode_seed
from rollwright.evaluation import (
    EpisodeRow,
    Evaluation,
    attempt_figures,
    attempt_metrics_of,
    best_checkpoint,
    compare,
    format_comparison,
    format_table,
    load_evaluation,
    record_evaluation,
    save_evaluation,
)
from tests import builders

PAIRS = [(0.0, 1.0), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]


def evaluation(pairs: list[tuple[float, ...]], *, name: str = "x", version: int = 0, split: Split = "validation"):
    rows = tuple(
        EpisodeRow(
            task=f"t{n % 2}",
            seed=episode_seed(split, n),
            attempt=0,
            success=bool(rewards and rewards[0] > 0.5),  # not the last attempt's, so that the two can be told apart
            total_return=sum(rewards),
            num_turns=len(rewards),
            stop_reason=StopReason.TERMINATED,
            attempt_rewards=rewards,
            attempt_edits=tuple(float(a != b) for a, b in itertools.pairwise(rewards)),
        )
        for n, rewards in enumerate(pairs)
    )
    return Evaluation(
        name=name, split=split, policy="p", version=version, temperature=0.0, rows=rows, sampling={}
    )  # fmt: skip


def test_shares_by_hand() -> None:
    """Task 0 has (0,1), (0,0), (0,1); task 1 has (1,1), (1,0): means over the tasks."""
    found = attempt_figures(evaluation(PAIRS))
    assert found is not None
    assert [round(one.point, 6) for one in found.accuracy] == [0.5, round((2 / 3 + 1 / 2) / 2, 6)]
    assert found.wrong_to_right == pytest.approx((2 / 3 + 0) / 2) and found.right_to_wrong == pytest.approx(0.25)
    assert found.gain.point == pytest.approx(1 / 3 - 1 / 4) and found.gain.low < found.gain.point < found.gain.high
    assert (found.edit_ratio_mean, found.unedited_frac, found.graded_frac) == (0.6, 0.4, 0.0)


def test_the_gain_is_what_became_right_minus_what_became_wrong() -> None:
    draws = random.Random(0)
    for _ in range(50):
        pairs = [(float(draws.random() < 0.4), float(draws.random() < 0.6)) for _ in range(draws.randrange(4, 20))]
        found = attempt_figures(evaluation(pairs))
        assert found is not None
        first, last = found.accuracy[0].point, found.accuracy[-1].point
        assert found.gain.point == pytest.approx(found.wrong_to_right - found.right_to_wrong)
        assert found.gain.point == pytest.approx(last - first)
        assert found.right_to_wrong <= first + 1e-12 and found.wrong_to_right <= 1 - first + 1e-12


def test_an_episode_that_ended_early_keeps_its_outcome_and_one_attempt_has_no_figures() -> None:
    found = attempt_figures(evaluation([(1.0,), (0.0, 0.0, 1.0), (1.0,), (0.0, 1.0)]))
    assert found is not None and [one.point for one in found.accuracy] == [0.5, 0.75, 1.0]
    assert attempt_figures(evaluation([(), (), ()])) is None
    assert attempt_metrics_of(evaluation([(), ()])) == {}


def test_graded_rewards_are_said() -> None:
    table = format_table(evaluation([(0.25, 1.0), (0.0, 0.75), (1.0, 1.0), (0.0, 0.0)]))
    assert "graded rewards: 25.0% of the attempts earned neither 0 nor 1" in table
    assert "graded" not in format_table(evaluation(PAIRS))


def test_the_table_and_the_comparison_say_them() -> None:
    table = format_table(evaluation(PAIRS))
    assert "right at attempt 1: 0.500 [" in table and "right at attempt 2: 0.583 [" in table
    assert "= 0.333 wrong to right - 0.250 right to wrong" in table
    assert "40.0% of the attempts repeat the one before" in table
    a, b = evaluation([(0.0, 0.0)] * 8), evaluation([(0.0, 1.0)] * 6 + [(0.0, 0.0)] * 2)
    found = compare(a, b)
    assert found.by_attempt["gain between attempts"].interval.point == pytest.approx(0.75)
    assert found.by_attempt["first attempt right"].interval.point == 0
    assert "gain between attempts, difference: +0.750 [" in format_comparison(found)
    assert "attempt" not in format_comparison(compare(evaluation([()] * 8), evaluation([()] * 8)))


def test_the_record_comes_back_whole_and_one_of_single_attempts_has_no_new_columns(tmp_path: Path) -> None:
    path = save_evaluation(evaluation(PAIRS), tmp_path)
    assert load_evaluation(path) == evaluation(PAIRS)
    assert json.loads(path.read_text())["by_attempt"]["wrong_to_right"] == pytest.approx(1 / 3)
    single = json.loads(save_evaluation(evaluation([(), ()], name="y"), tmp_path).read_text())
    assert "by_attempt" not in single and "attempt_rewards" not in single["columns"]
    assert load_evaluation(tmp_path / "eval" / "y.json") == evaluation([(), ()], name="y")


def test_played_episodes_are_recorded_by_attempt() -> None:
    seeds = [episode_seed("test", n) for n in range(2)]
    first = builders.turn(action=(1, 2, 3, 4), reward={"tests": 0.0}, attempt=0)
    second = builders.turn(action=(1, 2, 9, 4), reward={"tests": 1.0}, attempt=1)
    both = builders.episode("a", first, second, split="test", seed=seeds[0])
    broken_off = builders.episode("b", first, split="test", seed=seeds[1])
    rows = record_evaluation([both, broken_off], name="x", split="test").rows
    assert [(row.attempt_rewards, row.attempt_edits) for row in rows] == [((0.0, 1.0), (0.25,)), ((0.0,), ())]
    assert record_evaluation([broken_off], name="x", split="test").rows[0].attempt_rewards == ()


def test_the_best_checkpoint_is_the_one_whose_last_attempt_is_best(tmp_path: Path) -> None:
    save_evaluation(evaluation([(1.0, 0.0)] * 8, name="step_00002", version=2), tmp_path)
    save_evaluation(evaluation([(0.0, 1.0)] * 6 + [(0.0, 0.0)] * 2, name="step_00004", version=4), tmp_path)
    assert best_checkpoint(tmp_path).evaluation == "step_00004"
    assert best_checkpoint(tmp_path).score.point == pytest.approx(0.75)
