"""Random matrices with their scores by rliable, for `test_statistics_rliable.py`.

Run once, in an environment of its own: `pip install rliable==1.2.0 "pandas<3"`, then `python make_rliable_scores.py`.
"""

import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

SHAPES = (
    (3, 3, 2),
    (5, 4, 6),
    (10, 7, 26),
    (2, 9, 1),
    (4, 4, 5),
)  # runs of X, runs of Y, tasks; the last has many ties


def scores(x: np.ndarray, y: np.ndarray) -> dict[str, object]:
    """Everything that rliable makes of the two."""
    thresholds = np.linspace(-0.5, 1.5, 9)
    profile = library.create_performance_profile({"x": x}, thresholds, reps=10)[0]["x"]
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "interquartile_mean": float(metrics.aggregate_iqm(x)),
        "mean_score": float(metrics.aggregate_mean(x)),
        "median_score": float(metrics.aggregate_median(x)),
        "optimality_gap": float(metrics.aggregate_optimality_gap(x)),
        "probability_of_improvement": float(metrics.probability_of_improvement(x, y)),
        "thresholds": thresholds.tolist(),
        "performance_profile": np.asarray(profile).tolist(),
    }


def main() -> None:
    """Write the file beside this one."""
    g = np.random.default_rng(20)
    found = []
    for runs_x, runs_y, tasks in SHAPES:
        if tasks == 5:
            x, y = (g.integers(0, 3, (runs, tasks)) / 2 for runs in (runs_x, runs_y))
        else:
            x, y = (np.round(g.normal(mean, 0.4, (runs, tasks)), 3) for mean, runs in ((0.5, runs_x), (0.6, runs_y)))
        found.append(scores(x, y))
    text = json.dumps({"made_by": "rliable 1.2.0, numpy " + np.__version__, "matrices": found})
    Path(__file__).with_name("rliable_scores.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
