"""DigiRL: imitate the surprising successes, and in them the steps that helped. Offline, online, or one after the other.

    for each step:
        collect   episodes (not in the offline steps), into the store; nothing more while it warms up (replay.*, WSRL)
        filter    the trajectories whose outcome exceeds what the instruction promised: r - V_instr(c), best tenth
        fit       V_instr and V_step by cross-entropy on the outcome
        advantage of each step of the kept trajectories; keep those above the threshold
        update    -log pi of the kept actions
        sync      the engine to the new weights

`algorithm.form` is "paper" (doubly robust advantage, threshold 1/H) or "released" (the trainer's own formula, threshold
0): the two differ, and results of one are not results of the other. `algorithm.actor=awr` weighs by exp(A / beta) in
place of the filters (eq. 4.1). Sources: arXiv:2406.11896 and its released code; see docs/methods/digirl.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/digirl.py recipes/text/maze_digirl.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from rollwright.config import Config, Readers, Unread
from rollwright.contracts import ConfigError, Group
from rollwright.critics import (
    TurnCriticFit,
    WeightedLikelihood,
    fit_instructions,
    fit_states,
    imitate,
    instruction_prompts,
    open_turn_critic,
    outcome_steps,
    outcomes,
    success_probability,
)
from rollwright.maths import outcome_loss
from rollwright.maths.advantages import awr_weights, digirl, digirl_released
from rollwright.store import data_checks
from rollwright.store.replay import OnlineReplaySettings, best_trajectories, keep_trajectories, valid_turns
from rollwright.training import (
    OWN_UPDATES,
    LoopConfig,
    PhasedMethod,
    ReplayPhases,
    Training,
    plan_text,
    recipe_config,
    replay_loop,
    run_recipe,
)


class AlgorithmSettings(Config):
    """The two filters and the actor."""

    form: Literal["paper", "released"] = Field(
        "paper", description="Form of advantage and threshold: as in the paper, or as in the released code."
    )
    actor: Literal["filter", "awr"] = Field(
        "filter", description="Imitate what passes the filters, or weight every turn by exp(A / beta)."
    )
    outcome: Literal["verdict", "reward"] = Field(
        "verdict", description="What counts as a success: the world's verdict where there is one, or a return above 0."
    )
    top_frac: float = Field(0.1, gt=0, le=1, description="Share of trajectories kept by the first filter.")
    positive_only: bool = Field(False, description="Never keep a failed trajectory.")
    decay: float = Field(
        0.5, ge=0, le=1, description="lambda (paper) or gamma (released): how far credit for success reaches back."
    )
    temperature: float = Field(1.0, gt=0, description="awr: beta in exp(A / beta); the weight is capped at 100.")
    offline_steps: int = Field(0, ge=0, description="Number of initial steps that learn only from `replay.stores`.")
    actor_updates: int = Field(20, ge=0, description="Optimiser steps of the policy per step of the run.")
    batch_size: int = Field(64, ge=1, description="Number of turns per optimiser step of the policy.")

    only_for: ClassVar[Readers] = {
        "top_frac": {"actor": ("filter",)},
        "positive_only": {"actor": ("filter",)},
        "temperature": {"actor": ("awr",)},
    }

    @model_validator(mode="after")
    def _failures_must_weigh_less(self) -> AlgorithmSettings:
        if self.actor == "awr" and self.form == "released":
            raise ValueError(
                "`actor=awr` with `form=released` would imitate failures in full: that advantage is cut to [0, 1]; use "
                "form=paper"
            )
        return self

    def require_reachable(self, threshold: float) -> None:
        """Raises ConfigError where no step could pass the second filter: no advantage is above 1."""
        if self.form == "paper" and self.actor == "filter" and threshold >= 1:
            raise ConfigError(
                "algorithm.form=paper keeps steps whose advantage is above 1/H, and with episodes of one turn none can "
                "be: use algorithm.form=released or algorithm.actor=awr"
            )


class DigirlConfig(LoopConfig):
    """Everything a DigiRL run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    replay: OnlineReplaySettings = OnlineReplaySettings()
    instruction_critic: TurnCriticFit = TurnCriticFit()
    step_critic: TurnCriticFit = TurnCriticFit()

    unread: ClassVar[Unread] = OWN_UPDATES

    @model_validator(mode="after")
    def _rewards_are_outcomes(self) -> DigirlConfig:
        if self.algorithm.outcome == "reward":
            self.reward.require_outcomes()
        return self


def main(argv: list[str] | None = None) -> None:
    """Run DigiRL as the configuration says."""
    config = recipe_config(DigirlConfig, argv, plan=plan_text)
    # Before anything is opened: without stores the offline steps would learn from nothing.
    data_checks.require_stores(config.algorithm.offline_steps, config.replay.stores)
    with Training.start(config) as run:
        replay_loop(run, Digirl(run, config))


class Digirl(PhasedMethod):
    """The two critics, the replayed turns, and one step of DigiRL on them."""

    def __init__(self, run: Training, config: DigirlConfig) -> None:
        self.run, self.config, self.algorithm = run, config, config.algorithm
        offline, batch = config.algorithm.offline_steps, config.step_critic.batch_size
        self.phases = ReplayPhases(config.replay, run.store, offline_steps=offline, batch_size=batch)
        fits = {"v_instruction": config.instruction_critic, "v_step": config.step_critic}
        # V_step has two heads, and `success_probability` takes the smaller one.
        heads = {"v_instruction": {"v": 1}, "v_step": {"v": 2}}
        parts, losses = (config, run.learner, run.codec), {"v": outcome_loss}
        self.critics = {
            name: open_turn_critic(*parts, fits[name], heads[name], name=name, losses=losses) for name in fits
        }
        for critic in self.critics.values():
            run.attach(critic)
        # Here, as the horizon may be the world's own and is known once the collector is there.
        self.algorithm.require_reachable(self.horizon)
        self.phases.require_usable(run.codec, run.learner.policy, self.outcomes)

    def outcomes(self) -> np.ndarray:
        """[S] 0 or 1 for every trajectory."""
        return outcomes(self.table, self.algorithm.outcome)

    def draw(self, step: int, groups: Sequence[Group]) -> None:
        """All turns for the critics; for the policy those that the first filter keeps, by the critic as it was."""
        self.turns = valid_turns(self.table)
        # Before the fit: in the released loop, too, V_instr is fitted after the filter of the same step has used it.
        self.kept = self.filter(self.turns)

    def fit(self) -> dict[str, float]:
        """Both values."""
        return self.fit_instructions(self.turns) | self.fit_steps(self.turns)

    def update(self) -> dict[str, float]:
        """Weigh the steps of the kept trajectories, and imitate them."""
        kept, weights = self.kept, self.weigh(self.kept)
        metrics = {
            "digirl/trajectories_kept_count": float(len(np.unique(self.table.owners()[kept]))),
            "digirl/steps_kept_frac": float((weights > 0).mean()) if len(weights) else 0.0,
        }
        steps: Any = {"updates": self.algorithm.actor_updates, "batch_size": self.algorithm.batch_size}
        loss = WeightedLikelihood()  # steps of weight 0 stay in the denominator in both forms
        return metrics | imitate(self.run.learner, self.table, self.kept, weights, **steps, draws=self.draws, loss=loss)

    def filter(self, turns: np.ndarray) -> np.ndarray:
        """Turns of the trajectories whose outcome surprised the instruction critic most."""
        owners = np.unique(self.table.owners()[turns])
        if self.algorithm.actor == "awr" or not len(owners):
            return turns  # eq. 4.1 weighs all turns, so it needs no filter
        promised = success_probability(self.critics["v_instruction"], "v", instruction_prompts(self.table, owners))
        scores = self.outcomes()[owners] - promised.numpy()
        # An outcome of 1 exceeds every promise and one of 0 falls short of it: a positive score is a success.
        best = best_trajectories(scores, self.algorithm.top_frac, positive_only=self.algorithm.positive_only)
        # `best` counts within `scores`, and `owners` leads from there to the table.
        return keep_trajectories(self.table, owners[best], among=turns)

    def fit_instructions(self, turns: np.ndarray) -> dict[str, float]:
        """V_instr: does this instruction end well?"""
        critic, fit = self.critics["v_instruction"], self.config.instruction_critic
        return fit_instructions(critic, fit, self.table, turns, self.outcomes(), self.draws)

    def fit_steps(self, turns: np.ndarray) -> dict[str, float]:
        """V_step on both ends of each transition: does an episode that stands here end well?"""
        critic, fit = self.critics["v_step"], self.config.step_critic
        return fit_states(critic, fit, self.table, turns, self.outcomes(), self.draws)

    def weigh(self, turns: np.ndarray) -> np.ndarray:
        """[n] the weight of each of these turns in the actor's loss."""
        if not len(turns):
            return np.zeros(0)
        steps = outcome_steps(self.critics["v_step"], "v", self.table, turns, self.outcomes())
        args = (steps.values, steps.index, steps.won)
        if self.algorithm.form == "paper":
            # The paper keeps what exceeds 1/H, the released trainer what exceeds 0.
            advantages, threshold = digirl(*args, decay=self.algorithm.decay, last_values=steps.ends), self.horizon
        else:
            advantages, threshold = digirl_released(*args, gamma=self.algorithm.decay, last_values=steps.ends), 0.0
        if self.algorithm.actor == "awr":
            # This needs the advantages themselves, not just which of them pass.
            return awr_weights(advantages, temperature=self.algorithm.temperature).numpy()
        return (advantages > threshold).float().numpy()

    @property
    def horizon(self) -> float:
        """1/H, with H the task's horizon and not the length of an episode."""
        return 1.0 / (self.config.rollout.max_turns or self.run.collector.limits.max_turns)


if __name__ == "__main__":
    run_recipe(main)
