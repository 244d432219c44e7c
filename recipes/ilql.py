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
from functools import partial

from pydantic import Field

from rollwright.critics import (
    StoredChains,
    TokenQSettings,
    decode_with,
    implicit_loss,
    implicit_targets,
    open_vocabulary_critic,
)
from rollwright.training import (
    ReplayMethod,
    TokenQConfig,
    Training,
    recipe_config,
    replay_loop,
    run_recipe,
    token_q_plan,
)


class AlgorithmSettings(TokenQSettings):
    """Targets, losses and decoding."""

    expectile: float = Field(
        0.95, gt=0, lt=1, description="tau of V's expectile loss; 0.5 evaluates the logged policy, 1 takes the maximum."
    )
    polyak: float = Field(0.005, gt=0, le=1, description="Polyak rate at which the target Q follows, per critic step.")
    truncated_end: bool = Field(
        False, description="Treat a time limit as the task's own end: a cut episode has no further value."
    )
    highest: float | None = Field(
        None, description="Upper bound of targets: 0 where all rewards are costs; null = no bound, as in the papers."
    )


class IlqlConfig(TokenQConfig):
    """Everything an ILQL run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()


def main(argv: list[str] | None = None) -> None:
    """Run ILQL as the configuration says."""
    config = recipe_config(IlqlConfig, argv, plan=token_q_plan)
    with Training.start(config) as run:
        replay_loop(run, Ilql(run, config))


class Ilql(ReplayMethod):
    """The stored chains, Q and V over the vocabulary, and the policy that acts with both."""

    # The policy is frozen, so the engine has its weights from the start.
    policy_moves = False

    def __init__(self, run: Training, config: IlqlConfig) -> None:
        self.run, self.algorithm = run, config.algorithm
        self.chains = StoredChains.open(
            config.replay.stores, run.codec, run.learner.policy, truncated_end=config.algorithm.truncated_end
        )
        # Two heads of Q: the smaller one is V's target, and acts.
        self.critic = open_vocabulary_critic(
            config, run.learner, config.algorithm, q_heads=2, polyak=config.algorithm.polyak
        )
        run.attach(self.critic)
        # The engine reads this very critic at every token, so there is nothing to sync.
        decode_with(run.engine, self.critic.slow, beta=config.algorithm.beta)

    def begin(self, step: int) -> bool:
        """Nothing is collected: everything is in the stores."""
        return False

    def fit(self) -> dict[str, float]:
        """Q towards r + gamma V of the next token, V towards the better of what Q says of the tokens written."""
        algorithm, metrics = self.algorithm, {}
        loss = partial(implicit_loss, cql_weight=algorithm.cql_weight, expectile=algorithm.expectile)
        for _ in range(algorithm.updates):
            steps = self.chains.draw(self.draws, algorithm.trajectories)
            # Anew at each optimiser step, as V and the slow Q have moved.
            targets = implicit_targets(self.critic, steps, gamma=algorithm.gamma, highest=algorithm.highest)
            metrics = self.critic.update_tokens(steps.segments, targets, loss)
            metrics["critic/target_mean"] = float((targets["q"] * targets["weights"]).mean())
        return metrics


if __name__ == "__main__":
    run_recipe(main)
