"""Reward under a limit on cost: PPO-Lagrangian with two critics, or a multiplier on group-relative advantages.

    for each step:
        collect     episodes; the world counts named costs beside its reward (StepResult.costs)
        score       every episode by the reward
        multiplier  J_C = mean cost of the last `window` episodes; lambda grows while J_C > limit, shrinks while below
        advantages  A_R of the reward and A_C of the cost, each by itself: by GAE from a critic of its own, or against
                    the group's other members
        mix         A = (A_R - lambda A_C) / (1 + lambda)
        update      clipped policy loss; with critics, each fitted to its own returns
        sync        the engine to the new weights

A KL inside the reward is split in halves, one to the reward and one to the cost: the mix then leaves its weight as it
is, whatever lambda is. With `constraint.initial=0`, `constraint.dual_step=linear` and a limit that is never reached
this is PPO, or the group estimator itself. Source: arXiv:2310.12773 (Safe RLHF) with its released code; see
docs/methods/constrained.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/constrained.py \\
        recipes/text/hazard_constrained.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from rollwright.batching import (
    ADVANTAGES,
    VALUE_ADVANTAGES,
    Advantage,
    TokenBatch,
    ValueAdvantage,
    can_whiten,
    cost_batch,
    estimator_needs,
    flatten,
    with_kl,
    with_members,
)
from rollwright.config import OWN, Readers, build_part
from rollwright.contracts import Group
from rollwright.critics import TokenCriticFit, open_value_beside
from rollwright.learner import ConstraintSettings, CriticSettings, Multiplier, PolicyLossSettings, objective_of
from rollwright.maths.advantages import whiten
from rollwright.rollout import is_informative
from rollwright.training import PolicyLoopConfig, Training, plan_text, recipe_config, run_recipe

GROUP, VALUES = {"critics": (False,)}, {"critics": (True,)}


class AlgorithmSettings(PolicyLossSettings):
    """How both channels are credited."""

    critics: bool = Field(True, description="true: a critic for the reward and one for the cost; false: group members.")
    value_advantage: Annotated[str, VALUE_ADVANTAGES] = Field(
        "turn_gae", description="critics: GAE over tokens, over turns, or on both levels; or your own estimator."
    )
    advantage: Annotated[str, ADVANTAGES] = Field(
        "dr_grpo", description="Without critics: how an episode is compared with its siblings; or your own estimator."
    )
    advantage_options: dict[str, Any] = Field({}, description="Arguments of your own estimator.")
    gamma: float = Field(1.0, ge=0, le=1, description="critics: discount per action token.")
    turn_gamma: float = Field(1.0, ge=0, le=1, description="critics: discount per turn.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="critics: lambda of GAE.")
    whiten: bool = Field(False, description="Whiten the mixed advantages over the batch.")
    kl_in_reward: float = Field(0.0, ge=0, description="Coefficient of a per-token KL penalty (k1), half per channel.")

    only_for: ClassVar[Readers] = {
        **PolicyLossSettings.only_for,
        "value_advantage": VALUES,
        "advantage": GROUP,
        "advantage_options": {"advantage": (OWN,), **GROUP},
        "gae_lambda": {"value_advantage": tuple(VALUE_ADVANTAGES.ours), **VALUES},
        "gamma": {"value_advantage": ("gae", "bilevel_v1", "bilevel_v2"), **VALUES},
        "turn_gamma": {"value_advantage": ("turn_gae", "bilevel_v1", "bilevel_v2"), **VALUES},
    }


class ConstrainedConfig(PolicyLoopConfig):
    """Everything a constrained run reads."""

    critic: TokenCriticFit = TokenCriticFit()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    constraint: ConstraintSettings = ConstraintSettings()

    @model_validator(mode="after")
    def _costs_are_compared(self) -> ConstrainedConfig:
        if not self.constraint.on:
            raise ValueError(
                "`constraint.cost` is empty, and this recipe holds a limit on a cost: name one that the world counts, "
                "or * for all of them; without a limit use recipes/ppo.py or recipes/grpo.py"
            )
        if not self.algorithm.critics and estimator_needs(self.algorithm.advantage, "greedy"):
            raise ValueError(
                f"`algorithm.advantage={self.algorithm.advantage}` compares with a greedy episode, whose cost nobody "
                "keeps: use another estimator, such as rloo or dr_grpo"
            )
        return self


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(ConstrainedConfig, argv, plan=plan_text)
    algorithm, fit = config.algorithm, config.critic
    objective = objective_of(algorithm)
    needs_reference = objective.needs_reference or algorithm.kl_in_reward > 0
    critic = CriticSettings(kind=fit.kind, learning_rate=fit.learning_rate, loss=build_part(fit, "loss"))
    with Training.start(config, reference=needs_reference, critic=critic if algorithm.critics else None) as run:
        multiplier = Multiplier(config.constraint, writes=run.learner.ranks.first)
        run.attach(multiplier)
        channels: Channels = ByCritics(run, config) if algorithm.critics else ByGroups(config)
        for step in run.steps():
            groups = run.score(run.collect(step))
            told = multiplier.observe(groups)
            teaching = channels.teaching(groups, multiplier)
            if not teaching or (algorithm.whiten and not can_whiten(teaching)):
                # No sync: the engine has these weights already.
                run.finish(step, groups, told | {"optim/skipped_count": 1.0})
                continue
            batch, costs = both_channels(run, teaching, multiplier, algorithm, reads_old=needs_reference)
            batch, costs = channels.credit(batch, costs)
            advantages = multiplier.mix(batch.advantages, costs.advantages)
            batch = batch.with_columns(advantages=whiten(advantages) if algorithm.whiten else advantages)
            metrics = run.update(batch, objective) | channels.fit(costs)
            run.sync()
            run.finish(step, groups, told | metrics)


def both_channels(
    run: Training, groups: Sequence[Group], multiplier: Multiplier, algorithm: AlgorithmSettings, *, reads_old: bool
) -> tuple[TokenBatch, TokenBatch]:
    """The same tokens twice: with rewards, and with costs in their place; each with its half of a KL."""
    batch = flatten(groups, min_members=1 if algorithm.critics else 2)
    if reads_old or algorithm.critics:
        with run.learning():
            old = run.learner.logprobs(batch)
            reference = run.learner.reference_logprobs(batch) if reads_old else None
        batch = batch.with_columns(logprobs_old=old, logprobs_ref=reference)
    costs = cost_batch(batch, multiplier.cost_at)
    if algorithm.kl_in_reward > 0:
        half = algorithm.kl_in_reward / 2
        # What the reward loses by the KL the cost gains: (-half - lambda half) / (1 + lambda) = -half.
        batch, costs = with_kl(batch, kl_coef=half), with_kl(costs, kl_coef=-half)
    return batch, costs


class ByGroups:
    """Each channel against the group's other members, separately: a constant cost then leaves the reward alone."""

    def __init__(self, config: ConstrainedConfig) -> None:
        self.estimator: Advantage = build_part(config.algorithm, "advantage")

    def teaching(self, groups: Sequence[Group], multiplier: Multiplier) -> list[Group]:
        """The groups whose members differ in reward or in cost."""
        usable = with_members(groups, 2)
        return [group for group in usable if is_informative(group) or multiplier.tells_apart(group)]

    def credit(self, batch: TokenBatch, costs: TokenBatch) -> tuple[TokenBatch, TokenBatch]:
        """Both with their advantages."""
        return batch.with_columns(advantages=self.estimator(batch)), costs.with_columns(
            advantages=self.estimator(costs)
        )

    def fit(self, costs: TokenBatch) -> dict[str, float]:
        """Nothing to fit."""
        return {}


class ByCritics:
    """GAE of each channel, with a critic of its own; that of the reward is the learner's."""

    def __init__(self, run: Training, config: ConstrainedConfig) -> None:
        self.run, self.epochs = run, config.learner.epochs
        self.estimator: ValueAdvantage = build_part(config.algorithm, "value_advantage")
        self.cost_critic = open_value_beside(config, run.learner, config.critic, name="cost_critic")
        run.attach(self.cost_critic.critic)

    def teaching(self, groups: Sequence[Group], multiplier: Multiplier) -> list[Group]:
        """Every group with an episode to learn from: a critic needs no siblings."""
        return with_members(groups, 1)

    def credit(self, batch: TokenBatch, costs: TokenBatch) -> tuple[TokenBatch, TokenBatch]:
        """Both with their values, advantages and returns."""
        with self.run.learning():
            values, cost_values = self.run.learner.values(batch), self.cost_critic.values(costs)
        return self._credited(batch, values), self._credited(costs, cost_values)

    def _credited(self, batch: TokenBatch, values: Tensor) -> TokenBatch:
        found = self.estimator(batch, values)
        return batch.with_columns(values=values, advantages=found.advantages, returns=found.returns)

    def fit(self, costs: TokenBatch) -> dict[str, float]:
        """Fit the cost's critic; the reward's is fitted with the policy."""
        with self.run.learning():
            return self.cost_critic.fit(costs, range(len(costs.segments)), updates=self.epochs)


Channels = ByGroups | ByCritics


if __name__ == "__main__":
    run_recipe(main)
