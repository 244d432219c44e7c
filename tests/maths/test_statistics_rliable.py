"""Our aggregates of score matrices equal those of rliable 1.2.0 on random matrices, to 1e-12.

rliable brings arch, statsmodels and seaborn, so its numbers are stored (`data/make_rliable_scores.py` made them); where
it is installed, fresh matrices are compared too.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rollwright.maths.statistics import (
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

STORED = json.loads((Path(__file__).parent / "data" / "rliable_scores.json").read_text())["matrices"]
AGGREGATES = (interquartile_mean, mean_score, median_score, optimality_gap)


@pytest.mark.parametrize("stored", STORED, ids=lambda one: f"{len(one['x'])}x{len(one['x'][0])}")
def test_scores_of_random_matrices_are_those_of_rliable(stored: dict) -> None:
    for aggregate in AGGREGATES:
        assert aggregate(stored["x"]) == pytest.approx(stored[aggregate.__name__], abs=1e-12, rel=0), aggregate
    improvement = probability_of_improvement(stored["x"], stored["y"])
    assert improvement == pytest.approx(stored["probability_of_improvement"], abs=1e-12, rel=0)
    profile = performance_profile(stored["x"], stored["thresholds"])
    assert profile.tolist() == pytest.approx(stored["performance_profile"], abs=1e-12, rel=0)


def test_fresh_matrices_too_where_rliable_is_installed() -> None:
    metrics = pytest.importorskip("rliable.metrics")
    theirs = (metrics.aggregate_iqm, metrics.aggregate_mean, metrics.aggregate_median, metrics.aggregate_optimality_gap)
    draws = np.random.default_rng()
    for _ in range(50):
        x, y = (draws.normal(0.5, 0.5, (draws.integers(1, 12), 7)) for _ in range(2))
        for ours, other in zip(AGGREGATES, theirs, strict=True):
            assert ours(x) == pytest.approx(float(other(x)), abs=1e-12, rel=0)
        assert probability_of_improvement(x, y) == pytest.approx(float(metrics.probability_of_improvement(x, y)))
