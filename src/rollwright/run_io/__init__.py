"""What a run writes down, and how long it waits: metrics, progress, checkpoints, locks, deadlines.

Lives here: the section `run` (`run_settings`), metric files and trackers (`tracking`), what a run was and spent
(`run_facts`, `machine_facts`), what it prints (`console`, `progress`, `interruption`), checkpoints on disk and seals
that tell a file from a changed one (`checkpoint`), the lock of a folder (`run_lock`), deadlines (`deadlines`), the
parts of a run's time (`time_ledger`), threads and Ray processes that run worlds (`workers`, `ray_world`), files that
somebody else may have made (`foreign_files`).
May import: contracts and config. No torch: Ray's workers load this folder.
"""

from rollwright.run_io.checkpoint import Checkpoint, Checkpoints, seal_fault, sealed
from rollwright.run_io.console import StepReport, duration, evaluation_line, say, step_line
from rollwright.run_io.deadlines import deadline
from rollwright.run_io.foreign_files import open_regular, settings_tree
from rollwright.run_io.interruption import next_command, parent_words, what_is_saved
from rollwright.run_io.progress import Progress
from rollwright.run_io.ray_world import RayWorld
from rollwright.run_io.run_facts import FACTS, RunFacts, read_facts, remember_command
from rollwright.run_io.run_lock import NAME, RunLock, held, is_held
from rollwright.run_io.run_settings import RunSettings
from rollwright.run_io.time_ledger import LEARNER_LANE, time_shares
from rollwright.run_io.tracking import (
    RunFolder,
    Tracker,
    append_line,
    hyperparameters,
    metric_part,
    metric_row,
    read_metrics,
)
from rollwright.run_io.workers import Workers, bounded

__all__ = [
    "FACTS",
    "LEARNER_LANE",
    "NAME",
    "Checkpoint",
    "Checkpoints",
    "Progress",
    "RayWorld",
    "RunFacts",
    "RunFolder",
    "RunLock",
    "RunSettings",
    "StepReport",
    "Tracker",
    "Workers",
    "append_line",
    "bounded",
    "deadline",
    "duration",
    "evaluation_line",
    "held",
    "hyperparameters",
    "is_held",
    "metric_part",
    "metric_row",
    "next_command",
    "open_regular",
    "parent_words",
    "read_facts",
    "read_metrics",
    "remember_command",
    "say",
    "seal_fault",
    "sealed",
    "settings_tree",
    "step_line",
    "time_shares",
    "what_is_saved",
]
