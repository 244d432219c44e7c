"""PPO with a token critic on multi-turn episodes.

    for each step:
        collect     episodes
        score       every episode by the reward; optionally a KL penalty per token inside the reward
        values      of every action token by the critic, one position before the token; with `bootstrap_truncated` also
                    of the prompt that would have come next where a limit cut the episode (where that did not fit
                    into the context, of the state right behind the last action)
        advantages  by GAE over action tokens, turns, or both levels; whitened over the batch
        update      clipped policy loss and clipped critic loss, several epochs of minibatches
        sync        the engine to the new weights

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/ppo.py recipes/text/maze_ppo.yaml

Sources: arXiv:1707.06347 (PPO), arXiv:1506.02438 (GAE).
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rollwright.batching import (
    VALUE_ADVANTAGES,
    TokenBatch,
    ValueAdvantage,
    can_whiten,
    flatten,
    states_after_cuts,
    with_kl,
    with_members,
)
from rollwright.config import OWN, Readers, build_part
from rollwright.critics import TokenCriticFit, reading
from rollwright.learner import CriticSettings, Learner, PolicyLossSettings, objective_of
from rollwright.maths.advantages import whiten
from rollwright.training import PolicyLoopConfig, Training, plan_text, recipe_config, run_recipe


class AlgorithmSettings(PolicyLossSettings):
    """PPO's own settings."""

    advantage: Annotated[str, VALUE_ADVANTAGES] = Field(
        "gae", description="Advantage estimator: GAE over tokens, over turns, or on both levels; or your own estimator."
    )
    advantage_options: dict[str, Any] = Field({}, description="Arguments of your own estimator.")
    gamma: float = Field(1.0, ge=0, le=1, description="Discount per action token.")
    turn_gamma: float = Field(1.0, ge=0, le=1, description="Discount per turn.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Lambda of GAE.")
    whiten: bool = Field(True, description="Whiten the advantages over the batch.")
    kl_in_reward: float = Field(0.0, ge=0, description="Coefficient of a per-token KL penalty (k1) inside the reward.")
    bootstrap_truncated: bool = Field(
        False, description="Bootstrap an episode cut by a limit from the value of its last state."
    )

    only_for: ClassVar[Readers] = {
        **PolicyLossSettings.only_for,
        "advantage_options": {"advantage": (OWN,)},
        "gae_lambda": {"advantage": tuple(VALUE_ADVANTAGES.ours)},
        "gamma": {"advantage": ("gae", "bilevel_v1", "bilevel_v2")},
        "turn_gamma": {"advantage": ("turn_gae", "bilevel_v1", "bilevel_v2")},
    }


class CriticConfig(TokenCriticFit):
    """The token critic."""

    clip_eps: float | None = Field(None, description="Maximum change of a value in one update; null = not limited.")

    only_for: ClassVar[Readers] = {**TokenCriticFit.only_for, "clip_eps": {"loss": ("squared",)}}


class PpoConfig(PolicyLoopConfig):
    """Everything a PPO run reads."""

    critic: CriticConfig = CriticConfig()
    algorithm: AlgorithmSettings = AlgorithmSettings()


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(PpoConfig, argv, plan=plan_text)
    algorithm = config.algorithm
    estimator: ValueAdvantage = build_part(algorithm, "advantage")
    objective = objective_of(algorithm)
    fit = config.critic
    critic = CriticSettings(kind=fit.kind, learning_rate=fit.learning_rate, loss=build_part(fit, "loss"))
    needs_reference = objective.needs_reference or algorithm.kl_in_reward > 0

    with Training.start(config, reference=needs_reference, critic=critic) as run:
        for step in run.steps():
            groups = run.collect(step)
            groups = run.score(groups)
            # A single token has no spread, so it cannot be whitened.
            if not with_members(groups, 1) or (algorithm.whiten and not can_whiten(groups)):
                # No sync: the engine has these weights already.
                run.finish(step, groups, {"optim/skipped_count": 1.0})
                continue
            batch = flatten(groups)
            with run.learning():
                # Values and log-probs are those of the weights that the update begins with.
                values, ends = read_values(run.learner, batch, after_cuts=algorithm.bootstrap_truncated)
                old = run.learner.logprobs(batch)
                reference = run.learner.reference_logprobs(batch) if needs_reference else None
            batch = batch.with_columns(values=values, logprobs_old=old, logprobs_ref=reference)
            if algorithm.kl_in_reward > 0:
                batch = with_kl(batch, kl_coef=algorithm.kl_in_reward)
            estimate = estimator(batch, values, ends)
            advantages = whiten(estimate.advantages) if algorithm.whiten else estimate.advantages
            batch = batch.with_columns(advantages=advantages, returns=estimate.returns)
            metrics = run.update(batch, objective)
            run.sync()
            run.finish(step, groups, metrics)


def read_values(learner: Learner, batch: TokenBatch, *, after_cuts: bool) -> tuple[Tensor, Tensor | None]:
    """[N] the critic before each action token, and [S] behind each trajectory that a limit cut (0 for the others).

    Args:
        after_cuts: False reads nothing behind the cuts: the second is None.
    """
    if not after_cuts:
        return learner.values(batch), None
    states = states_after_cuts(batch)
    # Their numbers lie beyond all sequences of the batch, so that none of those goes on in them.
    behind = [reading(ids, owner=len(batch.segments) + s) for s, ids in states.items()]
    found = learner.values(TokenBatch.of([*batch.segments, *behind]))
    # Nothing follows where the task itself has ended.
    ends = torch.zeros(batch.num_sequences)
    # The states behind the cuts were laid after the batch, one value each.
    ends[list(states)] = found[len(batch) :]
    return found[: len(batch)], ends


if __name__ == "__main__":
    run_recipe(main)
