"""From a run's settings to the run: all of its parts opened in order, put back to its checkpoint, closed at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from rollwright.config import dump
from rollwright.contracts import (
    SPLITS,
    Reward,
    Task,
    World,
    tasks_of,
    world_mark,
)
from rollwright.curriculum import (
    Curriculum,
    EvolvingCurriculum,
    StartPool,
    has_teacher,
    open_curriculum,
    open_generator,
    open_starts,
    reflection_ids,
    taught_groups,
)
from rollwright.generation import Engine, open_engine
from rollwright.learner import CriticSettings, Learner, Ranks, TokenNotes, open_accelerator
from rollwright.models import ChatCodec, load_policy, open_codec, policy_folder, resolve_precision, with_lora
from rollwright.rollout import (
    Collector,
    FaultLog,
    GuideScene,
    Journal,
    Ledger,
    MixedActor,
    StepClock,
    TeacherActor,
    context_factory,
    open_actor,
    open_collector,
    open_mixed,
    players_of,
    require_actor,
)
from rollwright.run_io import Checkpoint, Checkpoints, RunFacts, RunFolder, RunLock, Tracker, held, hyperparameters
from rollwright.store import TrajectoryStore
from rollwright.training import inputs, resumption
from rollwright.training.collection import Collection
from rollwright.training.loop_config import LoopConfig
from rollwright.training.open_world import close_play, close_world, open_reward, open_world, require_judged
from rollwright.training.pipeline import open_collection

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(kw_only=True)
class RunParts:
    """What a run is made of, and where it stands."""

    config: LoopConfig
    folder: RunFolder
    tracker: Tracker
    notes: TokenNotes
    tasks: Mapping[str, Sequence[Task]]
    curriculum: Curriculum
    reward: Reward
    learner: Learner
    engine: Engine
    codec: ChatCodec
    collector: Collector
    store: TrajectoryStore
    checkpoints: Checkpoints
    journal: Journal
    collection: Collection
    clock: StepClock
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of what the settings name by a path (`inputs.fingerprints`)."""
    lock: RunLock | None = None
    """The run folder's, on the rank that writes there."""
    starts: StartPool | None = None
    next_step: int = 0
    parity_checks: int = 0
    parts: list[resumption.Part] = field(default_factory=list)
    resumed: Checkpoint | None = None
    start_values: Callable[[Sequence[tuple[int, ...]]], Sequence[Sequence[float]]] | None = None
    """By a recipe with a critic: [heads, prompts] chance of success at first prompts, for the band of new tasks."""
    started: float = field(default_factory=time.monotonic)

    def attach(self, part: resumption.Part) -> None:
        """Make a further critic or sampler of the recipe a part of checkpoints; in a resumed run it is put back now."""
        self.parts.append(part)
        if self.resumed is not None:
            part.load_state(self.resumed.path)


Run = TypeVar("Run", bound=RunParts)


@contextmanager
def open_run(
    kind: type[Run], config: LoopConfig, *, reference: bool = False, critic: CriticSettings | None = None
) -> Iterator[Run]:
    """Open everything a run needs, cheap and refusable things first; close all of it at the end.

    Args:
        kind: what the parts are handed over as.
        reference: keep a frozen copy of the starting policy (KL terms).
        critic: train a token critic beside the policy.
    """
    world = open_world(config.world)
    with ExitStack() as stack:
        with _closed_on_error(world):  # nothing is written before all that needs no weights is there
            tasks: dict[str, Sequence[Task]] = {split: tasks_of(world, split) for split in SPLITS}
            require_judged(tasks[config.evaluation.split], config.evaluation.split, world)
            require_actor(config.actor, world, tasks["train"])
            curriculum = open_curriculum(config.curriculum, tasks["train"], seed=config.run.seed, world=world)
            accelerator = join_ranks(config)
            ranks = Ranks(accelerator)
            scene = _Scene(
                world=world,
                tasks=tasks,
                curriculum=curriculum,
                reward=open_reward(config.reward),
                starts=open_starts(
                    config.starts,
                    world,
                    config.rollout,
                    seed=config.run.seed,
                    writes=ranks.first,
                    mark=world_mark(world, config.world.options),
                ),
            )
            with ranks.first_goes_ahead():
                # One lock for the whole run: the ranks share the folder, and the first one writes what they share.
                lock = stack.enter_context(held(config.run.folder)) if ranks.first else None
                folder = RunFolder.create(config.run.folder, config_yaml=dump(config))
                stack.enter_context(folder.kept_if_refused() if ranks.first else nullcontext())
                facts = RunFacts.recorded(folder.path, settings=dump(config), ranks=ranks.count, writes=ranks.first)
                folder = replace(folder, facts=stack.enter_context(facts))
        parts = _open_parts(kind, config, scene, folder, lock, accelerator, reference=reference, critic=critic)
        yield stack.enter_context(parts)


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """What a run is played in and judged by: all that needs neither weights nor a folder."""

    world: World
    tasks: Mapping[str, Sequence[Task]]
    curriculum: Curriculum
    reward: Reward
    starts: StartPool | None


@contextmanager
def _closed_on_error(world: World) -> Iterator[None]:
    try:
        yield
    # Ctrl-C too, as a world may have started processes.
    except BaseException:
        close_world(world)
        raise


@contextmanager
def _open_parts(
    kind: type[Run],
    config: LoopConfig,
    scene: _Scene,
    folder: RunFolder,
    lock: RunLock | None,
    accelerator: Accelerator,
    *,
    reference: bool,
    critic: CriticSettings | None,
) -> Iterator[Run]:
    """The same in a folder that is there, by processes that have joined."""
    ranks, world, curriculum = Ranks(accelerator), scene.world, scene.curriculum
    # `finally` closes what there is, however far the opening gets.
    collector = engine = None
    try:
        with ranks.first_goes_ahead():
            # The first rank makes a tiny model, and the others read it.
            model_folder = policy_folder(config.model, world, folder.path)
        # Whole files are read for this, which one rank can do for all.
        read = ranks.of_first(_fingerprints(config, model_folder) if ranks.first else {})
        codec = open_codec(model_folder, folder.path)
        reflection_ids(config.starts, codec)  # a text that cannot be forced is refused before weights are loaded
        learner = open_learner(config, model_folder, reference=reference, critic=critic, accelerator=accelerator)
        tracker = open_tracker(folder, config, learner)
        engine = _run_engine(config, model_folder, codec, ranks, folder)
        if isinstance(curriculum, EvolvingCurriculum):
            seed = config.run.seed
            curriculum.generator = open_generator(config.curriculum, world, engine, codec, folder.path, seed=seed)
        # Each rank records what it has sampled itself.
        journal = Journal(ranks.own(folder.path / "journal.jsonl"), run=resumption.run_name(config))
        collector = _run_collector(config, world, engine, journal, codec, ranks, folder)
        run = kind(
            config=config,
            folder=folder,
            tracker=tracker,
            notes=TokenNotes(folder.path, budget=config.run.token_log, ranks=learner.ranks),
            tasks=scene.tasks,
            curriculum=curriculum,
            reward=scene.reward,
            learner=learner,
            engine=engine,
            codec=codec,
            collector=collector,
            store=TrajectoryStore(folder.trajectories),
            checkpoints=_run_checkpoints(config, learner, folder),
            journal=journal,
            collection=open_collection(config, collector, curriculum, engine, scene.starts),
            clock=StepClock(Ledger(collector.occupancy, engine)),
            inputs=read,
            lock=lock,
            starts=scene.starts,
        )
        # Now that every part is there: each takes back its own state, and the engine gets the restored weights.
        resumption.resume(run)
        if isinstance(collector.actor, MixedActor):
            collector.actor.show_life(scene.tasks["train"])
        _begin_starts(run, codec)
        yield run
    finally:
        close_play(world, collector, engine)
        if collector is not None and isinstance(collector.actor, MixedActor):
            collector.actor.close()


def _fingerprints(config: LoopConfig, model_folder: Path) -> dict[str, str]:
    """Of what the settings name by a path; the folders through which servers get weights change all the time."""
    skip = (*resumption.FREE_KEYS, "engine.")
    return inputs.fingerprints(config.model_dump(mode="json"), model_folder, skip=skip)


def _run_engine(config: LoopConfig, model_folder: Path, codec: ChatCodec, ranks: Ranks, folder: RunFolder) -> Engine:
    return open_engine(
        config.engine,
        model_folder,
        codec,
        seed=config.run.seed,
        lora_rank=config.model.lora_rank,
        run_folder=folder.path,
        # Where one rank plays for all, the engines of the others are never asked for an action.
        plays=ranks.first or players_of(config.engine) == "each",
    )


def _run_collector(
    config: LoopConfig,
    world: World,
    engine: Engine,
    journal: Journal,
    codec: ChatCodec,
    ranks: Ranks,
    folder: RunFolder,
) -> Collector:
    faults = FaultLog(ranks.own(folder.faults), max_frac=config.rollout.max_fault_frac)
    faults.watch(engine)
    scene = GuideScene(
        world=world,
        rollout=config.rollout,
        codec=codec,
        engine=engine,
        policy=open_actor(config.rollout, engine, journal),
        journal=journal,
        dtype=config.engine.dtype,
        seed=config.run.seed,
    )
    return open_collector(
        config.rollout,
        world,
        open_mixed(config.actor, scene, context_factory),
        codec,
        # The engine knows it: the default of `engine.max_context` gives way to the model's positions.
        context_length=engine.context_length,
        faults=faults,
        ranks=ranks,
        players=players_of(config.engine),
        mark=world_mark(world, config.world.options),
    )


def _run_checkpoints(config: LoopConfig, learner: Learner, folder: RunFolder) -> Checkpoints:
    return Checkpoints(
        folder.checkpoints,
        keep=config.run.keep_checkpoints,
        is_main=learner.accelerator.is_main_process,
        wait=learner.accelerator.wait_for_everyone,
    )


def join_ranks(config: LoopConfig) -> Accelerator:
    """Join the processes that were started, before anything is written or loaded.

    Raises:
        ConfigError: they did not join.
    """
    return open_accelerator(
        timeout_s=config.run.rank_timeout_s, log_with=config.run.trackers, project_dir=config.run.folder
    )


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

    # The hidden layer of a critic's head is drawn from torch's global generator; adapters are given their seed.
    torch.manual_seed(config.run.seed)
    policy, _ = load_policy(model_folder, "float32")
    if config.model.lora_rank:
        words = config.model
        policy = with_lora(policy, rank=words.lora_rank, dropout=words.lora_dropout, seed=config.run.seed)
    settings = config.learner
    precision = resolve_precision(settings.precision)
    # With an adapter the reference is the same model with the adapter switched off, and needs no second copy.
    kind: Literal["copy", "adapter"] = "adapter" if config.model.lora_rank else "copy"
    return Learner(
        accelerator or join_ranks(config),
        policy,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        warmup_steps=settings.warmup_steps,
        # Log-probs are those of the distribution that was sampled from.
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
    # These two make up a name for a run unless they are given one.
    named = {kind: {"name": name} for kind in ("wandb", "trackio") if kind in config.run.trackers}
    accelerator.init_trackers("rollwright", config=hyperparameters(config), init_kwargs=named)
    return Tracker(folder, speaks=accelerator.is_main_process, also=accelerator.log)


def _begin_starts(run: RunParts, codec: ChatCodec) -> None:
    """Start states, where there are some: back from the checkpoint, or from a teacher at the run's beginning."""
    if run.starts is None:
        return
    settings, seed = run.config.starts, run.config.run.seed
    if settings.name == "guide_prefix":
        guide = TeacherActor(run.collector.world, codec.encode_action)
        run.starts.guided_by(partial(run.collector.collect_by, guide), knows=partial(has_teacher, run.collector.world))
    run.starts.reflect_by(reflection_ids(settings, codec))
    run.attach(run.starts)
    if settings.name == "snapshots" and settings.source == "teacher" and run.resumed is None:
        run.starts.learn(taught_groups(settings, run.collector, codec, run.tasks["train"], seed=seed))
