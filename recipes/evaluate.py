"""Judge a policy on held-out start states: success with intervals, pass@k, faults apart.

    play      every held-out task from the same start states for every policy, greedy or sampled
    record    one row per episode in eval/<name>.json, so that any two evaluations can be paired
    print     a table; `rollwright compare A B` gives the paired difference

With `search.rule` the policy searches before it acts, and what that cost is shown beside its success (docs/search.md).

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/evaluate.py recipes/web/miniwob_eval.yaml \
        model.path=runs/sft/policy name=sft
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from rollwright.config import Config, Readers, Unread, dump
from rollwright.contracts import Task, Trajectory, tasks_of
from rollwright.evaluation import (
    Evaluation,
    EvaluationSettings,
    evaluate_policy,
    evaluate_search,
    format_table,
    save_evaluation,
    search_line,
)
from rollwright.generation import EngineSettings
from rollwright.learner import go_on_alone
from rollwright.models import ChatCodec, ModelSettings
from rollwright.rollout import Collector, EngineActor, RolloutSettings
from rollwright.rollout.trees import StateValue, ValuedSearch, open_state_value, require_search
from rollwright.run_io import RunFolder
from rollwright.store import TrajectoryStore
from rollwright.training import (
    NO_GROUPS,
    ONE_EVALUATION,
    RewardSettings,
    WorldSettings,
    announce,
    announce_evaluation,
    announce_next,
    open_reward,
    open_stage,
    recipe_config,
    require_judged,
    run_recipe,
)

log = logging.getLogger(__name__)


class SearchReward(Config):
    """The reward model that a search asks, with `search.value=reward_model`."""

    name: str = Field(
        "outcome_model", description="Module of rollwright.rewards or `package.module:Attribute`: a reward model."
    )
    options: dict[str, Any] = Field({}, description="Arguments of the reward's `build`.")

    @model_validator(mode="after")
    def _no_verdict_is_shown(self) -> SearchReward:
        if self.name in ("env", "success"):
            raise ValueError(
                f"`name={self.name}` reads the world's own rewards or verdict, which a search is not shown in an "
                "evaluation: name a reward model, such as outcome_model"
            )
        return self


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
    search: ValuedSearch = ValuedSearch()
    search_reward: SearchReward = SearchReward()

    only_for: ClassVar[Readers] = {
        "search_reward.name": {"search.value": ("reward_model",)},
        "search_reward.options": {"search.value": ("reward_model",)},
        "evaluation.temperature": {"search.rule": ("off",)},
    }
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
        if config.search.on:
            require_search(stage.world, config.search, sees_verdict=False)
        value = opened_value(config, stage.codec)
        announce(config, tasks={config.evaluation.split: tasks})
        engine = stage.open_engine(config.engine)
        collector = stage.open_collector(config.rollout, EngineActor(engine), context_length=engine.context_length)
        result, played = judged(config, collector, tasks, value)
    folder.facts.played(played)
    # A search samples more than the path that it decides for.
    sampled, shown = sum(row.num_tokens or 0 for row in result.rows), sum(t.num_action_tokens for t in played)
    folder.facts.add(tokens_sampled=sampled - shown if config.search.on else 0)
    folder.facts.set_clocks(collector.occupancy.seconds())
    if (folder.evaluations / f"{config.name}.json").exists():
        log.warning("the evaluation %r of an earlier start is replaced: another `name` keeps both", config.name)
    path = save_evaluation(result, folder.path)
    TrajectoryStore(folder.trajectories).replace(played, tag=f"eval_{config.name}")
    print(format_table(result))
    if config.search.on:
        print(search_line(result))
    announce_evaluation(result, config.evaluation)
    print(f"written to {path}")
    announce_next(folder.path, f"rollwright compare ANOTHER.json {path}")


def judged(
    config: EvaluateConfig, collector: Collector, tasks: Sequence[Task], value: StateValue | None
) -> tuple[Evaluation, list[Trajectory]]:
    """The evaluation of the policy, or of the policy with a search."""
    if not config.search.on:
        return evaluate_policy(collector, tasks, config.evaluation, name=config.name)
    return evaluate_search(collector, tasks, config.evaluation, config.search, name=config.name, value=value)


def opened_value(config: EvaluateConfig, codec: ChatCodec) -> StateValue | None:
    """What judges the states of a search, where it asks a model."""
    asked, reward = config.search_reward, None
    if config.search.value == "reward_model":
        reward = open_reward(RewardSettings(name=asked.name, options=asked.options))
    return open_state_value(config.search, codec, reward)


if __name__ == "__main__":
    run_recipe(main)
