"""A world outside of a run's loop: opened with a policy's codec, an engine, a log of faults and a collector.

Whatever fails, and when, all that was opened by then is closed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rollwright.contracts import World, world_mark
from rollwright.generation import Engine, EngineSettings, open_engine
from rollwright.models import ModelSettings, open_codec, policy_folder
from rollwright.rollout import Actor, Collector, FaultLog, RolloutSettings, context_factory, open_collector
from rollwright.training.open_world import WorldSettings, close_world, open_world

if TYPE_CHECKING:
    from rollwright.models import ChatCodec
    from rollwright.rollout import NewContext

UNLIMITED = 1 << 30
"""Tokens of a context that is never full."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """A world and who may act in it. Made by `open_stage`, which closes all of it.

    settings: of the world. start: folder of the policy, whose tokenizer the codec is. engine: None until it is opened.
    closing: closes what is opened. unclaimed: closes the world, until a collector plays in it, which then does.
    """

    settings: WorldSettings
    world: World
    start: Path
    codec: ChatCodec
    run_folder: Path
    closing: ExitStack
    unclaimed: ExitStack
    engine: Engine | None = None

    def open_engine(self, settings: EngineSettings, *, seed: int = 0) -> Engine:
        """The engine of the policy.

        Raises:
            ConfigError, MissingDependency: as `generation.open_engine`.
        """
        self.engine = open_engine(settings, self.start, self.codec, seed=seed, run_folder=self.run_folder)
        # Callbacks run in reverse order: a collector is opened after the engine and closed before it.
        self.closing.callback(self.engine.close)
        return self.engine

    def open_collector(
        self, settings: RolloutSettings, actor: Actor, *, context_length: int = UNLIMITED, world: World | None = None
    ) -> Collector:
        """A collector that notes its faults, and the engine's, in the run folder.

        Args:
            world: what is played in instead of the stage's own, which it closes: one that shows more of it, say.
        """
        faults = FaultLog(self.run_folder / "faults.jsonl", max_frac=settings.max_fault_frac)
        faults.watch(self.engine)
        played_in = self.world if world is None else world
        collector = open_collector(
            settings,
            played_in,
            actor,
            self.codec,
            context_length=context_length,
            faults=faults,
            mark=world_mark(played_in, self.settings.options),
        )
        # From here on the collector closes the world, so the stage's own way to do it is dropped.
        self.unclaimed.pop_all()
        self.closing.callback(collector.close)
        return collector


@contextmanager
def open_stage(world: WorldSettings, policy: ModelSettings | Path, run_folder: Path) -> Iterator[Stage]:
    """The world with a policy's codec; engine and collector are opened on the stage.

    Args:
        policy: the model to start from, which may be made from the world's language, or the folder of one.
        run_folder: holds a model that is made, servers' logs and the faults.

    Raises:
        UnknownComponent, ConfigError, TemplateError: the world or the policy cannot be opened.
    """
    with ExitStack() as closing:
        unclaimed = closing.enter_context(ExitStack())
        opened = open_world(world)
        # At once, so that the world is closed whatever fails below.
        unclaimed.callback(close_world, opened)
        start = policy if isinstance(policy, Path) else policy_folder(policy, opened, run_folder)
        yield Stage(
            settings=world,
            world=opened,
            start=start,
            codec=open_codec(start, run_folder),
            run_folder=run_folder,
            closing=closing,
            unclaimed=unclaimed,
        )


def open_context(
    world: WorldSettings, model: ModelSettings, rollout: RolloutSettings, run_folder: Path
) -> tuple[Path, ChatCodec, NewContext]:
    """The folder of the starting policy, its codec, and what makes the context of one stored episode.

    Nothing is cut: what was cut is cut already, and an episode that no longer fits is left out where it is trained on.
    """
    with open_stage(world, model, run_folder) as stage:
        uncut = rollout.model_copy(update={"max_observation_tokens": 0})
        return stage.start, stage.codec, context_factory(uncut, stage.codec, stage.world, context_length=UNLIMITED)
