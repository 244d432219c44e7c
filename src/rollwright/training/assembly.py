"""From settings to parts: each `open_*` builds one of them, so that recipes and commands build them the same way."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rollwright.config import load
from rollwright.contracts import ActionRule, ConfigError, Reward, SmallLanguage, Task, Trajectory, World
from rollwright.evaluation import EvaluationSettings
from rollwright.generation import AbsentEngine, BatchEngine, Engine, EngineSettings, Sampling
from rollwright.models import ModelSettings, resolve_precision
from rollwright.rollout import (
    Actor,
    AppendOnly,
    Collector,
    Context,
    EngineActor,
    FaultLog,
    Journal,
    JournalledActor,
    Limits,
    Players,
    RolloutSettings,
    RoundsActor,
    SpreadCollector,
    Windowed,
)
from rollwright.run_io import Progress, RunFolder, Tracker, hyperparameters
from rollwright.training.loop_config import LoopConfig
from rollwright.training.world_settings import RewardSettings, WorldSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

    from rollwright.evaluation import Evaluation
    from rollwright.generation.server import ServerSetup
    from rollwright.learner import CriticSettings, Learner, Ranks
    from rollwright.models import ChatCodec


log = logging.getLogger(__name__)
TINY = "tiny"


def open_world(settings: WorldSettings) -> World:
    """Build the world by name.

    Raises:
        UnknownComponent: no such module.
        ConfigError: the world's `build` does not take these options.
        MissingDependency: `world.placement=ray` without Ray.
    """
    world: World = _built(load("envs", settings.name), settings.options, f"world.options of {settings.name}")
    if settings.placement == "local":
        return world
    from rollwright.run_io import RayWorld

    return RayWorld(world, settings.name, settings.options, address=settings.ray_address, cpus=settings.ray_cpus)


def close_world(world: World) -> None:
    """Close a world that no collector took over."""
    ended = world.close()
    if inspect.isawaitable(ended):

        async def wait() -> None:
            await ended

        asyncio.run(wait())


def close_play(world: World, collector: Collector | None, engine: Engine | None) -> None:
    """Close what was opened of the three; a collector closes the world that it plays in."""
    if collector is not None:
        collector.close()
    else:
        close_world(world)
    if engine is not None:
        engine.close()


def open_reward(settings: RewardSettings) -> Reward:
    """Build the reward by name."""
    return _built(load("rewards", settings.name), settings.options, f"reward.options of {settings.name}")


def _built(build: Callable[..., Any], options: dict[str, Any], where: str) -> Any:
    known = inspect.signature(build).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    strangers = [] if takes_any else sorted(set(options) - set(known))
    if strangers:
        raise ConfigError(f"{where}: unknown {', '.join(strangers)}; it takes {', '.join(known) or 'no options'}")
    try:
        return build(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def policy_folder(settings: ModelSettings, world: World, run_folder: Path) -> Path:
    """The folder of the starting policy; `tiny` is made once per run, from the world's own language.

    Raises:
        ConfigError: `tiny` is asked of a world that does not list its language.
    """
    from rollwright.models import make_tiny_model, resolve_model

    if settings.path != TINY:
        return resolve_model(settings.path)
    folder = run_folder / "tiny_model"
    if not isinstance(world, SmallLanguage):
        raise ConfigError(f"model.path=tiny needs a world with `texts()`; {world.name} has none: name a model folder")
    if not (folder / "config.json").exists():
        beside = folder.with_name(f".{folder.name}.writing")  # a kill must not leave half a model behind
        make_tiny_model(
            beside,
            texts=list(world.texts()),
            hidden=settings.tiny_hidden,
            layers=settings.tiny_layers,
            context_length=settings.tiny_context,
            seed=settings.tiny_seed,
        )
        beside.rename(folder)
    return folder


def open_codec(model_folder: Path, run_folder: Path | None = None) -> ChatCodec:
    """Tokenizer and chat template of a model folder.

    Args:
        run_folder: keeps the day that a template with a date is told, so that a run resumed later gives the same
            prompts; None for a look that is no part of a run.

    Raises:
        TemplateError: the folder lacks one of them. RunFolderError: the day that was kept cannot be read.
    """
    from rollwright.models import ChatCodec, day_of_run, keep_day, load_tokenizer

    codec = ChatCodec(load_tokenizer(model_folder), today=day_of_run(run_folder) if run_folder else None)
    if run_folder and codec.tells_day and keep_day(run_folder, codec.tells_day) != codec.tells_day:
        return open_codec(model_folder, run_folder)  # another process of the run was first, a moment before midnight
    return codec


def context_factory(
    settings: RolloutSettings, codec: ChatCodec, world: World, context_length: int
) -> Callable[[], Context]:
    """What makes the context of one episode."""
    common: dict[str, Any] = {
        "codec": codec,
        "instructions": world.instructions,
        "context_length": context_length,
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
) -> Collector:
    """The collector of a run, for the policy (`EngineActor`) or a teacher.

    Args:
        ranks: with several, each plays its share, or the first plays for all (`players`).
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
    )


def open_actor(settings: RolloutSettings, engine: Engine, journal: Journal) -> Actor:
    """The policy behind the engine, asked as `rollout.schedule` says.

    Raises:
        ConfigError: rounds are asked of an engine that cannot take whole batches.
    """
    if settings.max_staleness:
        return EngineActor(engine)  # a resumed run plays anew what ran ahead: a journal would not fit its weights
    if settings.schedule == "continuous" or isinstance(engine, AbsentEngine):
        return JournalledActor(engine, journal)
    if not isinstance(engine, BatchEngine):
        raise ConfigError(
            f"rollout.schedule=rounds needs an engine that takes whole batches, and {engine.name!r} does not: use "
            "engine=vllm or engine=transformers, or rollout.schedule=continuous"
        )
    import torch

    # Some backward passes add in parallel, in whatever order the threads come.
    torch.use_deterministic_algorithms(True, warn_only=True)
    return RoundsActor(engine, engine_call_s=settings.engine_call_s, journal=journal)


def judge(
    collector: Collector, tasks: Sequence[Task], settings: EvaluationSettings, *, name: str
) -> tuple[Evaluation, list[Trajectory]]:
    """Evaluate the collector's policy on held-out start states, with a progress bar."""
    from rollwright.evaluation import evaluate

    total = collector.played_here(len(tasks) * settings.seeds_per_task * settings.attempts)
    with Progress(f"evaluation {name}: episodes", total=total) as bar:
        return evaluate(
            lambda requests: collector.play(requests, progress=lambda _: bar.advance()),
            tasks,
            name=name,
            sampling=replace(collector.sampling, temperature=settings.temperature),
            split=settings.split,
            seeds_per_task=settings.seeds_per_task,
            attempts=settings.attempts,
            max_turns=settings.max_turns or None,
        )


def open_engine(
    settings: EngineSettings,
    model_folder: Path,
    codec: ChatCodec,
    *,
    seed: int = 0,
    lora_rank: int = 0,
    run_folder: Path | None = None,
    plays: bool = True,
) -> Engine:
    """The generation engine; `auto` takes vLLM where it is importable and says which it took.

    Args:
        plays: false on a rank for which the first one plays; it then only takes part in weight updates.
        lora_rank: of the policy, for engine.lora_sync=adapter.
        run_folder: servers write their logs below it.
    """
    from rollwright.generation import make_engine
    from rollwright.models import context_within

    written_down = "max_context" in settings.model_fields_set  # what nobody wrote down gives way to the model
    context_length = settings.max_context if written_down else context_within(model_folder, settings.max_context)
    if not plays:
        swaps = settings.name == "vllm_server" and settings.lora_sync == "adapter"
        return AbsentEngine(context_length=context_length, takes_adapters=swaps)
    return make_engine(
        settings.name,
        model_path=model_folder,
        dtype=resolve_precision(settings.dtype),
        context_length=context_length,
        stop_token_ids=tuple(codec.stop_token_ids),
        max_batch=settings.max_batch,
        seed=seed,
        servers=server_setup(settings, lora_rank, run_folder) if settings.name == "vllm_server" else None,
        options=settings.options,
    )


def server_setup(settings: EngineSettings, lora_rank: int, run_folder: Path | None) -> ServerSetup:
    """The servers that the settings describe.

    Raises:
        ConfigError: an adapter is to be swapped, but the policy has none.
    """
    from rollwright.generation.server import ServerSetup

    swaps = settings.lora_sync == "adapter"
    if swaps and not lora_rank:
        raise ConfigError("engine.lora_sync=adapter swaps LoRA adapters, but model.lora_rank is 0: the policy has none")
    same = "replicas served_name transport transfer_folder update_mode request_s kv_cache_gib gpu_memory_frac"
    return ServerSetup(
        urls=tuple(settings.urls),
        devices=tuple(settings.devices),
        lora_rank=lora_rank if swaps else 0,
        start_s=settings.server_start_s,
        stall_s=settings.server_stall_s,
        restarts=settings.server_restarts,
        log_folder=run_folder / "servers" if run_folder else None,
        **{name: getattr(settings, name) for name in same.split()},
    )


def join_ranks(config: LoopConfig) -> Accelerator:
    """Join the processes that were started, before anything is written or loaded.

    Raises:
        ConfigError: they did not join.
    """
    from rollwright.learner import open_accelerator

    return open_accelerator(
        timeout_s=config.run.rank_timeout_s, log_with=config.run.trackers, project_dir=config.run.folder
    )


def players_of(settings: EngineSettings) -> Players:
    """Who plays where several ranks learn: servers take the requests of one rank as well as those of many."""
    return "first" if settings.name == "vllm_server" else "each"


def open_learner(
    config: LoopConfig,
    model_folder: Path,
    *,
    reference: bool,
    critic: CriticSettings | None,
    accelerator: Accelerator | None = None,
) -> Learner:
    """Policy, optimiser and accelerator; weights are kept in float32, computed with in the chosen precision."""
    import torch

    from rollwright.learner import Learner
    from rollwright.models import load_policy, with_lora

    torch.manual_seed(config.run.seed)
    policy, _ = load_policy(model_folder, "float32")
    if config.model.lora_rank:
        words = config.model
        policy = with_lora(policy, rank=words.lora_rank, dropout=words.lora_dropout, seed=config.run.seed)
    settings = config.learner
    precision = resolve_precision(settings.precision)
    kind: Literal["copy", "adapter"] = "adapter" if config.model.lora_rank else "copy"
    return Learner(
        accelerator or join_ranks(config),
        policy,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        warmup_steps=settings.warmup_steps,
        temperature=config.rollout.temperature,
        token_budget=settings.token_budget,
        layout=settings.layout,
        autocast_dtype=torch.bfloat16 if precision == "bfloat16" else None,
        reference=kind if reference else None,
        critic=critic,
        dropout=settings.dropout,
        seed=config.run.seed,
    )


def open_tracker(folder: RunFolder, config: LoopConfig, learner: Learner) -> Tracker:
    """metrics.jsonl first; accelerate's trackers (tensorboard, trackio, wandb) where the settings name them."""
    accelerator = learner.accelerator
    if not config.run.trackers:
        return Tracker(folder, speaks=accelerator.is_main_process)
    name = folder.path.resolve().name
    named = {kind: {"name": name} for kind in ("wandb", "trackio") if kind in config.run.trackers}
    accelerator.init_trackers("rollwright", config=hyperparameters(config), init_kwargs=named)
    return Tracker(folder, speaks=accelerator.is_main_process, also=accelerator.log)
