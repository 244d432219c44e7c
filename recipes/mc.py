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
from functools import partial

from rollwright.critics import StoredChains, decode_with, open_vocabulary_critic, token_q_loss
from rollwright.training import (
    ReplayMethod,
    TokenQConfig,
    Training,
    recipe_config,
    replay_loop,
    run_recipe,
    token_q_plan,
)


class McConfig(TokenQConfig):
    """Everything a Monte-Carlo run reads."""


def main(argv: list[str] | None = None) -> None:
    """Run Monte-Carlo Q-learning as the configuration says."""
    config = recipe_config(McConfig, argv, plan=token_q_plan)
    with Training.start(config) as run:
        replay_loop(run, Mc(run, config))


class Mc(ReplayMethod):
    """The stored chains, Q over the vocabulary, and the policy that acts with it."""

    # The policy is frozen, so the engine has its weights from the start.
    policy_moves = False

    def __init__(self, run: Training, config: McConfig) -> None:
        self.run, self.algorithm = run, config.algorithm
        self.chains = StoredChains.open(config.replay.stores, run.codec, run.learner.policy)
        # Returns are bootstrapped from nothing, so there is no slow copy, and one head is enough.
        self.critic = open_vocabulary_critic(config, run.learner, config.algorithm, q_heads=1, polyak=None)
        run.attach(self.critic)
        # The engine reads this very critic at every token, so there is nothing to sync.
        decode_with(run.engine, self.critic.module, beta=config.algorithm.beta)

    def begin(self, step: int) -> bool:
        """Nothing is collected: everything is in the stores."""
        return False

    def fit(self) -> dict[str, float]:
        """Q towards what each token's episode still earned."""
        algorithm, metrics = self.algorithm, {}
        loss = partial(token_q_loss, cql_weight=algorithm.cql_weight)
        for _ in range(algorithm.updates):
            steps = self.chains.draw(self.draws, algorithm.trajectories)
            returns = steps.returns(algorithm.gamma)
            # Plain numbers from the store: the critic has no part in its own targets.
            targets = {"q": steps.per_entry(returns), "weights": steps.weights}
            metrics = self.critic.update_tokens(steps.segments, targets, loss)
            metrics["critic/target_mean"] = float(returns.mean())
        return metrics


if __name__ == "__main__":
    run_recipe(main)
