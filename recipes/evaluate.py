"""Judge a policy on held-out start states: success with intervals, pass@k, faults apart.

    play      every held-out task from the same start states for every policy, greedy or sampled
    record    one row per episode in eval/<name>.json, so that any two evaluations can be paired
    print     a table; `rollwright compare A B` gives the paired difference

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/evaluate.py recipes/web/miniwob_eval.yaml \
        model.path=runs/sft/policy name=sft
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from typing import ClassVar

from pydantic import Field

from rollwright.config import Config, Unread, dump
from rollwright.contracts import tasks_of
from rollwright.evaluation import EvaluationSettings, evaluate_policy, format_table, save_evaluation
from rollwright.generation import EngineSettings
from rollwright.learner import go_on_alone
from rollwright.models import ModelSettings
from rollwright.rollout import EngineActor, RolloutSettings
from rollwright.run_io import RunFolder
from rollwright.store import TrajectoryStore
from rollwright.training import (
    NO_GROUPS,
    ONE_EVALUATION,
    WorldSettings,
    announce,
    announce_evaluation,
    announce_next,
    open_stage,
    recipe_config,
    require_judged,
    run_recipe,
)

log = logging.getLogger(__name__)


class EvaluateConfig(Config):
    """Everything an evaluation reads."""

    name: str = Field(
        "evaluation",
        pattern=r"^[^/\\.][^/\\]*$",
        description="Name of the result: eval/<name>.json in the folder; a file name without a slash.",
    )
    folder: str = Field("runs/evaluate", description="Folder for the result.")
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    engine: EngineSettings = EngineSettings()
    rollout: RolloutSettings = RolloutSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    unread: ClassVar[Unread] = NO_GROUPS | ONE_EVALUATION


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(EvaluateConfig, argv)
    # The other processes return at once, which their launcher takes as success.
    if not go_on_alone("evaluation"):
        return
    with RunFolder.opened(config.folder, config_yaml=dump(config)) as folder:
        play_and_print(config, folder)


def play_and_print(config: EvaluateConfig, folder: RunFolder) -> None:
    """Play, write the record, keep the episodes in place of those of an earlier start, print the table."""
    with open_stage(config.world, config.model, folder.path) as stage:
        tasks = tasks_of(stage.world, config.evaluation.split)
        # Before the engine loads any weight.
        require_judged(tasks, config.evaluation.split, stage.world)
        announce(config, tasks={config.evaluation.split: tasks})
        engine = stage.open_engine(config.engine)
        collector = stage.open_collector(config.rollout, EngineActor(engine), context_length=engine.context_length)
        result, played = evaluate_policy(collector, tasks, config.evaluation, name=config.name)
    folder.facts.played(played)
    folder.facts.set_clocks(collector.occupancy.seconds())
    if (folder.evaluations / f"{config.name}.json").exists():
        log.warning("the evaluation %r of an earlier start is replaced: another `name` keeps both", config.name)
    path = save_evaluation(result, folder.path)
    TrajectoryStore(folder.trajectories).replace(played, tag=f"eval_{config.name}")
    print(format_table(result))
    announce_evaluation(result, config.evaluation)
    print(f"written to {path}")
    announce_next(folder.path, f"rollwright compare ANOTHER.json {path}")


if __name__ == "__main__":
    run_recipe(main)
