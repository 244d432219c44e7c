"""Held-out episodes, their record, figures with intervals, and comparisons of runs.

Lives here: the section `evaluation` (`evaluation_settings`), the episodes (`evaluation_play`, `search_play`), their
record and files (`evaluation_record`, `evaluation_files`), figures (`evaluation_summary`, `attempt_figures`,
`value_calibration`, `success_cost`), pairing and verdicts of two evaluations (`pairing`, `comparison`,
`comparison_tables`), of groups of runs (`shared_episodes`, `group_comparison`, `group_tables`, `interval_plot`), alarms
where reward and score part (`mismatch`), and which checkpoint to keep (`checkpoint_choice`).
May import: checks and what stands above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rollwright.evaluation.attempt_figures import AttemptFigures, attempt_figures, attempt_metrics_of
from rollwright.evaluation.checkpoint_choice import BEST, BEST_MARK, CheckpointChoice, best_checkpoint
from rollwright.evaluation.comparison import Comparison, compare
from rollwright.evaluation.comparison_tables import format_comparison, format_side_by_side, format_table
from rollwright.evaluation.evaluation_files import load_evaluation, save_evaluation
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation, record_evaluation
from rollwright.evaluation.evaluation_settings import EvaluationSettings
from rollwright.evaluation.evaluation_summary import Summary, TaskSummary, metrics, summarise
from rollwright.evaluation.foreign.any_evaluation import is_foreign_log, read_any_evaluation
from rollwright.evaluation.foreign.log_pairing import LogPairing, check_same_content
from rollwright.evaluation.foreign.log_reading import EvaluationReading, LogReport
from rollwright.evaluation.group_comparison import GroupComparison, compare_groups
from rollwright.evaluation.group_tables import comparison_csv, comparison_json, format_groups
from rollwright.evaluation.interval_plot import group_plot
from rollwright.evaluation.mismatch import (
    CheckpointScores,
    MismatchAlarm,
    best_by_score,
    checkpoint_scores,
    mismatch_alarms,
)
from rollwright.evaluation.success_cost import SuccessCost, success_cost, training_cost
from rollwright.evaluation.value_calibration import calibrate, format_calibration, save_calibration

if TYPE_CHECKING:
    from rollwright.evaluation.evaluation_play import evaluate, evaluate_policy, evaluation_requests, held_out_seeds
    from rollwright.evaluation.search_play import evaluate_search, search_line

__all__ = [
    "BEST",
    "BEST_MARK",
    "AttemptFigures",
    "CheckpointChoice",
    "CheckpointScores",
    "Comparison",
    "EpisodeRow",
    "Evaluation",
    "EvaluationReading",
    "EvaluationSettings",
    "GroupComparison",
    "LogPairing",
    "LogReport",
    "MismatchAlarm",
    "SuccessCost",
    "Summary",
    "TaskSummary",
    "attempt_figures",
    "attempt_metrics_of",
    "best_by_score",
    "best_checkpoint",
    "calibrate",
    "check_same_content",
    "checkpoint_scores",
    "compare",
    "compare_groups",
    "comparison_csv",
    "comparison_json",
    "evaluate",
    "evaluate_policy",
    "evaluate_search",
    "evaluation_requests",
    "format_calibration",
    "format_comparison",
    "format_groups",
    "format_side_by_side",
    "format_table",
    "group_plot",
    "held_out_seeds",
    "is_foreign_log",
    "load_evaluation",
    "metrics",
    "mismatch_alarms",
    "read_any_evaluation",
    "record_evaluation",
    "save_calibration",
    "save_evaluation",
    "search_line",
    "success_cost",
    "summarise",
    "training_cost",
]

_PLAYED = ("evaluate", "evaluate_policy", "evaluation_requests", "held_out_seeds")
_SEARCHED = ("evaluate_search", "search_line")


def __getattr__(name: str) -> Any:
    # Playing needs engines, and with them torch and transformers: seconds that nobody waits for who only reads files.
    if name in _PLAYED:
        from rollwright.evaluation import evaluation_play

        return getattr(evaluation_play, name)
    if name in _SEARCHED:
        from rollwright.evaluation import search_play

        return getattr(search_play, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
