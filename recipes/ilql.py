"""ILQL and Monte-Carlo Q-learning on stored episodes, token by token; acting adds beta * Q to a frozen policy.

    for each step:
        draw      whole trajectories from the stores
        targets   ilql: y = r + gamma V(next action state), V by expectile regression on the smaller slow Q
                  mc:   y = discounted reward-to-go
        critic    0.5 (Q(s, a) - y)^2 + w_cql CE(Q(s, .), a) (+ 0.5 expectile(V)), means over action tokens
    act           softmax(logits of the policy + beta * min Q)

Every action token is a step: gamma counts tokens, the reward lies on the last token of its action, and the state after
a turn's last token is the one before the next turn's first. The policy itself is not trained; give it a BC model.
Sources: arXiv:2206.11871 (ILQL), arXiv:2311.18232 (LMRL-Gym, whose losses these are); docs/methods/ilql.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/ilql.py recipes/text/maze_ilql.yaml
"""

from __future__ import annotations

from rollwright.generation.launch_env import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import sys  # noqa: E402
from typing import ClassVar, Literal  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from pydantic import Field  # noqa: E402
from torch import Tensor  # noqa: E402

from rollwright import offpolicy  # noqa: E402
from rollwright.assembly import open_vocabulary_critic  # noqa: E402
from rollwright.config import Config, Readers, load_config  # noqa: E402
from rollwright.errors import ConfigError  # noqa: E402
from rollwright.plan import plan_text  # noqa: E402
from rollwright.replay import TurnTable, keep_trajectories, valid_turns  # noqa: E402
from rollwright.settings import LoopConfig, ReplaySettings  # noqa: E402
from rollwright.token_steps import TokenSteps, token_steps  # noqa: E402
from rollwright.training import Training  # noqa: E402
from rollwright.value_learner import ReadingLoss, Readings  # noqa: E402
from rollwright.values import expectile_loss, td_target  # noqa: E402


class AlgorithmSettings(Config):
    """Targets, losses and decoding."""

    method: Literal["ilql", "mc"] = Field("ilql", description="Implicit Q-learning, or Monte-Carlo returns.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per action token.")
    expectile: float = Field(0.95, gt=0, lt=1, description="ilql: tau of the expectile.")
    polyak: float = Field(0.005, gt=0, le=1, description="ilql: how far the slow Q follows at each critic step.")
    cql_weight: float = Field(0.5, ge=0, description="Weight of the conservative term.")
    beta: float = Field(16.0, ge=0, description="What Q weighs beside the policy's logits; 0 acts as the policy.")
    updates: int = Field(50, ge=1, description="Optimiser steps for one step of the run.")
    trajectories: int = Field(8, ge=1, description="Trajectories of one optimiser step.")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate for the critic.")
    width: int = Field(256, ge=1, description="Hidden layer of the heads.")
    bias: float = Field(0.0, description="Where all values start; near the mean return spares a long way.")

    only_for: ClassVar[Readers] = {"expectile": {"method": ("ilql",)}, "polyak": {"method": ("ilql",)}}


class IlqlConfig(LoopConfig):
    """Everything an ILQL or MC run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    replay: ReplaySettings = ReplaySettings()


def main(argv: list[str] | None = None) -> None:
    config = load_config(IlqlConfig, sys.argv[1:] if argv is None else argv, plan=plan_text)
    if not config.replay.stores:
        raise ConfigError("ILQL learns from stored trajectories: name some in replay.stores (recipes/collect.py)")
    with Training.start(config) as run:
        ilql = Ilql(run, config)
        for step in run.steps():
            with run.learning():
                metrics = ilql.fit(step)
            ilql.act()
            run.finish(step, [], metrics)


class Ilql:
    """The critic, the stored trajectories, and one step of fitting."""

    def __init__(self, run: Training, config: IlqlConfig) -> None:
        self.run, self.config, self.algorithm = run, config, config.algorithm
        algorithm = config.algorithm
        self.table = TurnTable(*config.replay.stores)
        self.turns = valid_turns(self.table)
        self.owners = np.unique(self.table.owners()[self.turns])
        offpolicy.require_outcomes(self.table, self.turns)
        offpolicy.require_vocabulary(self.table, self.turns, offpolicy.vocab_size(run.learner.policy))
        self.critic = open_vocabulary_critic(
            config,
            run.learner,
            q_heads=2 if algorithm.method == "ilql" else 1,
            width=algorithm.width,
            bias=algorithm.bias,
            learning_rate=algorithm.learning_rate,
            polyak=algorithm.polyak if algorithm.method == "ilql" else None,
        )
        run.attach(self.critic)
        self.act()

    def act(self) -> None:
        """From here on the engine decodes with Q."""
        from rollwright.generation.transformers_engine import TransformersEngine
        from rollwright.vocabulary_critic import Perturbation

        engine = self.run.engine
        if not isinstance(engine, TransformersEngine):
            raise ConfigError(f"decoding with a Q over the vocabulary needs engine=transformers, not {engine.name}")
        critic = self.critic.slow if self.algorithm.method == "ilql" else self.critic.module
        engine.perturb(Perturbation(critic=critic, beta=self.algorithm.beta))  # type: ignore[arg-type]

    def fit(self, step: int) -> dict[str, float]:
        """`updates` optimiser steps, each on a fresh draw of trajectories."""
        draws = np.random.default_rng([self.config.run.seed, step])  # a resumed run draws the same
        metrics: dict[str, float] = {}
        for _ in range(self.algorithm.updates):
            chosen = draws.choice(self.owners, self.algorithm.trajectories)
            steps = token_steps(self.table, keep_trajectories(self.table, chosen, among=self.turns))
            targets, wanted_v = self.targets(steps)
            metrics = self.critic.update_tokens(steps.segments, self.loss(targets, wanted_v))
        return metrics | {"critic/target_mean": float(targets.mean())}

    def targets(self, steps: TokenSteps) -> tuple[Tensor, Tensor | None]:
        """What Q is regressed on, and what V is (None for Monte-Carlo). [N] each, without gradient."""
        if self.algorithm.method == "mc":
            return steps.returns(self.algorithm.gamma), None
        values = self.critic.read_tokens(steps.readings)["v"][0]
        after = steps.next_values(values)
        wanted = td_target(steps.rewards, after, torch.zeros_like(steps.rewards).bool(), gamma=self.algorithm.gamma)
        slow = self.critic.read_tokens(steps.segments, slow=True)["q"]
        return wanted, slow.min(dim=0).values

    def loss(self, targets: Tensor, wanted_v: Tensor | None) -> ReadingLoss:
        """LMRL-Gym's loss of each action token."""
        algorithm = self.algorithm

        def loss(values: Readings, places: Tensor) -> Tensor:
            wanted = targets.to(places.device)[places]
            total = 0.5 * (values["q"] - wanted).square().sum(dim=0) + algorithm.cql_weight * values["cql"].sum(dim=0)
            if wanted_v is not None:
                total = total + 0.5 * expectile_loss(
                    values["v"][0], wanted_v.to(places.device)[places], tau=algorithm.expectile
                )
            return total

        return loss


if __name__ == "__main__":
    main()
