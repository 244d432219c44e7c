"""Evaluation: held-out episodes (`play`), their record, its figures with intervals, comparisons, tables."""

from rollwright.evaluation.comparison import Comparison, compare
from rollwright.evaluation.files import load_evaluation, save_evaluation
from rollwright.evaluation.play import evaluate, evaluation_requests, held_out_seeds
from rollwright.evaluation.record import EpisodeRow, Evaluation, record_evaluation
from rollwright.evaluation.summary import Summary, TaskSummary, metrics, summarise
from rollwright.evaluation.tables import format_comparison, format_side_by_side, format_table

__all__ = [
    "Comparison",
    "EpisodeRow",
    "Evaluation",
    "Summary",
    "TaskSummary",
    "compare",
    "evaluate",
    "evaluation_requests",
    "format_comparison",
    "format_side_by_side",
    "format_table",
    "held_out_seeds",
    "load_evaluation",
    "metrics",
    "record_evaluation",
    "save_evaluation",
    "summarise",
]
