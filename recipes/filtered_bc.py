"""Filtered behaviour cloning: imitate the best of what is stored, or of what the policy itself just did.

    for each step:
        collect   episodes (not in the offline steps), into the store
        filter    the best int(n p) by return (or by the verdict); a seeded draw decides between equals
        update    -log pi of their actions

Offline with `algorithm.offline_steps` and `replay.stores`; online filtered BC (expert iteration) without; both, one
after the other. With `algorithm.top_frac=1` it is plain behaviour cloning: the baseline that every other method has to
beat. Sources: arXiv:2311.18232 (%BC and online %BC of LMRL-Gym); docs/methods/filtered_bc.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/filtered_bc.py recipes/text/maze_filtered.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from rollwright.config import Config, Readers, Unread
from rollwright.contracts import DataError, Group
from rollwright.critics import WeightedLikelihood, imitate, outcomes
from rollwright.store import data_checks
from rollwright.store.replay import ReplaySettings, TurnTable, keep_trajectories, top_trajectories, valid_turns
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

log = logging.getLogger(__name__)


class AlgorithmSettings(Config):
    """What is imitated, and how often."""

    score: Literal["return", "success"] = Field("return", description="Measure by which trajectories are ranked.")
    top_frac: float = Field(0.1, gt=0, le=1, description="Share p of trajectories to imitate, int(n p) of n; 1 = all.")
    positive_only: bool = Field(False, description="success: never imitate a failure, even if few episodes succeed.")
    fresh_only: bool = Field(False, description="Imitate only the episodes of the current step (online %BC).")
    offline_steps: int = Field(0, ge=0, description="Number of initial steps that learn only from `replay.stores`.")
    updates: int = Field(20, ge=1, description="Optimiser steps per step of the run.")
    batch_size: int = Field(64, ge=1, description="Number of turns per optimiser step.")

    only_for: ClassVar[Readers] = {"positive_only": {"score": ("success",)}}


class ReplayMix(ReplaySettings):
    """What is learned from besides the run's own episodes, and in which shares."""

    interventions_frac: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of each batch that are actions of the overseer in the policy's place (HIL-SERL: 0.5); 0 = "
        "as many as there happen to be.",
    )


class FilteredBcConfig(LoopConfig):
    """Everything a filtered BC run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    replay: ReplayMix = ReplayMix()

    unread: ClassVar[Unread] = OWN_UPDATES

    @model_validator(mode="after")
    def _stores_are_imitated(self) -> FilteredBcConfig:
        if self.algorithm.fresh_only and self.replay.stores and not self.algorithm.offline_steps:
            raise ValueError(
                "`algorithm.fresh_only=true` imitates own episodes alone, and without `algorithm.offline_steps` "
                "nothing ever comes of `replay.stores`: leave one of them out"
            )
        return self


def main(argv: list[str] | None = None) -> None:
    """Run filtered behaviour cloning as the configuration says."""
    config = recipe_config(FilteredBcConfig, argv, plan=plan_text)
    algorithm = config.algorithm
    # Before anything is opened: without stores the offline steps would learn from nothing.
    data_checks.require_stores(algorithm.offline_steps, config.replay.stores)
    with Training.start(config) as run:
        replay_loop(run, FilteredBc(run, config))


class FilteredBc(ReplayMethod):
    """The stored turns, and one step of imitating the best of them."""

    def __init__(self, run: Training, config: FilteredBcConfig) -> None:
        self.run, self.config, self.algorithm = run, config, config.algorithm
        self.table = TurnTable(*config.replay.stores, run.store, may_be_empty=True)
        # Ids of another tokenizer would be learned as other words.
        data_checks.require_own_tokens(config.replay.stores, self.table, run.codec, run.learner.policy)
        # Without offline steps the table may be empty at first: the run fills it.
        if self.algorithm.offline_steps:
            require_a_choice(self.table, self.algorithm)

    def begin(self, step: int) -> bool:
        """Offline steps collect nothing."""
        return step >= self.algorithm.offline_steps

    def draw(self, step: int, groups: Sequence[Group]) -> None:
        """The turns of the best trajectories."""
        # Counted before `refresh` takes in what this step has collected.
        known = len(self.table.trajectories)
        self.table.refresh()
        # Offline steps have no groups and learn from all that is stored.
        first = known if self.algorithm.fresh_only and groups else 0
        self.turns = best(self.table, self.algorithm, first=first, seed=self.config.run.seed)
        self.marked = None
        if self.config.replay.interventions_frac:
            self.turns, self.marked = with_interventions(self.table, self.turns)

    def update(self) -> dict[str, float]:
        """Behaviour cloning of them."""
        metrics = imitate(
            self.run.learner,
            self.table,
            self.turns,
            np.ones(len(self.turns)),
            updates=self.algorithm.updates,
            batch_size=self.algorithm.batch_size,
            draws=self.draws,
            # Every token counts the same, as in supervised fine-tuning.
            loss=WeightedLikelihood(aggregation="token-mean"),
            marked=self.marked,
            marked_frac=self.config.replay.interventions_frac,
        )
        return metrics | {"bc/turns_count": float(len(self.turns))}


def with_interventions(table: TurnTable, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The turns with every intervention of the table behind them, good episode or not; [n] bool, which those are."""
    valid = valid_turns(table)
    by_human = table.column("intervened").astype(bool)
    # Each turn is of one kind, so that the share of a batch is exact.
    turns, found = turns[~by_human[turns]], valid[by_human[valid]]
    if not len(found):
        log.warning("`replay.interventions_frac` is set, and nobody has intervened yet: all of a batch is ordinary")
    marks = np.zeros(len(turns) + len(found), bool)
    marks[len(turns) :] = True
    return np.concatenate([turns, found]), marks


def best(table: TurnTable, algorithm: AlgorithmSettings, *, first: int, seed: int = 0) -> np.ndarray:
    """Turns of the best trajectories from number `first` on; `seed` draws between equals, in each step alike."""
    turns = valid_turns(table)
    turns = turns[table.owners()[turns] >= first]
    owners = np.unique(table.owners()[turns])
    chosen = top_trajectories(
        merits(table, algorithm),
        algorithm.top_frac,
        rng=np.random.default_rng(seed),
        positive_only=algorithm.positive_only,
        # The share is one of the trajectories that have a turn to learn from.
        among=owners,
    )
    return keep_trajectories(table, chosen, among=turns)


def merits(table: TurnTable, algorithm: AlgorithmSettings) -> np.ndarray:
    """[S] what the best are the best in."""
    return outcomes(table) if algorithm.score == "success" else table.trajectories["total_reward"]


def require_a_choice(table: TurnTable, algorithm: AlgorithmSettings) -> None:
    """What is stored must hold something to imitate, and something worse unless all of it is imitated.

    Raises:
        DataError: it does not.
    """
    turns = valid_turns(table)
    data_checks.require_turns(table, turns)
    if algorithm.top_frac < 1 and not algorithm.positive_only:
        data_checks.require_outcomes(table, turns, merits(table, algorithm) if algorithm.score == "success" else None)
    if not len(best(table, algorithm, first=0)):
        raise DataError("none of the stored episodes succeeded, and algorithm.positive_only imitates no failure")


if __name__ == "__main__":
    run_recipe(main)
