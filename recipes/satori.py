"""Satori: reinforcement learning that restarts from the policy's own solved and failed episodes, and reflects there.

    for each step:
        collect     episodes; two groups in three begin a few turns before the end of an earlier episode of the policy,
                    as often of a solved one (D+) as of a failed one (D-), and their first action begins with a forced
                    reflection; the others begin at the initial state
        score       R = (solved - 1) + sigmoid(outcome model) + bonus: +beta for repairing a failed beginning, -beta
                    for destroying a solved one
        values      of every action token by the critic, one position before the token
        advantages  by GAE over action tokens; normalised over the batch
        update      clipped policy loss without any KL, and the critic's loss
        sync        the engine to the new weights

A segment is a turn: an episode is cut back between two turns and never inside one. What lies before the restart, and
the forced reflection, is context: no loss, no credit. Before it the policy learns the form of the segments by imitation
(`recipes/sft.py` on scripted traces), and the outcome model is fitted to pairs (`recipes/reward_pairs.py`). Round 2
imitates the trained policy from the base model and goes on with `starts=initial`: see docs/methods/satori.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/satori.py recipes/text/reflection_satori.yaml

Source: arXiv:2502.02508.
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from typing import ClassVar

from pydantic import Field, model_validator

from rollwright.batching import can_whiten, flatten, with_members
from rollwright.config import Unread, build_part
from rollwright.critics import TokenCriticFit
from rollwright.learner import CriticSettings, PolicyLossSettings, objective_of
from rollwright.maths.advantages import gae, whiten
from rollwright.training import PolicyLoopConfig, Training, plan_text, recipe_config, run_recipe


class AlgorithmSettings(PolicyLossSettings):
    """Satori's own settings: those of PPO without a KL."""

    gamma: float = Field(1.0, ge=0, le=1, description="Discount per action token.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Lambda of GAE.")


class SatoriConfig(PolicyLoopConfig):
    """Everything a Satori run reads."""

    critic: TokenCriticFit = TokenCriticFit()
    algorithm: AlgorithmSettings = AlgorithmSettings()

    unread: ClassVar[Unread] = dict.fromkeys(
        ("algorithm.kl_coef", "algorithm.kl_kind"), "Satori keeps no reference: its coefficient of the KL is 0"
    )

    @model_validator(mode="after")
    def _restarts_earn_their_bonus(self) -> SatoriConfig:
        if self.starts.name not in ("restarts", "initial"):
            raise ValueError(
                f"`starts.name={self.starts.name}`: Satori restarts from its own episodes (restarts), and begins at "
                "the initial state in round 2 (initial); use recipes/ppo.py with any other kind of start"
            )
        # An unknown status would silently be no restart: without this reward nobody reads it.
        if self.starts.name == "restarts" and self.reward.name in ("env", "success"):
            raise ValueError(
                f"`reward.name={self.reward.name}` pays nothing for repairing a failed beginning: use restart_bonus "
                "(reward.options.beta=0 is the paper's ablation without the bonus), or a reward of your own"
            )
        return self


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(SatoriConfig, argv, plan=plan_text)
    algorithm, fit = config.algorithm, config.critic
    objective = objective_of(algorithm)
    critic = CriticSettings(kind=fit.kind, learning_rate=fit.learning_rate, loss=build_part(fit, "loss"))

    with Training.start(config, critic=critic) as run:
        for step in run.steps():
            # The start of a group says what became of the episode before it, which the reward's bonus reads.
            groups = run.score(run.collect(step))
            # A single token has no spread, so it cannot be normalised.
            if not with_members(groups, 1) or not can_whiten(groups):
                # No sync: the engine has these weights already.
                run.finish(step, groups, {"optim/skipped_count": 1.0})
                continue
            # What lies before a restart is in no turn, and no mask holds the forced reflection.
            batch = flatten(groups)
            with run.learning():
                # Values and log-probs are those of the weights that the update begins with.
                values, old = run.learner.values(batch), run.learner.logprobs(batch)
            estimate = gae(
                batch.rewards,
                values,
                batch.sequence_index,
                num_sequences=len(batch.trajectories),
                gamma=algorithm.gamma,
                gae_lambda=algorithm.gae_lambda,
            )
            batch = batch.with_columns(
                values=values, logprobs_old=old, advantages=whiten(estimate.advantages), returns=estimate.returns
            )
            metrics = run.update(batch, objective)
            run.sync()
            run.finish(step, groups, metrics)


if __name__ == "__main__":
    run_recipe(main)
