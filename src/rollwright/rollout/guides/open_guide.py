"""From the section `actor` to who acts beside the policy: cheap refusals first, then the guide with its weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rollwright.config import build_part
from rollwright.contracts import ActionRule, ConfigError, Task, Taught, World
from rollwright.generation import ChatClient, Engine, Sampling, make_engine
from rollwright.models import ChatCodec, context_within, open_codec, resolve_model, resolve_precision
from rollwright.rollout.actors import Actor
from rollwright.rollout.contexts import Context
from rollwright.rollout.guides.actor_settings import ActorSettings
from rollwright.rollout.guides.engine_guides import EndpointGuide, EngineGuide, asked_alone, asked_as_it_is, kept_in
from rollwright.rollout.guides.mixed_actor import MixedActor
from rollwright.rollout.guides.overseers import require_overseer
from rollwright.rollout.guides.scripted_guides import Guide, StoreGuide, TeacherGuide
from rollwright.rollout.journal import Journal
from rollwright.rollout.rollout_settings import RolloutSettings


class NewContexts(Protocol):
    """Makes what makes contexts: `open_collector.context_factory`."""

    def __call__(
        self, settings: RolloutSettings, codec: ChatCodec, world: World, context_length: int
    ) -> Callable[[], Context]:
        """For episodes of this world, by this codec."""
        ...


@dataclass(frozen=True, kw_only=True)
class GuideScene:
    """What a guide needs to know of the run that it acts in."""

    world: World
    rollout: RolloutSettings
    codec: ChatCodec
    engine: Engine
    policy: Actor
    journal: Journal
    dtype: Any = "auto"
    seed: int = 0


def require_actor(settings: ActorSettings, world: World, tasks: Sequence[Task]) -> None:
    """What can be refused before any weight is loaded.

    Raises:
        ConfigError: a guide or an overseer that this world cannot have, or a key that is not set.
    """
    build_part(settings, "overseer", world=world)
    if settings.guide == "teacher":
        if not isinstance(world, Taught) or all(world.teacher(task) is None for task in tasks):
            raise ConfigError(
                f"`actor.guide=teacher`: {world.name} has no teacher for any of the {len(tasks)} training tasks. Use "
                "another guide (store, model, endpoint, hinted), or give the world `teacher(task)`"
            )
    elif settings.guide == "endpoint":
        _client(settings)


def open_mixed(settings: ActorSettings, scene: GuideScene, new_contexts: NewContexts) -> Actor:
    """The policy with the guide and the overseer that the settings name; the policy itself where they name none."""
    if not settings.active:
        return scene.policy
    overseer = require_overseer(build_part(settings, "overseer", world=scene.world))
    return MixedActor(
        scene.policy,
        guide=_opened(settings, scene, new_contexts),
        overseer=overseer,
        codec=scene.codec,
        rule=ActionRule(scene.rollout.action),
        mix=settings.mix,
        prefix_turns=settings.prefix_turns,
    )


def _opened(settings: ActorSettings, scene: GuideScene, new_contexts: NewContexts) -> Guide | None:
    encode = scene.codec.encode_action
    if settings.guide == "teacher":
        return TeacherGuide(scene.world, encode)
    if settings.guide == "store":
        return StoreGuide(settings.store, encode)
    # What ran ahead is played anew after a kill, so there a journal would not fit (`open_collector.open_actor`).
    keep = kept_in(None if scene.rollout.max_staleness else scene.journal, scene.engine)
    if settings.guide == "endpoint":
        said = scene.world.instructions
        return EndpointGuide(_client(settings), said, encode, keep, temperature=settings.temperature)
    if settings.guide == "model":
        return _model(settings, scene, new_contexts)
    return _hinted(settings, scene, new_contexts) if settings.guide == "hinted" else None


def _model(settings: ActorSettings, scene: GuideScene, new_contexts: NewContexts) -> EngineGuide:
    """Another model in this process, with weights of its own."""
    folder = resolve_model(settings.model)
    codec = open_codec(folder)
    length = context_within(folder, scene.engine.context_length)
    engine = make_engine(
        "transformers",
        model_path=folder,
        dtype=resolve_precision(scene.dtype),
        context_length=length,
        stop_token_ids=tuple(codec.stop_token_ids),
        seed=scene.seed,
    )
    journal = None if scene.rollout.max_staleness else scene.journal
    return EngineGuide(
        f"model:{settings.model}",
        new_contexts(scene.rollout, codec, scene.world, length),
        asked_alone(engine),
        kept_in(journal, scene.engine),
        codec=codec,
        own=scene.codec,
        sampling=_sampling(settings, codec),
        engine=engine,
    )


def _hinted(settings: ActorSettings, scene: GuideScene, new_contexts: NewContexts) -> EngineGuide:
    """The policy with a hint: the same engine, asked as the policy is, behind another prompt."""
    in_system = settings.hint_place == "system"
    world = Hinted(scene.world, settings.hint) if in_system else scene.world
    task = Task(id="hint", split="train")
    return EngineGuide(
        "hinted",
        new_contexts(scene.rollout, scene.codec, world, scene.engine.context_length),
        scene.policy.begin(task),
        asked_as_it_is,
        codec=scene.codec,
        own=scene.codec,
        sampling=_sampling(settings, scene.codec),
        hint="" if in_system else settings.hint,
    )


class Hinted:
    """A world as a hinted policy is told of it: the hint ends its instructions."""

    def __init__(self, world: World, hint: str) -> None:
        self._world = world
        self.instructions = f"{world.instructions}\n{hint}".strip()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


def _sampling(settings: ActorSettings, codec: ChatCodec) -> Sampling:
    return Sampling(temperature=settings.temperature, top_p=settings.top_p, stop_token_ids=tuple(codec.stop_token_ids))


def _client(settings: ActorSettings) -> ChatClient:
    """Raises ConfigError for an address that cannot be used, or a key that is not there."""
    key = os.environ.get(settings.key_variable, "") if settings.key_variable else ""
    if settings.key_variable and not key:
        raise ConfigError(
            f"`actor.key_variable={settings.key_variable}`: no such environment variable is set. Set it to the "
            "endpoint's key, or leave the setting empty where none is needed"
        )
    return ChatClient(url=settings.url, model=settings.model, key=key)
