"""Episodes: one, many at once, and what goes wrong in them.

Lives here: the section `rollout` (`rollout_settings`, `open_collector`), one episode (`episode`, `restoring`), the
calls of its world (`world_host`), many at once (`collector`, `rounds`, `run_ahead`, `rank_spread`), who acts
(`actors`), what a policy is shown (`contexts`, `rerendering`), what a teacher is
shown of it (`teacher_prompts`), faults as data (`faults`, `journal`), and what it cost
(`ledger`).
May import: critics and what stands above it.
"""

from rollwright.rollout.actors import Act, Actor, Decision, EngineActor, RandomActor, TeacherActor
from rollwright.rollout.collector import Collector, GroupRequest
from rollwright.rollout.contexts import AppendOnly, Context, Windowed
from rollwright.rollout.episode import EpisodeRequest, Limits
from rollwright.rollout.faults import FaultLog, score_or_note
from rollwright.rollout.guides.actor_settings import ActorSettings
from rollwright.rollout.guides.mixed_actor import MixedActor, acted_by, actor_metrics
from rollwright.rollout.guides.open_guide import GuideScene, open_mixed, require_actor
from rollwright.rollout.guides.overseers import Overseer
from rollwright.rollout.guides.scripted_guides import Advice, Guide
from rollwright.rollout.journal import Journal
from rollwright.rollout.ledger import Ledger, StepClock, is_informative, met_again_frac, rollout_metrics
from rollwright.rollout.open_collector import context_factory, open_actor, open_collector, players_of
from rollwright.rollout.rank_spread import Players, SpreadCollector
from rollwright.rollout.rerendering import NewContext, require_same_prompts, rerender, shown_texts
from rollwright.rollout.restoring import prompt_digest
from rollwright.rollout.rollout_settings import RolloutSettings
from rollwright.rollout.rounds import JournalledActor, RoundsActor
from rollwright.rollout.run_ahead import Ahead, StaleCount, Start, set_aside
from rollwright.rollout.teacher_prompts import teacher_prompts, with_hint

__all__ = [
    "Act",
    "Actor",
    "ActorSettings",
    "Advice",
    "Ahead",
    "AppendOnly",
    "Collector",
    "Context",
    "Decision",
    "EngineActor",
    "EpisodeRequest",
    "FaultLog",
    "GroupRequest",
    "Guide",
    "GuideScene",
    "Journal",
    "JournalledActor",
    "Ledger",
    "Limits",
    "MixedActor",
    "NewContext",
    "Overseer",
    "Players",
    "RandomActor",
    "RolloutSettings",
    "RoundsActor",
    "SpreadCollector",
    "StaleCount",
    "Start",
    "StepClock",
    "TeacherActor",
    "Windowed",
    "acted_by",
    "actor_metrics",
    "context_factory",
    "is_informative",
    "met_again_frac",
    "open_actor",
    "open_collector",
    "open_mixed",
    "players_of",
    "prompt_digest",
    "require_actor",
    "require_same_prompts",
    "rerender",
    "rollout_metrics",
    "score_or_note",
    "set_aside",
    "shown_texts",
    "teacher_prompts",
    "with_hint",
]
