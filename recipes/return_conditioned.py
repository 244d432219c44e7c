"""Return-conditioned imitation: learn what was done for which return, then ask for a good one.

    read      stored episodes of the train split, good and bad ones
    show      each turn the level of its own return-to-go, one line under the observation, through the context code
    train     cross-entropy on the actions, by TRL's SFTTrainer
    play      held-out tasks with a wanted return that shrinks by every reward, once for each of `algorithm.targets`

There is no Bellman backup: it cannot join halves of two episodes, and where chance decides it mistakes luck for skill.
Sources: arXiv:2106.01345, arXiv:2310.19308; docs/methods/return_conditioned.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/return_conditioned.py \
        recipes/text/maze_return.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Unread, dump
from rollwright.contracts import DataError, Trajectory
from rollwright.evaluation import Evaluation, EvaluationSettings, evaluate_policy, format_table, save_evaluation
from rollwright.generation import Engine, EngineSettings, open_engine
from rollwright.learner import SftSettings, fit, go_on_alone, require_trl
from rollwright.methods import ReturnLevels, ReturnTargets, conditioned, imitable, sft_rows
from rollwright.models import ModelSettings, open_codec, rows_of, unknown_ids
from rollwright.rollout import EngineActor, RolloutSettings
from rollwright.run_io import RunFolder
from rollwright.store import TrajectoryStore
from rollwright.store.replay import ReplaySettings
from rollwright.training import (
    NO_GROUPS,
    ONE_EVALUATION,
    WorldSettings,
    announce,
    open_context,
    open_stage,
    recipe_config,
    run_recipe,
)


class AlgorithmSettings(Config):
    """What the policy is told, and what is asked of it."""

    levels: int = Field(8, ge=2, description="Number of return-to-go levels, each equally frequent in the data.")
    line: str = Field(
        "Wanted return: level {level} of {levels}.", description="How the target return is shown to the policy."
    )
    targets: list[float] = Field([], description="Target returns; empty = the best return in the stores.")
    cut_episodes: Literal["keep", "leave_out"] = Field(
        "keep", description="leave_out: drop episodes that ended at a limit, since their full return is unknown."
    )


class ReturnRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/return", description="Run folder; the policy is written to its `policy` folder.")
    seed: int = Field(0, ge=0, description="Seed of the order and the initialisation.")


class ReturnConfig(Config):
    """Everything a return-conditioned run reads."""

    run: ReturnRun = ReturnRun()
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    replay: ReplaySettings = ReplaySettings()
    rollout: RolloutSettings = RolloutSettings()
    engine: EngineSettings = EngineSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    sft: SftSettings = SftSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    unread: ClassVar[Unread] = NO_GROUPS | ONE_EVALUATION


def main(argv: list[str] | None = None) -> None:
    """Imitate, then play for each target."""
    config = recipe_config(ReturnConfig, argv)
    if not go_on_alone("return-conditioned imitation"):
        return
    require_trl("return-conditioned imitation")
    trajectories = read_imitable(config)
    levels = ReturnLevels.of(
        # Without a discount, as a wanted return shrinks by just the rewards that arrive.
        [to_go for t in trajectories for to_go in t.returns_to_go(1.0)],
        count=config.algorithm.levels,
        line=config.algorithm.line,
    )
    with RunFolder.opened(config.run.folder, config_yaml=dump(config)) as folder:
        announce(config)
        learn_and_play(config, trajectories, levels, folder)


def learn_and_play(
    config: ReturnConfig, trajectories: list[Trajectory], levels: ReturnLevels, folder: RunFolder
) -> None:
    """Train, then ask for each target and print what came of it."""
    policy = train_on_levels(config, trajectories, levels, folder)
    best = max(t.total_reward for t in trajectories)
    engine = open_engine(
        config.engine, policy, open_codec(policy, folder.path), seed=config.run.seed, run_folder=folder.path
    )
    try:
        # One engine for all of them: the weights are the same, and only the line in the prompts differs.
        for target in config.algorithm.targets or [best]:
            print(format_table(play_for_target(config, levels, target, engine, policy, folder)))
    finally:
        engine.close()


def read_imitable(config: ReturnConfig) -> list[Trajectory]:
    """The episodes that may be learned from.

    Raises:
        DataError: no store is named, or nothing is left.
    """
    if not config.replay.stores:
        raise DataError("return-conditioned imitation learns from stored trajectories: name some in replay.stores")
    stored = [t for s in config.replay.stores for t in TrajectoryStore(s, mode="read").iter_trajectories()]
    # Bad episodes belong to the data: they show what a low return looks like.
    kept = imitable(stored, only_success=False)
    if config.algorithm.cut_episodes == "leave_out":
        kept = [t for t in kept if not t.stop_reason.is_truncation]
    if not kept:
        raise DataError(f"all {len(stored)} episodes were cut by a limit: set algorithm.cut_episodes=keep")
    return kept


def train_on_levels(
    config: ReturnConfig, trajectories: list[Trajectory], levels: ReturnLevels, folder: RunFolder
) -> Path:
    """Imitate every turn under its own return-to-go; the levels are written beside the policy."""
    start, _, new_context = open_context(config.world, config.model, config.rollout, folder.path)
    shown = [conditioned(trajectory, new_context, levels) for trajectory in trajectories]
    rows = sft_rows(shown, vocab_size=rows_of(start), unknown_ids=unknown_ids(start), max_length=config.sft.max_length)
    policy = fit(rows, start, folder.path, config.sft, seed=config.run.seed, facts=folder.facts)
    (policy / "return_levels.json").write_text(json.dumps(asdict(levels), indent=1) + "\n", encoding="utf-8")
    print(f"policy saved to {policy}: {len(rows)} rows, {levels.count} levels, edges {list(levels.edges)}")
    return policy


def play_for_target(
    config: ReturnConfig, levels: ReturnLevels, target: float, engine: Engine, policy: Path, folder: RunFolder
) -> Evaluation:
    """Ask for this return on held-out tasks and write `eval/return_<target>.json`."""
    limit = config.rollout.max_observation_tokens
    # Observations are cut before the line is put under them; a cut by the context might take the line.
    uncut = config.rollout.model_copy(update={"max_observation_tokens": 0})
    with open_stage(config.world, policy, folder.path) as stage:
        cut = {"shorten": partial(stage.codec.cut, max_tokens=limit)} if limit else {}
        asked = ReturnTargets(stage.world, levels, target, **cut)
        collector = stage.open_collector(uncut, EngineActor(engine), context_length=engine.context_length, world=asked)
        tasks = asked.tasks(config.evaluation.split)
        result, played = evaluate_policy(collector, tasks, config.evaluation, name=f"return_{target:g}")
    # Each target has a collector and so a clock of its own: the times are added up.
    lane = collector.occupancy.seconds()
    folder.facts.add(engine_s=lane["engine"], world_s=lane["environment"])
    folder.facts.played(played)
    save_evaluation(result, folder.path)
    TrajectoryStore(folder.trajectories).replace(played, tag=f"eval_return_{target:g}")
    return result


if __name__ == "__main__":
    run_recipe(main)
