"""Statistics of evaluations: intervals, aggregates over runs and tasks, paired verdicts. numpy, no torch."""

from rollwright.maths.statistics.clusters import clustered_bootstrap, mean_of_episodes
from rollwright.maths.statistics.differences import PairedDifference, Target, paired_difference
from rollwright.maths.statistics.matrices import (
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    percentile_interval,
    performance_profile,
    probability_of_improvement,
    profile_band,
    score_matrix,
    stratified_bootstrap,
    stratified_bootstrap_pair,
)
from rollwright.maths.statistics.multiplicity import (
    benjamini_hochberg,
    holm,
    mcnemar_exact,
    spearman,
    units_needed,
)
from rollwright.maths.statistics.rates import Interval, effective_wilson, pass_at_k, wilson_interval
from rollwright.maths.statistics.reliability import (
    Bin,
    Confusion,
    area_under_curve,
    best_threshold,
    brier_score,
    calibration_bins,
    confusion,
    expected_calibration_error,
)
from rollwright.maths.statistics.seeds import RunScores, run_difference

__all__ = [
    "Bin",
    "Confusion",
    "Interval",
    "PairedDifference",
    "RunScores",
    "Target",
    "area_under_curve",
    "benjamini_hochberg",
    "best_threshold",
    "brier_score",
    "calibration_bins",
    "clustered_bootstrap",
    "confusion",
    "effective_wilson",
    "expected_calibration_error",
    "holm",
    "interquartile_mean",
    "mcnemar_exact",
    "mean_of_episodes",
    "mean_score",
    "median_score",
    "optimality_gap",
    "paired_difference",
    "pass_at_k",
    "percentile_interval",
    "performance_profile",
    "probability_of_improvement",
    "profile_band",
    "run_difference",
    "score_matrix",
    "spearman",
    "stratified_bootstrap",
    "stratified_bootstrap_pair",
    "units_needed",
    "wilson_interval",
]
