"""Rollouts: asynchronous episodes (`episode`), many at once (`collector`), faults as data (`faults`)."""

from rollwright.rollout.actors import Actor, EngineActor, RandomActor, TeacherActor
from rollwright.rollout.collector import Collector, GroupRequest
from rollwright.rollout.context import Context
from rollwright.rollout.episode import EpisodeRequest, Limits
from rollwright.rollout.faults import FaultLog, score_or_note
from rollwright.rollout.journal import Journal
from rollwright.rollout.metrics import rollout_metrics
from rollwright.rollout.rounds import JournalledActor, RoundsActor

__all__ = [
    "Actor",
    "Collector",
    "Context",
    "EngineActor",
    "EpisodeRequest",
    "FaultLog",
    "GroupRequest",
    "Journal",
    "JournalledActor",
    "Limits",
    "RandomActor",
    "RoundsActor",
    "TeacherActor",
    "rollout_metrics",
    "score_or_note",
]
