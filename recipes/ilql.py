"""ILQL (implicit language Q-learning) on stored episodes, token by token; acting adds beta * Q to a frozen policy.

    for each step:
        draw      whole trajectories from the stores
        targets   y = r + gamma V(next action state);   V by expectile regression on the smaller slow Q
        critic    0.5 (Q_j(s, a) - y)^2 + w_cql CE(Q_j(s, .), a) + 0.5 expectile(V), means over action tokens
    act           softmax(logits of the policy + beta * min Q_slow)

Every action token is a step: gamma counts tokens, the reward lies on the last token of its action, and the state after
a turn's last token is the one before the next turn's first. The policy itself is not trained; give it a BC model.
Sources: arXiv:2206.11871 (ILQL), arXiv:2311.18232 (LMRL-Gym, whose losses these are); docs/methods/ilql.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/ilql.py recipes/text/maze_ilql.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once


import numpy as np
from pydantic import Field

from rollwright.critics import (
    StoredChains,
    TokenQSettings,
    decode_with,
    implicit_loss,
    implicit_targets,
    open_vocabulary_critic,
)
from rollwright.training import TokenQConfig, Training, recipe_config, run_recipe, token_q_plan


class AlgorithmSettings(TokenQSettings):
    """Targets, losses and decoding."""

    expectile: float = Field(0.95, gt=0, lt=1, description="tau of V's expectile; 0.5 evaluates, 1 maximises.")
    polyak: float = Field(0.005, gt=0, le=1, description="How far the slow Q follows at each critic step.")
    truncated_end: bool = Field(False, description="A limit is the task's own end: nothing follows a cut episode.")
    highest: float | None = Field(
        None, description="What no return exceeds, for targets: 0 where rewards are costs; null = no bound (papers)."
    )


class IlqlConfig(TokenQConfig):
    """Everything an ILQL run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()


def main(argv: list[str] | None = None) -> None:
    config = recipe_config(IlqlConfig, argv, plan=token_q_plan)
    algorithm = config.algorithm
    with Training.start(config) as run:
        chains = StoredChains.open(
            config.replay.stores, run.codec, run.learner.policy, truncated_end=algorithm.truncated_end
        )
        critic = open_vocabulary_critic(config, run.learner, algorithm, q_heads=2, polyak=algorithm.polyak)
        run.attach(critic)
        decode_with(run.engine, critic.slow, beta=algorithm.beta)
        for step in run.steps():
            draws = np.random.default_rng([config.run.seed, step])  # a resumed run draws the same
            metrics: dict[str, float] = {}
            with run.learning():
                for _ in range(algorithm.updates):
                    steps = chains.draw(draws, algorithm.trajectories)
                    wanted_q, wanted_v = implicit_targets(
                        critic, steps, gamma=algorithm.gamma, highest=algorithm.highest
                    )
                    weights = steps.weights
                    loss = implicit_loss(
                        wanted_q, wanted_v, weights, cql_weight=algorithm.cql_weight, expectile=algorithm.expectile
                    )
                    metrics = critic.update_tokens(steps.segments, loss)
                    metrics["critic/target_mean"] = float((wanted_q * weights).mean())
            run.finish(step, [], metrics)


if __name__ == "__main__":
    run_recipe(main)
