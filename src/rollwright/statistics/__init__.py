"""Statistics of evaluations: intervals, aggregates over runs and tasks, paired verdicts. numpy, no torch."""

from rollwright.statistics.clusters import (
    PairedDifference,
    clustered_bootstrap,
    mean_of_episodes,
    paired_difference,
)
from rollwright.statistics.matrices import (
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
from rollwright.statistics.rates import Interval, pass_at_k, wilson_interval

__all__ = [
    "Interval",
    "PairedDifference",
    "clustered_bootstrap",
    "interquartile_mean",
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
    "score_matrix",
    "stratified_bootstrap",
    "stratified_bootstrap_pair",
    "wilson_interval",
]
