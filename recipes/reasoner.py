"""The reasoning blueprint's two phases: imitate what a search finds, then search with what was learned.

    phase 1, for each step (one, in the paper):
        grow      trees by the policy; how their paths end says what a state is worth, as the verdict is known
        imitate   the shortest successful path of each tree: cross-entropy
        value     V(s) -> what the tree says of its states, each weighed by its counts; output 2 sigmoid(z) - 1
        sync      the engine to the new weights
    phase 2, for each step:
        grow      trees by the policy; the value model says what a state is worth
        credit    GAE over the steps of every path that ended, 1 for success, -1 for failure; all tokens of a step alike
        update    PPO's clipped loss + KL to the starting policy - entropy
        value     V(s) -> A + V, moved by `critic.clip_eps` at most
        sync      the engine to the new weights

The world must have snapshots, and pay 1 for success and nothing else: the search compares the model's chance of success
with the return of ended paths. The value model is kept in `<run>/value`: `recipes/evaluate.py` searches with it, where
no verdict is known. Source: arXiv:2501.11223 and its released framework; see docs/methods/reasoner.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/reasoner.py recipes/text/household_reasoner.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from rollwright.batching import flatten
from rollwright.config import Readers, Unread
from rollwright.contracts import DataError, Group
from rollwright.critics import (
    StepValue,
    StepValueFit,
    SuccessChance,
    WeightedLikelihood,
    open_step_value,
    save_step_value,
)
from rollwright.learner import PolicyLossSettings, objective_of
from rollwright.methods import (
    end_rows,
    path_credit,
    paths_to_imitate,
    ranked_pairs,
    require_success_alone_pays,
    return_rows,
    value_rows,
    with_verdict,
)
from rollwright.rollout.trees import SearchSettings, SearchTree, require_search
from rollwright.training import (
    PolicyLoopConfig,
    Training,
    close_play,
    collect_trees,
    open_world,
    plan_text,
    recipe_config,
    run_recipe,
    tree_metrics,
)

log = logging.getLogger(__name__)


class AlgorithmSettings(PolicyLossSettings):
    """The two phases. The loss of phase 2 has the blueprint's coefficients."""

    # Phase 2 asks a value model that phase 1 has fitted, so there is always a first step of it.
    phase_one_steps: int = Field(
        1,
        ge=1,
        description="Number of initial steps in phase 1; with 1, as in the paper, the start grows all its trees.",
    )
    phase_one_trees: int = Field(0, ge=0, description="Trees per step of phase 1; 0 = rollout.groups_per_step.")
    imitation_epochs: int = Field(4, ge=1, description="Phase 1: passes over the paths that were found, per step.")
    targets: Literal["ends", "search"] = Field(
        "ends",
        description="Phase 1: a state is worth the share of ends below it that succeeded, or what was backed up.",
    )
    phase_one_rule: Literal["uct", "puct"] = Field(
        "uct",
        description="Phase 1: uct plays every iteration to an end; puct values new states by episodes played on from"
        " them, of which the returns alone are kept.",
    )
    rollouts: int = Field(1, ge=1, description="phase_one_rule=puct: episodes played on from each new state.")
    gamma: float = Field(0.96, gt=0, le=1, description="Discount per step.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Lambda of GAE.")
    kl_coef: float = Field(0.01, ge=0, description="Coefficient of the KL to the starting policy; 0 = none.")
    # The value of k3 and the gradient of the KL: the released estimate is neither.
    kl_kind: Literal["k2", "k3", "abs", "k3+"] = Field("k3+", description="Estimator of that KL.")
    entropy_coef: float = Field(0.01, ge=0, description="Coefficient of the entropy bonus.")

    only_for: ClassVar[Readers] = {**PolicyLossSettings.only_for, "rollouts": {"phase_one_rule": ("puct",)}}


class SearchOfPhases(SearchSettings):
    """How trees are grown; phase 1 has a rule of its own."""

    rule: Literal["puct", "uct"] = Field("puct", description="Phase 2: the blueprint's tree, or Agent-R's.")
    children: int = Field(2, ge=1, description="Answers sampled in each expanded state; equal actions count once.")


class ReasonerConfig(PolicyLoopConfig):
    """Everything a run of the two phases reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    critic: StepValueFit = StepValueFit()
    search: SearchOfPhases = SearchOfPhases()

    unread: ClassVar[Unread] = {
        "rollout.group_size": "search.simulations says how much is tried from one start",
        "rollout.max_staleness": "trees are grown by the weights of the step",
        "rollout.refills": "a child that a fault took is not replaced",
        "search.value": "algorithm.rollouts in phase 1, the value model in phase 2",
        "search.rollouts": "algorithm.rollouts",
        "search.temperature": "rollout.temperature",
    }

    def search_in(self, phase: int) -> SearchSettings:
        """How the trees of a phase are grown."""
        rule = self.algorithm.phase_one_rule
        known = {"rule": rule, "value": "none" if rule == "uct" else "rollouts", "rollouts": self.algorithm.rollouts}
        # A ratio needs trees that are sampled at the temperature of the learner's log-probs.
        told = (known if phase == 1 else {"value": "critic"}) | {"temperature": self.rollout.temperature}
        return self.search.model_copy(update=told)

    def require_found(self, value: StepValue) -> None:
        """Raises DataError where phase 2 begins and phase 1 has found nothing."""
        if not value.fitted:
            raise DataError(
                f"phase 1 found no success in any tree of {self.world.name} (algorithm.phase_one_steps="
                f"{self.algorithm.phase_one_steps}), so that there is nothing to imitate and the value model was never "
                "fitted: raise search.simulations or algorithm.phase_one_trees, take easier tasks, or a start that "
                "succeeds at times (model.path)"
            )


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(ReasonerConfig, argv, plan=plan_text)
    algorithm = config.algorithm
    world = open_world(config.world)
    close_play(world, None, None)
    # Before any weight is loaded.
    require_search(world, config.search)
    with Training.start(config, reference=algorithm.kl_coef > 0) as run:
        method = Reasoner(run, config)
        for step in run.steps():
            method.draws = np.random.default_rng([config.run.seed, step])
            phase = 1 if step < algorithm.phase_one_steps else 2
            if phase == 2:
                config.require_found(method.value)
            judge = SuccessChance(method.value) if phase == 2 else None
            count = algorithm.phase_one_trees if phase == 1 else 0
            trees, groups = collect_trees(run, step, config.search_in(phase), value=judge, count=count)
            groups = run.score(groups)
            told = {"reasoner/phase": float(phase)} | tree_metrics(trees) | ranked_pairs(method.value, trees)
            metrics = method.imitate_and_judge(trees) if phase == 1 else method.improve(trees, groups)
            if metrics:
                run.sync()
            run.finish(step, groups, told | (metrics or {"optim/skipped_count": 1.0}))
        save_step_value(method.value, config.critic, run.folder.path / "value", tokenizer=run.codec.tokenizer)


class Reasoner:
    """The value model beside the policy, and what each phase makes of a step's trees."""

    draws: np.random.Generator

    def __init__(self, run: Training, config: ReasonerConfig) -> None:
        self.run, self.config, self.algorithm = run, config, config.algorithm
        self.objective = objective_of(config.algorithm)
        self.value = open_step_value(config, run.learner, run.codec, config.critic)
        run.attach(self.value)

    def imitate_and_judge(self, trees: Sequence[SearchTree]) -> dict[str, float]:
        """Phase 1: cross-entropy on the paths that were found, values of the states; nothing without a success."""
        require_success_alone_pays(trees)
        paths = paths_to_imitate(trees)
        if not paths:
            log.warning("none of %d trees holds a success: nothing is imitated in this step", len(trees))
            return {}
        batch = flatten(paths)
        batch = batch.with_columns(advantages=torch.ones(len(batch)))
        # Every token counts the same, as in supervised fine-tuning.
        loss, parts = WeightedLikelihood(aggregation="token-mean"), self.config.learner.minibatches
        parts, epochs = min(parts, batch.num_sequences), self.algorithm.imitation_epochs
        with self.run.learning():
            metrics = self.run.learner.update(batch, loss, minibatches=parts, epochs=epochs)
            metrics |= self.value.fit(value_rows(trees, self.algorithm.targets), draws=self.draws)
        return metrics | {"reasoner/paths_count": float(len(paths))}

    def improve(self, trees: Sequence[SearchTree], groups: Sequence[Group]) -> dict[str, float]:
        """Phase 2: PPO on every judged path, the value model on returns; nothing where no path was judged."""
        judged = with_verdict(groups)
        if not judged:
            return {}
        batch = flatten(judged)
        with self.run.learning():
            # Values and log-probs are those of the weights that the update begins with.
            values = self.value.read([turn.prompt_ids for turn in batch.turns])
            old = self.run.learner.logprobs(batch)
            reference = self.run.learner.reference_logprobs(batch) if self.objective.needs_reference else None
        credit = path_credit(batch, values, gamma=self.algorithm.gamma, gae_lambda=self.algorithm.gae_lambda)
        batch = batch.with_columns(logprobs_old=old, logprobs_ref=reference, advantages=credit.advantages)
        metrics = self.run.update(batch, self.objective)
        # Returns, A + V, and not advantages, which the released code has in one place.
        rows = return_rows(batch, credit.returns) + end_rows(trees)
        with self.run.learning():
            metrics |= self.value.fit(rows, draws=self.draws, clip_eps=self.config.critic.clip_eps)
        return metrics | {"reasoner/advantage_mean": float(credit.advantages.mean())}


if __name__ == "__main__":
    run_recipe(main)
