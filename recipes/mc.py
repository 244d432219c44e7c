"""Monte-Carlo Q-learning on stored episodes, token by token; acting adds beta * Q to a frozen policy.

    for each step:
        draw      whole trajectories from the stores
        targets   G = discounted reward-to-go, gamma per action token
        critic    0.5 (Q(s, a) - G)^2 + w_cql CE(Q(s, .), a), means over action tokens
    act           softmax(logits of the policy + beta * Q)

The value of having behaved as the data do and going on so: it cannot join the good half of one walk to that of another,
which ILQL (recipes/ilql.py) can. The policy itself is not trained; give it a BC model. Source: arXiv:2311.18232
(LMRL-Gym's MC); docs/methods/ilql.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/mc.py recipes/text/maze_mc.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once


import numpy as np

from rollwright.critics import StoredChains, decode_with, open_vocabulary_critic, token_q_loss
from rollwright.training import TokenQConfig, Training, recipe_config, run_recipe, token_q_plan


class McConfig(TokenQConfig):
    """Everything a Monte-Carlo run reads."""


def main(argv: list[str] | None = None) -> None:
    config = recipe_config(McConfig, argv, plan=token_q_plan)
    algorithm = config.algorithm
    with Training.start(config) as run:
        chains = StoredChains.open(config.replay.stores, run.codec, run.learner.policy)
        critic = open_vocabulary_critic(config, run.learner, algorithm, q_heads=1, polyak=None)
        run.attach(critic)
        decode_with(run.engine, critic.module, beta=algorithm.beta)
        for step in run.steps():
            draws = np.random.default_rng([config.run.seed, step])  # a resumed run draws the same
            metrics: dict[str, float] = {}
            with run.learning():
                for _ in range(algorithm.updates):
                    steps = chains.draw(draws, algorithm.trajectories)
                    returns = steps.returns(algorithm.gamma)
                    loss = token_q_loss(steps.per_entry(returns), steps.weights, cql_weight=algorithm.cql_weight)
                    metrics = critic.update_tokens(steps.segments, loss)
                    metrics["critic/target_mean"] = float(returns.mean())
            run.finish(step, [], metrics)


if __name__ == "__main__":
    run_recipe(main)
