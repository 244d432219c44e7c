"""RLGF: RL with a guide that begins the policy's episodes, or ends them (PPO++, AggreVaTeD, LOLS, D2LOLS).

    for each step:
        mode        ppo++ or aggrevated, for all episodes of the step alike: as `algorithm.method` says, by a coin
                    (lols), or aggrevated until `switch_step` and ppo++ from there on (d2lols)
        roll in     ppo++: the guide, aggrevated: the policy, plays to the end of the episode: L turns
        cut         b ~ Bernoulli(beta); k ~ Uniform{1, ..., L-1} if b = 1 and L >= 2, else k = 0
        roll out    behind the first k turns the other one plays to the end
        score       every episode by the reward
        advantages  by GAE, not whitened; ppo++: from the policy's values, aggrevated: from the guide's
        update      ppo++:      clipped policy loss and critic loss on what follows the prefix
                    aggrevated: clipped policy loss inside the prefix, critic loss behind it
        sync        the engine to the new weights

The guide is whoever `actor.guide` names. Behind an AggreVaTeD prefix the guide acts, so returns there are samples of
the guide's value; inside it the advantage says how much better the policy's action is, if the guide goes on. Each
critic has an optimiser of its own and keeps it over every change of mode. With beta = 0 PPO++ is PPO.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/rlgf.py recipes/text/lock_rlgf.yaml

Sources: arXiv:2306.11816 (RLGF) with its released code; docs/methods/rlgf.md says where this differs.
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from rollwright.batching import VALUE_ADVANTAGES, TokenBatch, ValueAdvantage, flatten, flatten_guided
from rollwright.config import OWN, Readers, Unread, build_part
from rollwright.contracts import ConfigError, Group
from rollwright.critics import TokenCriticFit, ValueBeside, open_value_beside
from rollwright.curriculum import RollIns
from rollwright.learner import CriticSettings, PolicyLossSettings, PolicyObjective, objective_of
from rollwright.maths import GuidedMethod, guided_masks, guided_mode
from rollwright.training import (
    OnPolicy,
    PolicyLoopConfig,
    Requests,
    Training,
    close_play,
    open_world,
    plan_text,
    recipe_config,
    run_recipe,
)

_OWN_MIX = "the guide begins or ends episodes as `algorithm.method` and `algorithm.beta` say"


class AlgorithmSettings(PolicyLossSettings):
    """Who rolls in and who rolls out, and the settings of PPO."""

    method: GuidedMethod = Field("ppo++", description="Whether the guide begins episodes, ends them, or both in turn.")
    beta: float = Field(0.8, ge=0, le=1, description="Share of episodes with a prefix; ppo++ with 0 is PPO.")
    ppo_frac: float = Field(0.8, ge=0, le=1, description="lols: share of the steps that are PPO++ (tau).")
    switch_step: int = Field(20, ge=0, description="d2lols: first step of PPO++ (tau); 0 = PPO++ from the start.")
    advantage: Annotated[str, VALUE_ADVANTAGES] = Field(
        "turn_gae", description="Advantage estimator: GAE over tokens, over turns, or on both levels; or your own."
    )
    advantage_options: dict[str, Any] = Field({}, description="Arguments of your own estimator.")
    gamma: float = Field(1.0, ge=0, le=1, description="Discount per action token.")
    turn_gamma: float = Field(1.0, ge=0, le=1, description="Discount per turn.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Lambda of GAE.")

    only_for: ClassVar[Readers] = {
        **PolicyLossSettings.only_for,
        "ppo_frac": {"method": ("lols",)},
        "switch_step": {"method": ("d2lols",)},
        "advantage_options": {"advantage": (OWN,)},
        "gae_lambda": {"advantage": tuple(VALUE_ADVANTAGES.ours)},
        "gamma": {"advantage": ("gae", "bilevel_v1", "bilevel_v2")},
        "turn_gamma": {"advantage": ("turn_gae", "bilevel_v1", "bilevel_v2")},
    }


class RlgfConfig(PolicyLoopConfig):
    """Everything an RLGF run reads."""

    critic: TokenCriticFit = TokenCriticFit()
    algorithm: AlgorithmSettings = AlgorithmSettings()

    unread: ClassVar[Unread] = {
        "starts": _OWN_MIX,
        "rollout.max_staleness": "roll-in and roll-out are played for the step that learns from them",
    } | dict.fromkeys(
        (f"actor.{key}" for key in ("mix", "guide_frac", "schedule", "schedule_steps", "prefix_turns", "overseer")),
        _OWN_MIX,
    )

    @model_validator(mode="after")
    def _somebody_guides(self) -> RlgfConfig:
        if self.actor.guide == "none":
            raise ValueError("RLGF needs a guide, and `actor.guide` is none: use teacher, store, model or endpoint")
        return self


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(RlgfConfig, argv, plan=plan_text)
    require_states(config)
    algorithm, fit, seed = config.algorithm, config.critic, config.run.seed
    estimator: ValueAdvantage = build_part(algorithm, "advantage")
    objective = objective_of(algorithm)
    # The learner's own critic is the policy's; the guide's stands beside it. Each is there where a step may need it.
    own = CriticSettings(kind=fit.kind, learning_rate=fit.learning_rate, loss=build_part(fit, "loss"))
    only_guide, only_policy = algorithm.method == "aggrevated", algorithm.method == "ppo++"
    with Training.start(config, reference=objective.needs_reference, critic=None if only_guide else own) as run:
        guide = None if only_policy else open_value_beside(config, run.learner, fit, name="guide_critic")
        if guide is not None:
            run.attach(guide.critic)
        horizon = config.rollout.max_turns or run.collector.world.max_turns
        rolls = RollIns(run.collector.collect, seed=seed, beta=algorithm.beta, horizon=horizon)
        run.collection = OnPolicy(Requests(config.rollout, run.curriculum, seed=seed), rolls.play)
        for step in run.steps():
            mode = guided_mode(
                algorithm.method,
                step=step,
                seed=seed,
                ppo_frac=algorithm.ppo_frac,
                switch_step=algorithm.switch_step,
            )
            rolls.begin(step, mode)
            groups = run.score(run.collect(step))
            run.remember(step, [*rolls.played, *groups])
            metrics = {"optim/skipped_count": 1.0}
            if usable := [group for group in groups if any(t.learnable for t in group.trajectories)]:
                if guide is None or mode == "ppo++":
                    metrics = after_the_prefix(run, usable, estimator, objective)
                else:
                    metrics = inside_the_prefix(run, usable, estimator, objective, guide)
                run.sync()
            run.finish(step, groups, metrics | rolls.metrics())


def after_the_prefix(
    run: Training, groups: Sequence[Group], estimator: ValueAdvantage, objective: PolicyObjective
) -> dict[str, float]:
    """PPO++: policy and critic learn from all that the policy played. The prefix is context, and no part of a batch."""
    batch = with_logprobs(run, flatten(groups), objective)
    with run.learning():
        values = run.learner.values(batch)
    estimate = estimator(batch, values)
    return run.update(
        batch.with_columns(values=values, advantages=estimate.advantages, returns=estimate.returns), objective
    )


def inside_the_prefix(
    run: Training,
    groups: Sequence[Group],
    estimator: ValueAdvantage,
    objective: PolicyObjective,
    guide: ValueBeside,
) -> dict[str, float]:
    """AggreVaTeD: the policy learns from its prefixes, the guide's critic from what the guide played behind them."""
    found = flatten_guided(groups)
    policy_mask, value_mask = guided_masks(found.positions, found.prefix, mode="aggrevated")
    batch = with_logprobs(run, found.tokens, objective)
    with run.learning():
        values = guide.values(batch)
    estimate = estimator(batch, values)
    batch = batch.with_columns(values=values, advantages=estimate.advantages, returns=estimate.returns)
    metrics: dict[str, float] = {}
    settings = run.config.learner
    with run.learning():
        # Without a prefix there is nothing of the policy's own: such a step trains the critic alone.
        if turns := (policy_mask & found.own).nonzero().flatten().tolist():
            part = batch.select_turns(turns)
            metrics = run.learner.update(
                part, objective, minibatches=settings.minibatches, epochs=settings.epochs, fit_critic=False
            )
        if turns := value_mask.nonzero().flatten().tolist():
            metrics |= guide.fit(batch, turns, updates=settings.epochs)
    return metrics


def with_logprobs(run: Training, batch: TokenBatch, objective: PolicyObjective) -> TokenBatch:
    """The batch with log-probs of the weights that the update begins with, by the learner, whoever wrote a token."""
    with run.learning():
        old = run.learner.logprobs(batch)
        reference = run.learner.reference_logprobs(batch) if objective.needs_reference else None
    return batch.with_columns(logprobs_old=old, logprobs_ref=reference)


def require_states(config: RlgfConfig) -> None:
    """Raises ConfigError, before any weight is loaded, where no episode can begin in the midst of another one."""
    world = open_world(config.world)
    snapshots = world.snapshots
    close_play(world, None, None)
    if snapshots == "none":
        raise ConfigError(
            f"RLGF begins episodes in the midst of others, and {world.name} can neither restore a state nor repeat its "
            "episodes (`snapshots = 'none'`): use a world that can"
        )


if __name__ == "__main__":
    run_recipe(main)
