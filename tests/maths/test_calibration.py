"""The figures of a calibration report, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rollwright.evaluation.value_calibration import calibrate, format_calibration, save_calibration
from rollwright.maths.statistics.reliability import (
    area_under_curve,
    best_threshold,
    brier_score,
    calibration_bins,
    confusion,
    expected_calibration_error,
)

LABELS = [1, 0, 1, 0]
SCORES = [0.9, 0.8, 0.4, 0.1]


def test_area_under_the_curve():
    assert area_under_curve(LABELS, SCORES) == 0.75  # of 4 pairs, 0.4 against 0.8 is the wrong way round
    assert area_under_curve([1, 0], [0.5, 0.5]) == 0.5
    assert area_under_curve([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1]) == 0.875
    assert area_under_curve([1, 1], [0.2, 0.3]) is None
    assert area_under_curve([1, 0], [-3.0, 7.0]) == 0.0, "any unit will do"


def test_area_under_the_curve_counts_pairs():
    draws = np.random.default_rng(0)
    labels, scores = draws.integers(0, 2, 60), draws.integers(0, 9, 60) / 9
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert area_under_curve(labels, scores) == pytest.approx(np.mean(pairs))


def test_brier_score_bins_and_calibration_error():
    assert brier_score(LABELS, SCORES) == pytest.approx((0.01 + 0.64 + 0.36 + 0.01) / 4)
    bins = calibration_bins(LABELS, SCORES, num_bins=2)
    assert [(each.count, each.mean_probability) for each in bins] == [
        (2, pytest.approx(0.25)),
        (2, pytest.approx(0.85)),
    ]
    assert [each.success_rate and each.success_rate.point for each in bins] == [0.5, 0.5]
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.25 + 2 * 0.35) / 4)
    edges = calibration_bins([1, 0], [1.0, 0.5], num_bins=2)
    assert [each.count for each in edges] == [0, 2] and edges[0].success_rate is None


def test_a_probability_on_an_edge_is_in_the_bin_that_begins_there():
    edges = [number / 100 for number in range(101)]
    bins = calibration_bins([0] * 101, edges, num_bins=100)
    assert [each.count for each in bins] == [1] * 99 + [2], "0.29 * 100 is 28.999999999999996"


def test_confusion_takes_the_threshold_itself_for_a_success():
    counts = confusion(LABELS, SCORES, 0.4)
    found = (counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives)
    assert found == (2, 1, 1, 0)
    assert counts.accuracy.point == 0.75 and counts.precision is not None and counts.precision.point == 2 / 3
    assert counts.recall is not None and counts.recall.point == 1.0
    assert confusion(LABELS, SCORES, 0.95).precision is None


def test_the_best_threshold_makes_the_fewest_mistakes():
    assert best_threshold([0, 0, 1, 1], [-2.0, 0.0, 1.0, 3.0]) == 0.5
    assert best_threshold([0, 1], [2.0, 2.0]) in (1.0, 3.0)
    assert best_threshold([1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]) < 0.1
    draws = np.random.default_rng(1)
    labels, scores = draws.integers(0, 2, 40), draws.integers(0, 12, 40).astype(float)
    fewest = max(confusion(labels, scores, t).accuracy.point for t in np.arange(-0.5, 13))
    assert confusion(labels, scores, best_threshold(labels, scores)).accuracy.point == fewest


@pytest.mark.parametrize(
    ("labels", "scores"), [([], []), ([1], [0.1, 0.2]), ([2], [0.5]), ([1], [float("nan")]), ([1], [1.5])]
)
def test_what_is_no_probability_of_an_outcome_is_refused(labels: list[int], scores: list[float]):
    with pytest.raises(ValueError, match=r"expected|must be"):
        brier_score(labels, scores)


def test_what_is_refused_is_named_and_nothing_else():
    with pytest.raises(ValueError, match=r"expected finite scores, got \[nan\]"):
        area_under_curve([1, 0, 1], [-3.0, float("nan"), 7.0])


def test_the_report_counts_what_was_not_judged_and_splits_by_task(tmp_path: Path):
    found = calibrate(
        [True, False, True, False, True], [*SCORES, None], ["a|b", "a|b", "c", "c", "c"], num_train=7, threshold=0.5
    )
    assert (found.num_held_out, found.num_unread, found.num_train) == (4, 1, 7)
    assert [(line.task, line.count, line.accuracy.point) for line in found.by_task] == [("a|b", 2, 0.5), ("c", 2, 0.5)]
    assert found.brier_constant == 0.25 and found.auc == 0.75
    document = json.loads(save_calibration(found, tmp_path).read_text())
    assert document["confusion"]["false_positives"] == 1 and len(document["bins"]) == 10
    assert document["accuracy"]["low"] < 0.5 < document["accuracy"]["high"]
    page = (tmp_path / "eval" / "calibration.md").read_text()
    assert page == format_calibration(found) and "| a\\|b | 2 |" in page and "(7 for training, 1 not judged)" in page
