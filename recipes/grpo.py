"""GRPO and its critic-free relatives on multi-turn episodes.

    for each step:
        collect   G groups of K episodes, each group from one task and one start state
        score     every episode by the reward; optionally a KL penalty per token inside the reward
        credit    advantage of every action token against its siblings, or against the whole batch
        update    clipped policy gradient on the tokens the policy sampled
        sync      the engine to the new weights

`algorithm.preset` names the method and sets what its paper says: grpo, dr_grpo, dapo, gspo, cispo, rloo, reinforce++,
gigpo. A key that is set wins over the preset; the start of a run says which method it is, or "own mix" and what
differs. `algorithm.advantage` knows more estimators (ReMax, OPO, pass@k, REINFORCE). See docs/methods/grpo.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/grpo.py recipes/web/miniwob_grpo.yaml

Sources: arXiv:2402.03300 (GRPO), arXiv:2503.20783 (Dr. GRPO), arXiv:2402.14740 (RLOO), arXiv:2501.03262 (REINFORCE++),
arXiv:2503.14476 (DAPO), arXiv:2507.18071 (GSPO), arXiv:2506.13585 (CISPO), arXiv:2505.10978 (GiGPO).
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import logging
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rollwright.batching import (
    ADVANTAGES,
    Advantage,
    can_whiten,
    estimator_needs,
    estimators_that_need,
    flatten,
    members_to_learn_from,
    with_kl,
    with_members,
)
from rollwright.config import OWN, Presets, Readers, build_part, keys_without_effect
from rollwright.contracts import Group, World, fingerprint_kind
from rollwright.learner import METHODS, MethodChoice, PolicyLossSettings, method_name, objective_of
from rollwright.maths.losses import Aggregation
from rollwright.rollout import is_informative, met_again_frac
from rollwright.training import PolicyLoopConfig, Training, plan_text, recipe_config, run_recipe

log = logging.getLogger(__name__)


class AlgorithmSettings(PolicyLossSettings, MethodChoice):
    """Which member of the family. The defaults here are those of preset=grpo; another preset brings its own."""

    advantage: Annotated[str, ADVANTAGES] = Field(
        "grpo", description="Advantage estimator: how an episode is compared with its siblings, or your own estimator."
    )
    advantage_options: dict[str, Any] = Field({}, description="Arguments of your own estimator.")
    aggregation: Aggregation = Field("seq-mean-token-mean", description="How token losses are reduced to one number.")
    kl_coef: float = Field(
        0.04, ge=0, description="Coefficient of the KL to the frozen reference as a loss term; 0 = none."
    )
    kl_in_reward: float = Field(
        0.0,
        ge=0,
        description="Coefficient of a per-token KL penalty (k1) inside the reward; no reference is loaded "
        "without any KL.",
    )
    gamma: float = Field(
        1.0, ge=0, le=1, description="Discount per token (reinforce, reinforce++) or per turn (gigpo)."
    )
    gigpo_scale: Literal["none", "std"] = Field(
        "none", description="gigpo: whether to divide by the group's standard deviation."
    )
    step_weight: float = Field(1.0, ge=0, description="gigpo: weight omega of the step-level advantage.")
    drop_equal_groups: bool = Field(
        False,
        description="Leave out groups whose members all earned the same reward (DAPO): their advantages are zero.",
    )
    max_rounds: int = Field(
        1,
        ge=1,
        description="Maximum rounds of collection per step; further rounds replace such groups (DAPO); 1 = no"
        " replacement.",
    )
    min_groups: int = Field(1, ge=1, description="Skip the update when fewer groups than this are informative.")

    only_for: ClassVar[Readers] = {
        **PolicyLossSettings.only_for,
        "advantage_options": {"advantage": (OWN,)},
        "drop_equal_groups": {"advantage": (*estimators_that_need("siblings"), OWN)},
        "max_rounds": {"advantage": (*estimators_that_need("siblings"), OWN), "drop_equal_groups": (True,)},
        "gamma": {"advantage": ("reinforce", "reinforce++", "gigpo")},
        "gigpo_scale": {"advantage": ("gigpo",)},
        "step_weight": {"advantage": ("gigpo",)},
    }
    presets: ClassVar[Presets] = {name: method.keys for name, method in METHODS.items()}

    @property
    def method(self) -> str:
        """The method's name and paper, or "own mix: ..." with what differs."""
        # A key without effect does not make it another method.
        idle = {key for key, *_ in keys_without_effect(self)}
        return method_name({k: v for k, v in self.model_dump().items() if k not in idle}, self.preset)

    @property
    def members(self) -> int:
        """Members to learn from that a group needs."""
        return 2 if estimator_needs(self.advantage, "siblings") else 1

    @property
    def drops(self) -> bool:
        """Whether equal groups are left out: only siblings that are compared can be too alike."""
        idle = {key for key, *_ in keys_without_effect(self)}
        return self.drop_equal_groups and "drop_equal_groups" not in idle

    @property
    def rounds(self) -> int:
        """Rounds of collection; groups that are kept are not replaced."""
        return self.max_rounds if self.drops else 1


class GrpoConfig(PolicyLoopConfig):
    """Everything a GRPO run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(GrpoConfig, argv, plan=plan_text)
    algorithm = config.algorithm
    estimator: Advantage = build_part(algorithm, "advantage")
    objective = objective_of(algorithm)
    # A frozen copy costs memory and a forward pass of each batch, so it is kept only where a KL needs it.
    needs_reference = objective.needs_reference or algorithm.kl_in_reward > 0
    compares_states = estimator_needs(algorithm.advantage, "states")
    asks_greedy = estimator_needs(algorithm.advantage, "greedy")
    needs_spread = estimator_needs(algorithm.advantage, "spread")
    members, rounds, drops = algorithm.members, algorithm.rounds, algorithm.drops

    with Training.start(config, reference=needs_reference) as run:
        if compares_states:
            warn_of_histories(run.collector.world)
        for step in run.steps():
            # After several rounds the groups are scored already, and `score` leaves those as they are.
            groups = run.score(run.collect(step, max_rounds=rounds))
            # A sibling that was lost to a fault is none to compare with.
            usable = with_members(groups, members)
            teaching = those_that_teach(usable, drops=drops)
            anchors = {"rollout/anchor_met_frac": met_again_frac(groups)} if compares_states else {}
            greedy = None
            # Greedy episodes cost as much as sampled ones, so none is played for a step that is skipped anyway.
            if asks_greedy and len(teaching) >= algorithm.min_groups:
                greedy = run.greedy_scores(teaching)
                teaching = [group for group in teaching if group.id in greedy]  # without a baseline nothing is compared
            # Whitening divides by the spread, and a single token has none.
            lone_token = needs_spread and not can_whiten(teaching)
            if len(teaching) < algorithm.min_groups or lone_token:
                # No sync: the engine has these weights already.
                run.finish(step, groups, {"optim/skipped_count": 1.0} | anchors)
                continue
            batch = flatten(teaching, min_members=members)
            with run.learning():
                if needs_reference:
                    batch = batch.with_columns(logprobs_ref=run.learner.reference_logprobs(batch))
                if algorithm.kl_in_reward > 0:
                    # The KL compares two sets of weights, so both sides are read by the learner and not by the engine.
                    batch = batch.with_columns(logprobs_old=run.learner.logprobs(batch))
            if algorithm.kl_in_reward > 0:
                batch = with_kl(batch, kl_coef=algorithm.kl_in_reward)
            advantages = estimator(batch) if greedy is None else estimator(batch, greedy)  # type: ignore[call-arg]
            batch = batch.with_columns(advantages=advantages)
            # Groups that were dropped still count in the denominator of Dr. GRPO's constant.
            metrics = run.update(batch, objective, collected=num_episodes(usable))
            run.sync()
            run.finish(step, groups, metrics | anchors)


def those_that_teach(groups: Sequence[Group], *, drops: bool) -> list[Group]:
    """The groups that the update sees: all of them, or those whose members can be told apart."""
    # Equal groups tell an estimator of siblings nothing, and without them the update is cheaper.
    return [group for group in groups if is_informative(group) or not drops]


def num_episodes(groups: Sequence[Group]) -> int:
    """Episodes that could be learned from."""
    return sum(len(members_to_learn_from(group)) for group in groups)


def warn_of_histories(world: World) -> None:
    """Say that GiGPO's step part has next to nothing to compare, where that is so by the world's construction."""
    if fingerprint_kind(world) == "history":
        log.warning(
            "GiGPO's anchors in %s are whole histories: its fingerprint holds every action so far, so that two turns "
            "meet only where all actions before them were the same. The step part is then next to nothing, and what is "
            "left is the comparison of whole episodes: see rollout/anchor_met_frac, or use another algorithm.advantage",
            world.name,
        )


if __name__ == "__main__":
    run_recipe(main)
