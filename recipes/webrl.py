"""WebRL: phases, each held near the policy that it began with, on tasks that grow out of the failures before it.

    for each phase:
        evolve    new tasks from those that failed, kept where the critic calls them neither solved nor hopeless
        pi_ref := the policy                                        the fixed previous policy of the phase
        replay := stored successes whose actions pi_ref finds neither certain nor surprising (0.5 < p <= 0.95)
        for each step of it:
            collect   episodes of the policy, scored by the run's reward (a verdict or an outcome model)
            fit       V by cross-entropy on the outcome
            advantage lambda (r + V(s') - V(s)) + (1 - lambda) (r_T - V(s))
            update    (beta log(pi / pi_ref) - A)^2 over the new steps and the replayed ones
            sync      the engine to the new weights

`algorithm.form` is "paper" (the above) or "released" (the trainer's own: targets 1 and -0.6, positives only, the
log-ratio per token): the two differ, and results of one are not results of the other. With `phase_steps: 1` a phase is
one collection and one pass over it, as printed. Sources: arXiv:2411.02337 and its released code; docs/methods/webrl.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/webrl.py recipes/text/maze_webrl.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from rollwright.config import Config, Readers, Unread
from rollwright.contracts import Group
from rollwright.critics import (
    SuccessReplay,
    SuccessReplaySettings,
    TurnCriticFit,
    WebRLObjective,
    fit_passes,
    open_turn_critic,
    outcome_steps,
    outcomes,
    shuffled_batches,
    stored_batch,
)
from rollwright.learner import FixedPolicy
from rollwright.maths import outcome_loss
from rollwright.maths.advantages import webrl, webrl_released
from rollwright.store import data_checks, replay
from rollwright.training import (
    OWN_UPDATES,
    LoopConfig,
    ReplayMethod,
    Training,
    plan_text,
    recipe_config,
    replay_loop,
    run_recipe,
)


class AlgorithmSettings(Config):
    """Phases, the advantage, the constrained update."""

    form: Literal["paper", "released"] = Field(
        "paper", description="Form of advantage and loss: as in the paper, or as in the released code."
    )
    phase_steps: int = Field(
        1, ge=1, description="Number of steps per phase; the reference stays fixed within a phase."
    )
    outcome: Literal["reward", "verdict"] = Field(
        "reward", description="What counts as a success: a return above 0, or the world's verdict where there is one."
    )
    beta: float = Field(0.1, gt=0, description="paper: strength of the KL to the phase's reference.")
    advantage_lambda: float = Field(
        0.5, ge=0, le=1, description="paper: mix of the advantage; 1 = TD error, 0 = outcome minus value."
    )
    gamma: float = Field(
        0.9, ge=0, le=1, description="released: discount of the outcome, which is assigned to every turn."
    )
    epochs: int = Field(
        1, ge=1, description="Number of passes of the policy over a step's turns and the replayed ones."
    )
    batch_size: int = Field(128, ge=1, description="Number of turns per optimiser step of the policy.")

    only_for: ClassVar[Readers] = {
        "beta": {"form": ("paper",)},
        "advantage_lambda": {"form": ("paper",)},
        "gamma": {"form": ("released",)},
    }


class CriticFit(TurnCriticFit):
    """The step critic; its optimiser steps are passes over the same turns as the policy's."""

    updates: int = Field(1, ge=0, description="Number of passes over a step's turns.")


class WebrlConfig(LoopConfig):
    """Everything a WebRL run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    replay: SuccessReplaySettings = SuccessReplaySettings()
    step_critic: CriticFit = CriticFit()

    unread: ClassVar[Unread] = OWN_UPDATES

    @model_validator(mode="after")
    def _tasks_change_between_phases(self) -> WebrlConfig:
        if self.algorithm.outcome == "reward":
            self.reward.require_outcomes()
        every, phase = self.curriculum.every, self.algorithm.phase_steps
        if self.curriculum.name == "evolving" and every % phase:
            raise ValueError(
                f"`curriculum.every={every}` would change the tasks inside a phase of `algorithm.phase_steps={phase}` "
                "steps: make it a multiple of that"
            )
        return self


def main(argv: list[str] | None = None) -> None:
    """Run WebRL as the configuration says."""
    config = recipe_config(WebrlConfig, argv, plan=plan_text)
    with Training.start(config) as run:
        replay_loop(run, Webrl(run, config))


class Webrl(ReplayMethod):
    """The critic, the fixed policy of the phase, what is replayed in it, and one step of WebRL on them."""

    def __init__(self, run: Training, config: WebrlConfig) -> None:
        self.run, self.algorithm, self.fits = run, config.algorithm, config.step_critic
        self.rewards_are_the_worlds = config.reward.name == "env"
        self.table = replay.TurnTable(*config.replay.stores, run.store, may_be_empty=True)
        data_checks.require_own_tokens(config.replay.stores, self.table, run.codec, run.learner.policy)
        if config.replay.stores:
            data_checks.require_turns(self.table, replay.valid_turns(self.table))
        # The paper has one head; the released code has two, of which the smaller one counts.
        heads = {"v": 1 if config.algorithm.form == "paper" else 2}
        self.critic = open_turn_critic(
            config, run.learner, run.codec, self.fits, heads, name="v_step", losses={"v": outcome_loss}
        )
        self.reference = FixedPolicy(run.learner, temperature=config.rollout.temperature)
        self.phase = SuccessReplay(self.table, self.reference, config.replay, name="webrl")
        # A run that was killed inside a phase goes on with the phase's own reference and replay.
        for part in (self.critic, self.reference, self.phase):
            run.attach(part)
        run.start_values = lambda prompts: self.critic.read(prompts)["v"].sigmoid().tolist()  # [heads, prompts]

    def begin(self, step: int) -> bool:
        """A phase begins now and then; every step collects."""
        if step % self.algorithm.phase_steps == 0:
            # Before the step collects, so that its own episodes count as new and are not replayed.
            self.phase.begin()
        return True

    def draw(self, step: int, groups: Sequence[Group]) -> None:
        """The step's turns and a share of old ones."""
        # Counted before `refresh` takes in what this step has collected.
        known = len(self.table.trajectories)
        self.table.refresh()
        self.labels, self.valid = outcomes(self.table, self.algorithm.outcome), replay.valid_turns(self.table)
        fresh = self.valid[self.table.owners()[self.valid] >= known]
        self.require_seen()
        old = self.phase.draw(self.valid, self.labels, num_current=len(fresh), draws=self.draws)
        self.turns = np.concatenate([fresh, old])
        self.replayed_frac = len(old) / max(1, len(self.turns))

    def require_seen(self) -> None:
        """Raises DataError where the world's own reward hides its successes; an outcome model may doubt any of them."""
        if self.rewards_are_the_worlds:
            data_checks.require_success_is_seen(self.table, self.valid, self.labels)

    def fit(self) -> dict[str, float]:
        """V by cross-entropy on the outcome (eq. 8): at each state (paper), or at both ends of each step (released)."""
        both = self.algorithm.form == "released"
        return fit_passes(self.critic, self.fits, self.table, self.turns, self.labels, self.draws, both_ends=both)

    def update(self) -> dict[str, float]:
        """The regression of log(pi / pi_ref) on the advantage."""
        if not len(self.turns):
            return {}  # every episode broke
        turns, advantages = self.turns, self.advantages(self.turns)
        released, metrics = self.algorithm.form == "released", {"webrl/positive_frac": float((advantages > 0).mean())}
        # The squared form is eq. 6.
        form: Literal["released", "squared"] = "released" if released else "squared"
        objective = WebRLObjective(form=form, beta=self.algorithm.beta, num_tokens="turn")
        for _ in range(self.algorithm.epochs):
            for places in shuffled_batches(np.arange(len(turns)), self.algorithm.batch_size, self.draws):
                weights = advantages[places]
                if released and not (weights > 0).any():
                    continue  # negative targets carry no loss in this form
                tokens = stored_batch(self.table.transitions(turns[places]), weights.tolist())
                tokens = tokens.with_columns(logprobs_ref=self.reference.logprobs(tokens))
                metrics |= self.run.learner.update(tokens, objective)
        return metrics | {
            "webrl/reference_version": float(self.reference.version),
            "webrl/eligible_count": float(self.phase.num_eligible),
            "webrl/replayed_frac": self.replayed_frac,
        }

    def advantages(self, turns: np.ndarray) -> np.ndarray:
        """[n] of these turns; values are read along the whole trajectories that they belong to."""
        owners = np.unique(self.table.owners()[turns])
        whole = replay.keep_trajectories(self.table, owners, among=self.valid)
        steps = outcome_steps(self.critic, "v", self.table, whole, self.labels)
        args = (steps.values, steps.index, steps.won)
        if self.algorithm.form == "paper":
            # Eq. 9.
            found = webrl(*args, advantage_lambda=self.algorithm.advantage_lambda, last_values=steps.ends)
        else:
            found = webrl_released(*args, gamma=self.algorithm.gamma, last_values=steps.ends)
        # `whole` is in order, so the place of every turn in it can be looked up.
        return found.numpy()[np.searchsorted(whole, turns)]


if __name__ == "__main__":
    run_recipe(main)
