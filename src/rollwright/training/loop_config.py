"""What every loop reads: the sections of all rooms in one configuration, and keys that some recipes leave unread."""

from __future__ import annotations

from pydantic import model_validator

from rollwright.config import Config, Unread
from rollwright.curriculum import CurriculumSettings, StartSettings
from rollwright.evaluation import EvaluationSettings
from rollwright.generation import EngineSettings
from rollwright.learner import LearnerSettings, PolicyLossSettings
from rollwright.models import ModelSettings
from rollwright.rollout import ActorSettings, RolloutSettings
from rollwright.run_io import RunSettings
from rollwright.training.open_world import RewardSettings, WorldSettings

OWN_UPDATES: Unread = dict.fromkeys(
    ("learner.minibatches", "learner.epochs"), "the recipe's own keys say how often the policy is updated"
)
"""For recipes whose updates are draws from a store: passes over what was just collected are none of theirs."""


NO_GROUPS: dict[str, str] = dict.fromkeys(
    [f"rollout.{key}" for key in ("group_size", "groups_per_step", "max_staleness", "schedule", "refills")],
    "no groups are collected for a learner here, every episode is played by itself",
) | dict.fromkeys(("model.lora_rank", "model.lora_dropout"), "no adapter is trained here, all weights are")
"""For recipes without a loop: they play episodes one by one, or read them."""


ONE_EVALUATION: dict[str, str] = dict.fromkeys(
    ("evaluation.every", "evaluation.at_start"), "there are no steps here, the evaluation is all that is done"
) | {"rollout.temperature": "evaluation.temperature counts"}
"""For recipes that judge once."""


class LoopConfig(Config):
    """What every on-policy recipe reads: world, policy, engine, rollouts, learner, evaluation."""

    run: RunSettings = RunSettings()
    model: ModelSettings = ModelSettings()
    # The one section without a default, as no world would do for everybody.
    world: WorldSettings
    reward: RewardSettings = RewardSettings()
    engine: EngineSettings = EngineSettings()
    rollout: RolloutSettings = RolloutSettings()
    actor: ActorSettings = ActorSettings()
    learner: LearnerSettings = LearnerSettings()
    curriculum: CurriculumSettings = CurriculumSettings()
    starts: StartSettings = StartSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


class PolicyLoopConfig(LoopConfig):
    """A loop whose loss corrects for the policy that sampled, and which may therefore use older episodes."""

    algorithm: PolicyLossSettings = PolicyLossSettings()

    @model_validator(mode="after")
    def _older_episodes_are_corrected(self) -> PolicyLoopConfig:
        ahead, correction = self.rollout.max_staleness, self.algorithm.correction
        if ahead and correction == "none":
            raise ValueError(
                f"`rollout.max_staleness={ahead}` trains on what older weights sampled, which "
                "`algorithm.correction=none` leaves as it is: use token_tis, sequence_tis, token_mask or sequence_mask"
            )
        return self
