"""What a run of ILQL or Monte-Carlo Q-learning reads, and what its `--plan` prints."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from rollwright.config import Unread
from rollwright.critics import ENGINES_WITH_Q, TokenQSettings
from rollwright.store.replay import ReplaySettings
from rollwright.training.loop_config import LoopConfig
from rollwright.training.plan import memory_text


class TokenQConfig(LoopConfig):
    """Everything a run of either method reads."""

    algorithm: TokenQSettings = TokenQSettings()
    replay: ReplaySettings = ReplaySettings()

    unread: ClassVar[Unread] = {
        "reward": "the stored rewards count",
        "curriculum": "no task is trained on but what replay.stores hold",
        "starts": "no episode is trained on but what replay.stores hold",
        **dict.fromkeys(
            ("rollout.group_size", "rollout.groups_per_step", "rollout.max_staleness"),
            "no episode is trained on but what replay.stores hold",
        ),
        **dict.fromkeys(
            [f"learner.{key}" for key in ("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm")]
            + ["learner.minibatches", "learner.epochs"],
            "the policy stands still; the critic has algorithm.learning_rate and algorithm.updates",
        ),
    }

    @model_validator(mode="after")
    def _the_engine_is_here(self) -> TokenQConfig:
        # Q is added to the logits inside the engine, which has to live in the process that trains the critic.
        if self.engine.name == "vllm_server":
            raise ValueError(ENGINES_WITH_Q.format("vllm_server"))
        return self


def token_q_plan(config: TokenQConfig) -> str:
    """What `--plan` prints."""
    algorithm, steps = config.algorithm, config.run.steps
    return "\n".join(
        [
            f"each step: {algorithm.updates} optimiser steps of the critic, each on {algorithm.trajectories} stored "
            "trajectories; episodes are played for evaluation only",
            f"the run: {steps} steps, {steps * algorithm.updates} optimiser steps",
            memory_text(config),
        ]
    )
