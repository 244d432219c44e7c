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
from torch import Tensor

from rollwright.batching import TokenBatch, flatten, with_members
from rollwright.config import Readers, Unread
from rollwright.contracts import ConfigError, DataError, Group
from rollwright.critics import (
    StepValue,
    StepValueFit,
    SuccessChance,
    ValueRows,
    WeightedLikelihood,
    open_step_value,
    save_step_value,
)
from rollwright.learner import PolicyLossSettings, objective_of
from rollwright.maths import ranking_accuracy
from rollwright.maths.advantages import turn_gae
from rollwright.methods import end_rows, paths_to_imitate, step_pairs, value_rows
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
NOTHING_FOUND = (
    "phase 1 found no success in any tree of {world} (algorithm.phase_one_steps={steps}), so that there is nothing to "
    "imitate and the value model was never fitted: raise search.simulations or algorithm.phase_one_trees, take easier "
    "tasks, or a start that succeeds at times (model.path)"
)
EQUAL = 1e-6
"""How far a return may be from 0 or 1 by rounding."""


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
    # A tree that is grown to learn from goes on where one that decides would be done.
    stop_at_end: bool = Field(
        False, description="puct: end the search where it selects an ended state; else such states are left out."
    )


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
            first = step < algorithm.phase_one_steps
            method.begin(step, first=first)
            trees, groups = collect_trees(run, step, method.search, value=method.judge, count=method.count)
            groups = run.score(groups)
            told = {"reasoner/phase": 1.0 if first else 2.0} | tree_metrics(trees) | method.ranked(trees)
            metrics = method.imitate_and_judge(trees) if first else method.improve(trees, groups)
            if metrics:
                run.sync()
            run.finish(step, groups, told | (metrics or {"optim/skipped_count": 1.0}))
        save_step_value(method.value, config.critic, run.folder.path / "value")


class Reasoner:
    """The value model beside the policy, and what each phase makes of a step's trees.

    Attributes:
        search, judge, count: how the trees of the step are grown, what values their states, and how many.
    """

    search: SearchSettings
    judge: SuccessChance | None
    count: int

    def __init__(self, run: Training, config: ReasonerConfig) -> None:
        self.run, self.config, self.algorithm = run, config, config.algorithm
        self.objective = objective_of(config.algorithm)
        self.value = open_step_value(config, run.learner, run.codec, config.critic)
        run.attach(self.value)

    def begin(self, step: int, *, first: bool) -> None:
        """Enter a step. Raises DataError where phase 2 begins and phase 1 has found nothing."""
        if not first and not self.value.fitted:
            world, steps = self.config.world.name, self.algorithm.phase_one_steps
            raise DataError(NOTHING_FOUND.format(world=world, steps=steps))
        self.draws = np.random.default_rng([self.config.run.seed, step])
        self.judge = None if first else SuccessChance(self.value)
        self.count = self.algorithm.phase_one_trees if first else 0
        rule = self.algorithm.phase_one_rule
        known = {"rule": rule, "value": "none" if rule == "uct" else "rollouts", "rollouts": self.algorithm.rollouts}
        # A ratio needs trees that are sampled at the temperature of the learner's log-probs.
        told = (known if first else {"value": "critic"}) | {"temperature": self.config.rollout.temperature}
        self.search = self.config.search.model_copy(update=told)

    def imitate_and_judge(self, trees: Sequence[SearchTree]) -> dict[str, float]:
        """Phase 1: cross-entropy on the paths that were found, values of the trees' states; nothing without a success.

        Raises ConfigError where a world pays something else than success: the trees of phase 2 could not use it.
        """
        require_success_alone_pays(trees)
        paths = paths_to_imitate(trees)
        if not paths:
            log.warning("none of %d trees holds a success: nothing is imitated in this step", len(trees))
            return {}
        batch = flatten(paths)
        batch = batch.with_columns(advantages=torch.ones(len(batch)))
        with self.run.learning():
            metrics = self.run.learner.update(
                batch,
                # Every token counts the same, as in supervised fine-tuning.
                WeightedLikelihood(aggregation="token-mean"),
                minibatches=min(self.config.learner.minibatches, batch.num_sequences),
                epochs=self.algorithm.imitation_epochs,
            )
            metrics |= self.value.fit(value_rows(trees, self.algorithm.targets), draws=self.draws)
        return metrics | {"reasoner/paths_count": float(len(paths))}

    def improve(self, trees: Sequence[SearchTree], groups: Sequence[Group]) -> dict[str, float]:
        """Phase 2: PPO on every judged path, the value model on returns; nothing where no path was judged."""
        judged = with_verdict(groups)
        if not judged:
            return {}
        batch = flatten(judged)
        states = [turn.prompt_ids for turn in batch.turns]
        with self.run.learning():
            # Values and log-probs are those of the weights that the update begins with.
            values = self.value.read(states)[batch.turn_index]
            old = self.run.learner.logprobs(batch)
            reference = self.run.learner.reference_logprobs(batch) if self.objective.needs_reference else None
        steps = {"gamma": self.algorithm.gamma, "gae_lambda": self.algorithm.gae_lambda}
        credit = turn_gae(verdicts(batch), values, batch.turn_index, batch.trajectory_index, **steps)
        batch = batch.with_columns(
            logprobs_old=old, logprobs_ref=reference, advantages=credit.advantages, returns=credit.returns
        )
        metrics = self.run.update(batch, self.objective)
        # Returns, A + V, and not advantages, which the released code has in one place.
        returns = credit.returns[batch.tokens_per_turn.cumsum(0) - 1].clamp(-1, 1)
        rows = ValueRows(states=states, targets=returns, counts=torch.ones(len(states))) + end_rows(trees)
        with self.run.learning():
            metrics |= self.value.fit(rows, draws=self.draws, clip_eps=self.config.critic.clip_eps)
        return metrics | {"reasoner/advantage_mean": float(credit.advantages.mean())}

    def ranked(self, trees: Sequence[SearchTree]) -> dict[str, float]:
        """How well the model ranks steps of trees that it was not yet fitted to; nothing where it was never fitted."""
        better, worse = step_pairs(trees) if self.value.fitted else ([], [])
        found = ranking_accuracy(self.value.read(better), self.value.read(worse)) if better else None
        return {} if found is None else {"reasoner/ranked_frac": found, "reasoner/pairs_count": float(len(better))}


def with_verdict(groups: Sequence[Group]) -> list[Group]:
    """The groups with those episodes alone whose success is known: a path that the search cut says nothing."""
    kept = [g.with_trajectories([t for t in g.trajectories if t.success is not None]) for g in groups]
    return with_members(kept, 1)


def verdicts(batch: TokenBatch) -> Tensor:
    """[N] what the paths earn: 1 for a success and -1 for a failure, at the last token of the path."""
    earned = torch.tensor([1.0 if trajectory.success else -1.0 for trajectory in batch.trajectories])
    return torch.zeros(len(batch)).index_copy(0, batch.lengths.cumsum(0) - 1, earned)


def ranked(value: StepValue, trees: Sequence[SearchTree]) -> dict[str, float]:
    """How well the model ranks steps of trees that it was not yet fitted to; nothing where it was fitted to none."""
    better, worse = step_pairs(trees) if value.fitted else ([], [])
    if not better:
        return {}
    found = ranking_accuracy(value.read(better), value.read(worse))
    return {"reasoner/ranked_frac": float(found or 0.0), "reasoner/pairs_count": float(len(better))}


def require_success_alone_pays(trees: Sequence[SearchTree]) -> None:
    """Raises ConfigError where a path earned something else than its success: it would not compare with a chance."""
    for tree in trees:
        for node in tree.leaves():
            if node.success is not None and node.score is not None and abs(node.score - float(node.success)) > EQUAL:
                raise ConfigError(
                    f"an episode of task {tree.task.id!r} ended with success {node.success} and earned {node.score:g}, "
                    "and the search compares returns with the value model's chance of success: use a world that pays 1 "
                    "for success and nothing else, such as text.household or text.combination_lock"
                )


if __name__ == "__main__":
    run_recipe(main)
