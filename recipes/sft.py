"""Supervised fine-tuning on demonstrations: cross-entropy on the action tokens, nothing else.

collect   episodes of the world's scripted teachers, or read stored trajectories
keep      the successful ones
train     TRL's SFTTrainer, labels on action tokens only
save      the policy as a plain folder

accelerate launch --config_file accelerate_configs/cpu.yaml recipes/sft.py recipes/web/miniwob_sft.yaml
"""

from __future__ import annotations

from rollwright.generation.launch_env import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

from pydantic import Field  # noqa: E402

from rollwright.assembly import open_codec, open_collector, open_world, policy_folder  # noqa: E402
from rollwright.config import Config, dump  # noqa: E402
from rollwright.demonstrations import demonstrate, imitable, sft_rows  # noqa: E402
from rollwright.env import World  # noqa: E402
from rollwright.ranks import go_on_alone  # noqa: E402
from rollwright.recipe_entry import recipe_config, run_recipe  # noqa: E402
from rollwright.rollout import FaultLog, TeacherActor  # noqa: E402
from rollwright.settings import ModelSettings, RolloutSettings, WorldSettings  # noqa: E402
from rollwright.sft import SftSettings, fit  # noqa: E402
from rollwright.store import TrajectoryStore  # noqa: E402
from rollwright.tracking import RunFolder  # noqa: E402
from rollwright.types import Trajectory  # noqa: E402


class DataSettings(Config):
    """What is imitated."""

    stores: list[str] = Field([], description="Folders of stored trajectories; empty = the world's teachers.")
    per_task: int = Field(10, ge=1, description="Demonstrations per training task, by the teachers.")
    only_success: bool = Field(True, description="Leave out episodes that failed.")


class SftRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/sft", description="Run folder; the policy lands in its `policy`.")
    seed: int = Field(0, ge=0, description="Fixes demonstrations, order and initialisation.")


class SftConfig(Config):
    """Everything an SFT run reads."""

    run: SftRun = SftRun()
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    rollout: RolloutSettings = RolloutSettings()
    data: DataSettings = DataSettings()
    sft: SftSettings = SftSettings()


def main(argv: list[str] | None = None) -> None:
    config = recipe_config(SftConfig, argv)
    if not go_on_alone("supervised fine-tuning"):
        return
    folder = RunFolder.create(config.run.folder, config_yaml=dump(config))
    world = open_world(config.world)
    start = policy_folder(config.model, world, folder.path)

    trajectories = read(config.data.stores) if config.data.stores else teach(config, world, start, folder)
    rows = sft_rows(
        imitable(trajectories, only_success=config.data.only_success),
        vocab_size=len(open_codec(start).tokenizer),
        max_length=config.sft.max_length,
    )
    fit(rows, start, folder.path, config.sft, seed=config.run.seed)
    print(f"policy saved to {folder.path / 'policy'}")


def teach(config: SftConfig, world: World, start: Path, folder: RunFolder) -> list[Trajectory]:
    """Let the teachers play, keep what they did in the run folder's store."""
    codec = open_codec(start)
    actor = TeacherActor(world, codec.encode_action)
    faults = FaultLog(folder.faults, max_frac=config.rollout.max_fault_frac)
    collector = open_collector(config.rollout, world, actor, codec, context_length=1 << 20, faults=faults)
    try:
        played = demonstrate(collector, world.tasks("train"), per_task=config.data.per_task, seed=config.run.seed)
    finally:
        collector.close()
    TrajectoryStore(folder.trajectories).append(played, tag="teacher")
    solved = sum(bool(t.success) for t in played)
    print(f"{solved} of {len(played)} demonstrations solved their task")
    return played


def read(stores: Sequence[str]) -> list[Trajectory]:
    """All trajectories of several stores."""
    return [t for store in stores for t in TrajectoryStore(Path(store)).iter_trajectories()]


if __name__ == "__main__":
    run_recipe(main)
