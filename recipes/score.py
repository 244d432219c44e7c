"""SCoRe: learn to correct one's own first attempt, from nothing but the verdict on one's own attempts.

    for each step:
        collect   G groups of K episodes of two attempts; nobody says whether the first one was right
        score     r1 and r2, what each attempt earned by itself
        reward    stage I:  0 for the first attempt, r2 for the second
                  stage II: r1 for the first attempt, r2 + bonus (r2 - r1) for the second
                  each minus its own KL to the model that the run began with, summed over the attempt's tokens
        credit    each attempt against the same attempt in the group's other episodes
        update    -A log pi of both attempts' tokens, one step on fresh samples
        sync      the engine to the new weights

Stage I pins the first attempt to the base model by a strong KL (`first_kl`) and moves the second one alone: without it
the policy learns to repeat its first answer. Stage II then rewards progress. `algorithm.stage_one_steps=0` leaves stage
I out, `algorithm.bonus=0` the bonus: the paper's two ablations; both together are plain two-turn RL. With
`algorithm.turn_gamma=1` the first attempt is also credited with what the second earned, and the bonus then pays for
being wrong first. Source: arXiv:2409.12917; see docs/methods/score.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/score.py recipes/text/attempts_score.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rollwright.batching import (
    TokenBatch,
    attempt_kl_metrics,
    attempt_numbers,
    flatten,
    observed_attempts,
    require_reward_per_attempt,
    with_members,
)
from rollwright.config import Config
from rollwright.contracts import ConfigError
from rollwright.learner import PolicyObjective, Reinforce, open_base, require_stage_base
from rollwright.maths import attempt_returns, kl_to_go, leave_one_out_by_attempt, progress_rewards, segment_sum
from rollwright.training import LoopConfig, Training, close_play, open_world, plan_text, recipe_config, run_recipe


class AlgorithmSettings(Config):
    """SCoRe's own settings."""

    stage_one_steps: int = Field(
        50, ge=0, description="Number of initial steps in stage I; 0 = no stage I (the paper's ablation)."
    )
    bonus: float = Field(10.0, ge=0, description="Stage II: weight alpha of the gain over the first attempt; 0 = none.")
    kl: float = Field(0.01, ge=0, description="KL coefficient beta_1: second attempt in stage I, both in stage II.")
    first_kl: float = Field(0.1, ge=0, description="Stage I: KL coefficient beta_2 of the first attempt.")
    kl_credit: Literal["attempt", "token"] = Field(
        "attempt",
        description="Where the KL is charged: summed, in its attempt's reward; or to each token what its attempt still "
        "pays from there on, after the baseline.",
    )
    base: str = Field(
        "",
        description="Model of the KL in a run that goes on with stage II alone; empty = the one that it begins with.",
    )
    turn_gamma: float = Field(
        0.0, ge=0, le=1, description="Share of the second attempt's return credited to the first; 0 = turn-local."
    )
    aggregation: Literal["seq-mean-token-sum", "token-mean"] = Field(
        "seq-mean-token-sum", description="How token losses are reduced to one number."
    )


class ScoreConfig(LoopConfig):
    """Everything a SCoRe run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()

    @model_validator(mode="after")
    def _samples_are_fresh(self) -> ScoreConfig:
        learner, rollout = self.learner, self.rollout
        if learner.epochs * learner.minibatches > 1 or rollout.max_staleness:
            raise ValueError(
                f"SCoRe takes one step on fresh samples, without a ratio; got learner.epochs={learner.epochs}, "
                f"learner.minibatches={learner.minibatches}, rollout.max_staleness={rollout.max_staleness}. "
                "Set the first two to 1 and the third to 0"
            )
        if self.reward.name == "success":
            raise ValueError(
                "`reward.name=success` gives one score for the whole episode, and SCoRe compares what each "
                "attempt earned by itself: use env, or a reward that gives `turn_parts`"
            )
        if rollout.group_size < 2:
            raise ValueError(
                "SCoRe compares each attempt with the same attempt in the group's other episodes, but "
                "`rollout.group_size` is 1: use 2 or more"
            )
        return self


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(ScoreConfig, argv, plan=plan_text)
    algorithm = config.algorithm
    require_two_attempts(config)
    require_stage_base(config.model.path, algorithm.base, stage_one_steps=algorithm.stage_one_steps)
    # One step on fresh samples needs neither a ratio nor a correction.
    objective = PolicyObjective(loss=Reinforce(), aggregation=algorithm.aggregation, correction="none")
    # Both stages hold the policy near the same model: the one that stage I begins with.
    with Training.start(config, reference=not algorithm.base) as run:
        temperature = config.rollout.temperature
        base_logprobs = open_base(algorithm.base, run.learner, run.codec.tokenizer, temperature=temperature)
        for step in run.steps():
            first_stage = step < algorithm.stage_one_steps
            groups = run.score(run.collect(step))
            require_reward_per_attempt(groups)
            told = {"attempts/stage": 1.0 if first_stage else 2.0} | observed_attempts(groups)
            # Attempts are compared with those of other episodes, so one alone teaches nothing.
            teaching = with_members(groups, 2)
            if not teaching:
                run.finish(step, groups, told | {"optim/skipped_count": 1.0})
                continue
            batch = flatten(teaching, min_members=2)
            with run.learning():
                # Both by the learner, whose log-probs differ from the engine's by rounding.
                old = run.learner.logprobs(batch)
                log_ratios = old - base_logprobs(batch)
            # [U] the log-ratio of each attempt, summed over its tokens.
            kl = segment_sum(log_ratios, batch.turn_index, len(batch.turns))
            advantages = credit(batch, kl, algorithm, first_stage=first_stage)[batch.turn_index]
            if algorithm.kl_credit == "token":
                advantages = advantages - token_kl(batch, log_ratios, algorithm, first_stage=first_stage)
            batch = batch.with_columns(logprobs_old=old, advantages=advantages)
            metrics = run.update(batch, objective)
            run.sync()
            run.finish(step, groups, told | attempt_kl_metrics(batch, kl) | metrics)


def credit(batch: TokenBatch, kl: Tensor, algorithm: AlgorithmSettings, *, first_stage: bool) -> Tensor:
    """[U] advantage of every attempt. kl: [U] log-ratio to the reference, summed over each attempt's tokens."""
    attempts, owners = attempt_numbers(batch.turns), batch.trajectory_index
    first = attempts == 0
    if first_stage:
        # The first attempt earns nothing here; its KL alone acts on it.
        rewards = torch.where(first, torch.zeros_like(batch.turn_rewards), batch.turn_rewards)
    else:
        rewards = progress_rewards(batch.turn_rewards, owners, attempts, bonus=algorithm.bonus)
    if algorithm.kl_credit == "attempt":
        # k1 within the reward of the own attempt: the paper leaves open how the KL enters.
        rewards = rewards - coefficients(batch, algorithm, first_stage=first_stage) * kl
    # With the bonus, turn_gamma = 1 pays a wrong first attempt for being corrected.
    returns = attempt_returns(rewards, owners, attempts, turn_gamma=algorithm.turn_gamma)
    # A baseline over both attempts would couple them again.
    return leave_one_out_by_attempt(returns, batch.group_index[owners], attempts)


def coefficients(batch: TokenBatch, algorithm: AlgorithmSettings, *, first_stage: bool) -> Tensor:
    """[U] the KL coefficient of every attempt: beta_2 holds the first one in stage I, everything else has beta_1."""
    pinned = algorithm.first_kl if first_stage else algorithm.kl
    return torch.where(attempt_numbers(batch.turns) == 0, pinned, algorithm.kl)


def token_kl(batch: TokenBatch, log_ratios: Tensor, algorithm: AlgorithmSettings, *, first_stage: bool) -> Tensor:
    """[N] what is taken off each token's advantage. log_ratios: [N] to the base."""
    each = coefficients(batch, algorithm, first_stage=first_stage)[batch.turn_index]
    return kl_to_go(log_ratios, batch.turn_index, len(batch.turns), each)


def require_two_attempts(config: ScoreConfig) -> None:
    """Raises ConfigError, before any weight is loaded, where the world does not play two attempts of one turn each."""
    world = open_world(config.world)
    attempts = getattr(world, "attempts", 1)
    close_play(world, None, None)
    if attempts != 2:
        raise ConfigError(
            f"SCoRe needs a world of two attempts at each task, and {world.name} has {attempts}: use code.correction, "
            "text.second_attempt, or a world of yours with `attempts = 2` that numbers its turns (StepResult.attempt)"
        )


if __name__ == "__main__":
    run_recipe(main)
