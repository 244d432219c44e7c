"""Supervised fine-tuning on demonstrations: cross-entropy on the action tokens, nothing else.

collect   episodes of the world's scripted teachers, or read stored trajectories
keep      the successful ones
train     TRL's SFTTrainer, labels on action tokens only
save      the policy as a plain folder

accelerate launch --config_file accelerate_configs/cpu.yaml recipes/sft.py recipes/web/miniwob_sft.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from rollwright.config import Config, Unread, dump
from rollwright.contracts import RunFolderError, Trajectory
from rollwright.learner import SftSettings, fit, go_on_alone, require_trl
from rollwright.methods import DEMONSTRATION, Corrections, corrections, demonstrate, hardest, imitable, sft_rows
from rollwright.models import ModelSettings, rows_of, unknown_ids
from rollwright.rollout import RolloutSettings, TeacherActor
from rollwright.run_io import RunFolder
from rollwright.store import TrajectoryStore, unpack_text
from rollwright.training import (
    NO_GROUPS,
    Stage,
    WorldSettings,
    announce,
    announce_next,
    open_stage,
    recipe_config,
    run_recipe,
)

log = logging.getLogger(__name__)


class DataSettings(Config):
    """What is imitated."""

    stores: list[str] = Field(
        [], description="Folders of stored trajectories; empty = demonstrations by the world's teachers."
    )
    per_task: int = Field(10, ge=1, description="Number of the teachers' demonstrations per training task.")
    only_success: bool = Field(True, description="Leave out episodes that failed.")
    corrections: Corrections = Field(
        "all", description="Worlds of two attempts: imitate only second attempts, after wrong or after all first ones."
    )
    hardest_frac: float = Field(
        1.0, gt=0, le=1, description="Share of the tasks that are imitated, those solved least often first; 1 = all."
    )


class SftRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/sft", description="Run folder; the policy is written to its `policy` folder.")
    seed: int = Field(0, ge=0, description="Seed of the demonstrations, the order and the initialisation.")


class SftConfig(Config):
    """Everything an SFT run reads."""

    run: SftRun = SftRun()
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    rollout: RolloutSettings = RolloutSettings()
    data: DataSettings = DataSettings()
    sft: SftSettings = SftSettings()

    unread: ClassVar[Unread] = {**NO_GROUPS, "rollout.temperature": "teachers draw nothing"}


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(SftConfig, argv)
    # The other processes return at once, which their launcher takes as success.
    if not go_on_alone("supervised fine-tuning"):
        return
    require_trl("supervised fine-tuning")
    with RunFolder.opened(config.run.folder, config_yaml=dump(config)) as folder:
        announce(config)
        train(config, folder)


def train(config: SftConfig, folder: RunFolder) -> None:
    """Collect or read, keep, train, save."""
    with open_stage(config.world, config.model, folder.path) as stage:
        start = stage.start
        trajectories = read(config.data.stores) if config.data.stores else teach(config, stage, folder)
    # The world is closed by now: training needs none.
    rows = sft_rows(
        imitable(
            corrections(hardest(trajectories, config.data.hardest_frac), config.data.corrections),
            only_success=config.data.only_success,
        ),
        # Rows of the embedding: an id beyond them comes from another tokenizer.
        vocab_size=rows_of(start),
        unknown_ids=unknown_ids(start),
        max_length=config.sft.max_length,
    )
    fit(rows, start, folder.path, config.sft, seed=config.run.seed, facts=folder.facts)
    print(f"policy saved to {folder.path / 'policy'}", flush=True)
    announce_next(folder.path)


def teach(config: SftConfig, stage: Stage, folder: RunFolder) -> list[Trajectory]:
    """Let the teachers play, keep what they did in the run folder's store, in place of an earlier start's.

    Raises:
        RunFolderError: the store holds episodes of another kind.
    """
    store = own_store(folder)
    collector = stage.open_collector(config.rollout, TeacherActor(stage.world, stage.codec.encode_action))
    tasks = stage.world.tasks("train")
    played = demonstrate(collector, tasks, per_task=config.data.per_task, seed=config.run.seed)
    store.replace(played, tag="teacher")
    folder.facts.played(played)
    # An episode without a verdict is not counted as solved.
    solved = sum(bool(t.success) for t in played)
    print(f"{solved} of {len(played)} demonstrations solved their task")
    return played


def own_store(folder: RunFolder) -> TrajectoryStore:
    """The run folder's store, which holds demonstrations alone: those of an earlier start are going to be replaced.

    Raises:
        RunFolderError: it holds others, a collection say.
    """
    store = TrajectoryStore(folder.trajectories)
    # Evaluations may lie in the same store, and nobody trains on them.
    trained_on = [row for _, row in store.headers() if not unpack_text(row["tag"]).startswith("eval_")]
    # Demonstrations are known by how their ids begin.
    foreign = [row["id"] for row in trained_on if not row["id"].startswith(DEMONSTRATION)]
    if foreign:
        raise RunFolderError(
            f"{folder.trajectories} holds {len(foreign)} episodes that are not demonstrations of an SFT run (such as "
            f"{foreign[0]!r}): name another run.folder; to learn from them, name them in data.stores"
        )
    if trained_on:
        log.warning(
            "%d demonstrations of an earlier start are set aside: %s", len(trained_on), store.folder / "superseded"
        )
    return store


def read(stores: Sequence[str]) -> list[Trajectory]:
    """All trajectories of several stores."""
    return [t for store in stores for t in TrajectoryStore(store, mode="read").iter_trajectories()]


if __name__ == "__main__":
    run_recipe(main)
