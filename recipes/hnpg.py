"""HNPG's hybrid critic: own episodes keep it honest, logged turns show it where the reward lies.

    for each step:
        collect   episodes of the policy
        critic    mean over own turns    (Q(s, a) - G)^2                       G: what the episode still earned
                + lambda * mean over logged turns (Q(s, a) - r - gamma Q_slow(s', a'))^2       a' freshly sampled
        actor     own turns by GAE, logged states with a fresh action by A = Q - V;  V(s) = mean of a few Q(s, a ~ pi)
        sync      the engine to the new weights

Logged actions are never imitated: only logged states enter the policy's loss. With `offline_weight=0 logged_states=0`
it is a policy gradient with a Monte-Carlo critic. Source: arXiv:2311.08384; docs/methods/hnpg.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/hnpg.py recipes/text/maze_hnpg.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field

from rollwright.batching import TokenBatch, can_whiten, flatten, join_batches
from rollwright.config import Readers
from rollwright.contracts import ConfigError, Group
from rollwright.critics import (
    FreshActions,
    FreshValues,
    RegressedCriticFit,
    open_turn_critic,
    stored_batch,
    whitened,
    with_fresh_actions,
)
from rollwright.learner import PolicyLossSettings, objective_of
from rollwright.maths import hybrid_weights, lambda_returns
from rollwright.maths.advantages import gae
from rollwright.store import data_checks
from rollwright.store.replay import ReplaySettings, Transition, TurnTable, valid_turns
from rollwright.training import (
    PolicyLoopConfig,
    ReplayMethod,
    Training,
    plan_text,
    recipe_config,
    replay_loop,
    run_recipe,
)

Ids = tuple[int, ...]


class AlgorithmSettings(PolicyLossSettings):
    """The critic's two halves and the actor's two sets of states."""

    gamma: float = Field(1.0, ge=0, le=1, description="Discount per turn.")
    gae_lambda: float = Field(0.97, ge=0, le=1, description="Lambda of GAE per turn, on the run's own episodes.")
    offline_weight: float = Field(1.0, ge=0, description="Weight of the logged turns in the critic's loss.")
    polyak: float = Field(
        0.2, gt=0, le=1, description="Polyak rate at which the target critic follows, per critic step."
    )
    bias: float = Field(
        0.0, description="Initial value of all states; learning is faster when it is close to the mean return."
    )
    samples: int = Field(4, ge=1, description="Number of fresh actions whose mean Q is the value of a state.")
    logged_states: int = Field(64, ge=0, description="Number of logged states in the policy's loss per step.")
    truncated_end: bool = Field(
        False, description="Treat a time limit as the task's own end: a cut episode has no further value."
    )

    only_for: ClassVar[Readers] = PolicyLossSettings.only_for


class CriticFit(RegressedCriticFit):
    """Q of own and of logged turns."""

    updates: int = Field(20, ge=0, description="Optimiser steps per step of the run.")


class HnpgConfig(PolicyLoopConfig):
    """Everything an HNPG run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    replay: ReplaySettings = ReplaySettings()
    critic: CriticFit = CriticFit()

    def require_logs(self) -> None:
        """Raises ConfigError where logged turns have a weight and no store, or a store and no weight."""
        if bool(self.replay.stores) != bool(self.algorithm.offline_weight or self.algorithm.logged_states):
            raise ConfigError(
                "logged turns come from replay.stores and count by algorithm.offline_weight and "
                "algorithm.logged_states: name a store, or set both to 0"
            )


def main(argv: list[str] | None = None) -> None:
    """Run HNPG as the configuration says."""
    config = recipe_config(HnpgConfig, argv, plan=plan_text)
    config.require_logs()
    with Training.start(config) as run:
        replay_loop(run, Hnpg(run, config))


class Hnpg(ReplayMethod):
    """The critic, the logged turns, and the episodes of this step."""

    def __init__(self, run: Training, config: HnpgConfig) -> None:
        self.run, self.config, self.algorithm = run, config, config.algorithm
        self.table = TurnTable(*config.replay.stores, may_be_empty=not config.replay.stores)
        # After a cut that left no next prompt there is nothing to bootstrap from, unless a limit counts as the end.
        self.turns = valid_turns(self.table, needs_next=not config.algorithm.truncated_end)
        if config.replay.stores:
            data_checks.require_own_tokens(config.replay.stores, self.table, run.codec, run.learner.policy)
            data_checks.require_outcomes(self.table, self.turns)
        polyak, bias = config.algorithm.polyak, config.algorithm.bias
        self.critic = open_turn_critic(
            config, run.learner, run.codec, config.critic, {"q": 1}, name="critic", polyak=polyak, bias=bias
        )
        self.fresh = FreshActions(run.engine, run.collector.sampling, seed=config.run.seed)
        self.values = FreshValues(self.critic, self.fresh, samples=config.algorithm.samples)
        run.attach(self.critic)

    def may_learn(self, groups: Sequence[Group]) -> bool:
        """Advantages are put on one scale, which takes two tokens at least."""
        self.skipped = not can_whiten(groups)
        return not self.skipped

    def metrics(self) -> dict[str, float]:
        """A step that was skipped says so."""
        return {"optim/skipped_count": 1.0} if self.skipped else {}

    def draw(self, step: int, groups: Sequence[Group]) -> None:
        """This step's own turns and their returns."""
        self.fresh.begin(step)
        self.own: TokenBatch = flatten(groups)
        # By the critic as it is before this step fits it.
        self.ends = self.values.after_cuts(self.own.trajectories, truncated_end=self.algorithm.truncated_end)
        rewards, index = self.own.turn_rewards, self.own.trajectory_index
        blank = torch.zeros_like(rewards)
        # With lambda = 1 the values along the way cancel, so zeros do: what is left are the discounted returns.
        self.returns = lambda_returns(rewards, blank, index, self.ends, gamma=self.algorithm.gamma, gae_lambda=1.0)

    def sample(self, size: int) -> list[Transition]:
        """Logged turns."""
        return self.table.transitions(self.draws.choice(self.turns, size)) if size and len(self.turns) else []

    def fit(self) -> dict[str, float]:
        """Steps of regression, each on own turns and on as many logged ones."""
        fit, metrics = self.config.critic, {}
        for _ in range(fit.updates):
            chosen = self.draws.integers(len(self.own.turns), size=fit.batch_size)
            # With weight 0 the logs would only be read in vain.
            logged = self.sample(fit.batch_size) if self.algorithm.offline_weight else []
            ahead = self.values.targets(logged, gamma=self.algorithm.gamma, truncated_end=self.algorithm.truncated_end)
            targets = torch.cat([self.returns[chosen], ahead])
            acted = [self.own.turns[u].prompt_ids + self.own.turns[u].action_ids for u in chosen]
            acted += [t.prompt_ids + t.action_ids for t in logged]
            # Own turns come first in `acted` and in `targets`.
            own = torch.arange(len(targets)) < len(chosen)
            # So the one mean over both sets is the sum of two means, the second one times lambda.
            weights = hybrid_weights(own, off_weight=self.algorithm.offline_weight)
            metrics = self.critic.update({"q": (acted, targets)}, weights={"q": weights})
        return metrics | ({"critic/target_mean": float(targets.mean())} if metrics else {})

    def update(self) -> dict[str, float]:
        """One batch of both sets, on one scale."""
        return self.run.update(whitened(self.tokens()), objective_of(self.algorithm))

    def tokens(self) -> TokenBatch:
        """What the policy learns from: own tokens, and those at logged states."""
        own, logged = self.own_tokens(), self.logged_tokens()
        return own if logged is None else join_batches([own, logged])

    def own_tokens(self) -> TokenBatch:
        """Own turns, each with its advantage on all of its tokens."""
        own, gamma, gae_lambda = self.own, self.algorithm.gamma, self.algorithm.gae_lambda
        args = (own.turn_rewards, self.values([turn.prompt_ids for turn in own.turns]), own.trajectory_index)
        found = gae(
            *args, num_sequences=len(own.trajectories), gamma=gamma, gae_lambda=gae_lambda, last_values=self.ends
        )
        return own.with_columns(advantages=found.advantages[own.turn_index])

    def logged_tokens(self) -> TokenBatch | None:
        """Logged states with what the policy would do there now, and its advantage by the critic; None without any."""
        states = self.sample(self.algorithm.logged_states)
        if not states:
            return None
        acted = with_fresh_actions(states, self.fresh)
        q = self.critic.read([t.prompt_ids + t.action_ids for t in acted])["q"][0]
        batch = stored_batch(acted, (q - self.values([t.prompt_ids for t in states])).tolist())
        # A stored batch does not say which weights sampled it; these actions are as new as the engine's weights.
        return replace(batch, versions=torch.full_like(batch.versions, self.run.engine.version))


if __name__ == "__main__":
    run_recipe(main)
