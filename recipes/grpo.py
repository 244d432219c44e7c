"""GRPO and its critic-free relatives on multi-turn episodes.

    for each step:
        collect   G groups of K episodes, each group from one task and one start state
        score     every episode by the reward
        credit    advantage of every action token against its siblings
        update    clipped policy gradient on the tokens the policy sampled
        sync      the engine to the new weights

`algorithm.advantage` and `algorithm.loss` name the method: GRPO, Dr. GRPO, RLOO, ReMax, REINFORCE++, OPO, GiGPO;
PPO clip, DAPO's clip-higher, GSPO, CISPO.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/grpo.py recipes/web/miniwob_grpo.yaml

Sources: arXiv:2402.03300 (GRPO), arXiv:2503.20783 (Dr. GRPO), arXiv:2402.14740 (RLOO), arXiv:2501.03262 (REINFORCE++),
arXiv:2503.14476 (DAPO), arXiv:2507.18071 (GSPO), arXiv:2506.13585 (CISPO), arXiv:2505.10978 (GiGPO).
"""

from __future__ import annotations

from rollwright.generation.launch_env import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from typing import ClassVar, Literal  # noqa: E402

from pydantic import Field  # noqa: E402

from rollwright.config import Readers  # noqa: E402
from rollwright.credit import (  # noqa: E402
    NEEDS_SIBLINGS,
    GroupEstimator,
    flat_tokens,
    flatten,
    group_advantages,
    to_segments,
)
from rollwright.objective import PolicyObjective  # noqa: E402
from rollwright.plan import plan_text  # noqa: E402
from rollwright.recipe_entry import recipe_config, run_recipe  # noqa: E402
from rollwright.rollout.metrics import is_informative  # noqa: E402
from rollwright.settings import PolicyLoopConfig, PolicyLossSettings  # noqa: E402
from rollwright.training import Training  # noqa: E402


class AlgorithmSettings(PolicyLossSettings):
    """Which member of the family."""

    advantage: GroupEstimator = Field("dr_grpo", description="How an episode is compared with its siblings.")
    gamma: float = Field(1.0, ge=0, le=1, description="Discount: per token (reinforce, reinforce++), per turn (gigpo).")
    gigpo_scale: Literal["none", "std"] = Field("none", description="gigpo: divide by the group's spread or not.")
    step_weight: float = Field(1.0, ge=0, description="gigpo: weight of the step part (omega).")
    drop_equal_groups: bool = Field(True, description="Leave out groups whose members all earned the same (DAPO).")
    max_rounds: int = Field(
        1, ge=1, description="Rounds of collection that replace such groups by others (DAPO); 1 = none is replaced."
    )
    min_groups: int = Field(1, ge=1, description="Skip the update when fewer groups than this can teach.")

    only_for: ClassVar[Readers] = {
        **PolicyLossSettings.only_for,
        "max_rounds": {"drop_equal_groups": (True,)},
        "gamma": {"advantage": ("reinforce", "reinforce++", "gigpo")},
        "gigpo_scale": {"advantage": ("gigpo",)},
        "step_weight": {"advantage": ("gigpo",)},
    }


class GrpoConfig(PolicyLoopConfig):
    """Everything a GRPO run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()


def main(argv: list[str] | None = None) -> None:
    config = recipe_config(GrpoConfig, argv, plan=plan_text)
    algorithm = config.algorithm
    objective = PolicyObjective(**algorithm.objective())
    members = 2 if algorithm.advantage in NEEDS_SIBLINGS else 1

    with Training.start(config, reference=objective.needs_reference) as run:
        for step in run.steps():
            groups = run.collect(step, max_rounds=algorithm.max_rounds)
            groups = run.score(groups)
            teaching = [g for g in groups if is_informative(g)] if algorithm.drop_equal_groups else groups
            if len(teaching) < algorithm.min_groups:
                run.finish(step, groups, {"optim/skipped_count": 1.0})
                continue
            batch = flatten(teaching, min_members=members)
            advantages = group_advantages(
                batch,
                algorithm.advantage,
                gamma=algorithm.gamma,
                gigpo_scale=algorithm.gigpo_scale,
                step_weight=algorithm.step_weight,
                greedy_scores=run.greedy_scores(teaching) if algorithm.advantage == "remax" else None,
            )
            with run.learning():
                scored = run.learner.reference_logprobs(to_segments(batch)) if objective.needs_reference else None
            reference = None if scored is None else flat_tokens(scored, batch)
            metrics = run.update(to_segments(batch, advantages, logprobs_ref=reference), objective)
            run.sync()
            run.finish(step, groups, metrics)


if __name__ == "__main__":
    run_recipe(main)
