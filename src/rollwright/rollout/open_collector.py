"""Collector and actor of a run, from the section `rollout`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rollwright.contracts import ActionRule, ConfigError, World, WorldMark
from rollwright.generation import AbsentEngine, BatchEngine, Engine, EngineSettings, Sampling
from rollwright.learner import Ranks
from rollwright.models import ChatCodec
from rollwright.rollout.actors import Actor, EngineActor
from rollwright.rollout.collector import Collector
from rollwright.rollout.contexts import AppendOnly, Context, Windowed
from rollwright.rollout.episode import Limits
from rollwright.rollout.faults import FaultLog
from rollwright.rollout.journal import Journal
from rollwright.rollout.rank_spread import Players, SpreadCollector
from rollwright.rollout.rollout_settings import RolloutSettings
from rollwright.rollout.rounds import JournalledActor, RoundsActor


def context_factory(
    settings: RolloutSettings, codec: ChatCodec, world: World, context_length: int
) -> Callable[[], Context]:
    """What makes the context of one episode."""
    common: dict[str, Any] = {
        "codec": codec,
        "instructions": world.instructions,
        "context_length": context_length,
        # 0 in the settings means never, which a context calls None.
        "max_observation_tokens": settings.max_observation_tokens or None,
    }
    if settings.context == "append":
        return AppendOnly(**common)
    return Windowed(**common, history=settings.history, rule=ActionRule(settings.action))


def open_collector(
    settings: RolloutSettings,
    world: World,
    actor: Actor,
    codec: ChatCodec,
    *,
    context_length: int,
    faults: FaultLog,
    ranks: Ranks | None = None,
    players: Players = "each",
    mark: WorldMark | None = None,
) -> Collector:
    """The collector of a run, for the policy (`EngineActor`) or a teacher.

    Args:
        ranks: with several, each plays its share, or the first plays for all (`players`).
        mark: which world it is (`world_mark`), written into every trajectory; None leaves it open.
    """
    limits = Limits(
        max_turns=settings.max_turns or world.max_turns,
        episode_s=settings.episode_s,
        env_call_s=settings.env_call_s,
        engine_call_s=settings.engine_call_s,
    )
    sampling = Sampling(
        temperature=settings.temperature,
        max_tokens=settings.max_action_tokens,
        stop_token_ids=tuple(codec.stop_token_ids),
    )
    make: Callable[..., Collector] = Collector
    if ranks is not None and ranks.count > 1:
        make = partial(SpreadCollector, ranks=ranks, players=players)
    return make(
        world,
        actor,
        context_factory(settings, codec, world, context_length),
        sampling=sampling,
        limits=limits,
        faults=faults,
        parallel_episodes=settings.parallel_episodes,
        retries=settings.retries,
        refills=settings.refills,
        rule=ActionRule(settings.action),
        mark=mark,
    )


def open_actor(settings: RolloutSettings, engine: Engine, journal: Journal) -> Actor:
    """The policy behind the engine, asked as `rollout.schedule` says.

    Raises:
        ConfigError: rounds are asked of an engine that cannot take whole batches.
    """
    if settings.max_staleness:
        return EngineActor(engine)  # a resumed run plays anew what ran ahead: a journal would not fit its weights
    # A rank whose engine is absent plays nothing, so its schedule does not matter.
    if settings.schedule == "continuous" or isinstance(engine, AbsentEngine):
        return JournalledActor(engine, journal)
    if not isinstance(engine, BatchEngine):
        raise ConfigError(
            f"rollout.schedule=rounds needs an engine that takes whole batches, and {engine.name!r} does not: use "
            "engine=vllm or engine=transformers, or rollout.schedule=continuous"
        )
    import torch

    # Some backward passes add in parallel, in whatever order the threads come.
    # Only a warning: some operations have no deterministic form, and a run may need them.
    torch.use_deterministic_algorithms(True, warn_only=True)
    return RoundsActor(engine, engine_call_s=settings.engine_call_s, journal=journal)


def players_of(settings: EngineSettings) -> Players:
    """Who plays where several ranks learn: servers take the requests of one rank as well as those of many."""
    return "first" if settings.name == "vllm_server" else "each"
