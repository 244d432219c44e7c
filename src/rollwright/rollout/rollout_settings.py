"""The section `rollout`: how episodes are played."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rollwright.config import Config, Limits
from rollwright.contracts import ActionRule


class RolloutSettings(Config):
    """How episodes are played."""

    group_size: int = Field(8, ge=1, description="Episodes per task and start state.")
    groups_per_step: int = Field(12, ge=1, description="Groups collected for one optimiser step.")
    max_turns: int = Field(0, ge=0, description="Maximum number of turns per episode; 0 = the world's own limit.")
    max_action_tokens: int = Field(
        24, ge=1, description="Maximum length of an action in tokens, including the stop token."
    )
    max_staleness: int = Field(
        0,
        ge=0,
        description="Number of weight updates that an episode may lag behind. 0 = on-policy; k = play up to k"
        " batches ahead.",
    )
    # Above 0: the learner's log-probs are of the same tempered distribution, and no logit is divided by 0.
    temperature: float = Field(1.0, gt=0, description="Sampling temperature; the learner uses the same.")
    context: Literal["append", "windowed"] = Field(
        "windowed", description="What the prompt shows: the whole history, or the latest state with a short history."
    )
    history: int = Field(4, ge=0, description="windowed: number of past actions that the prompt shows.")
    action: str = Field(
        "all",
        description="Which part of an answer the world receives. all: everything; after_think: what follows "
        "`</think>`; or a regular expression: the first group of its last match. The learner "
        "trains on the whole answer.",
    )
    max_observation_tokens: int = Field(
        0,
        ge=0,
        description="Maximum length of an observation in tokens; longer ones are cut with a visible mark; 0 = never.",
    )
    parallel_episodes: int = Field(32, ge=1, description="Number of episodes played at the same time.")
    schedule: Literal["continuous", "rounds"] = Field(
        "continuous",
        description="continuous: the engine never waits. rounds: the engine is called when all running "
        "episodes wait for it, so that repeated or resumed runs agree bit for bit.",
    )
    retries: int = Field(2, ge=0, description="Maximum number of retries of an episode after a fault.")
    refills: int = Field(
        1,
        ge=0,
        description="Number of rounds in which episodes lost to faults are replaced by new ones of the same group.",
    )
    max_fault_frac: float = Field(
        0.2, ge=0, le=1, description="Stop the run when more than this share of episodes is lost to faults."
    )
    episode_s: float = Field(300.0, gt=0, description="Time limit of an episode, in seconds.")
    env_call_s: float = Field(
        30.0, gt=0, description="Time limit of one environment call, in seconds; a longer call is a fault."
    )
    engine_call_s: float = Field(
        180.0, gt=0, description="Time limit of one generation, in seconds; a longer one is a fault."
    )

    limits: ClassVar[Limits] = {
        "max_turns": (1_000_000, "all turns of an episode are held in memory"),
        "max_action_tokens": (1_000_000, "no model writes more at once"),
        "max_staleness": (1000, "so many batches of episodes are held in memory"),
        "history": (1_000_000, "no prompt shows more actions"),
        "max_observation_tokens": (10_000_000, "no model reads more"),
        "parallel_episodes": (100_000, "each has an environment of its own"),
        "retries": (1000, "an episode that faults so often never ends"),
        "refills": (1000, "a group that faults so often never ends"),
    }

    @model_validator(mode="after")
    def _a_batch_fits_in_memory(self) -> RolloutSettings:
        most, episodes = 1_000_000, self.group_size * self.groups_per_step
        if episodes > most:
            raise ValueError(
                f"`group_size={self.group_size}` x `groups_per_step={self.groups_per_step}` are {episodes} episodes in "
                f"one step, which are all held in memory until its update: {most} at most"
            )
        return self

    @model_validator(mode="after")
    def _actions_can_be_found(self) -> RolloutSettings:
        # Tried here, so that a broken expression is refused before anything is loaded or played.
        try:
            ActionRule(self.action)
        except ValueError as error:
            raise ValueError(f"`action`: {error}") from error
        return self

    @model_validator(mode="after")
    def _rounds_are_on_policy(self) -> RolloutSettings:
        if self.max_staleness and self.schedule == "rounds":
            raise ValueError(
                f"`max_staleness={self.max_staleness}` plays ahead, so which episodes run together is a matter of "
                "time; `schedule=rounds` fixes it. Use `schedule=continuous`, or `max_staleness=0`"
            )
        return self
