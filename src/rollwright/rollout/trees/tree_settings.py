"""The section `search`: how a tree is grown over the episodes of one start state."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from pydantic import Field

from rollwright.config import Config, Limits, Readers

SearchRule = Literal["off", "uct", "puct", "beam", "best_of_n", "lookahead"]
ValueSource = Literal["none", "rollouts", "critic", "reward_model"]
_RULES: tuple[str, ...] = tuple(rule for rule in get_args(SearchRule) if rule != "off")
_BRANCHING = tuple(rule for rule in _RULES if rule != "best_of_n")


class SearchSettings(Config):
    """How a tree is grown over the episodes of one start state."""

    rule: SearchRule = Field(
        "off",
        description="off: no tree, each episode is played once. uct: Agent-R's tree. puct: the reasoning blueprint's"
        " tree. beam: the best states of each depth. best_of_n: independent episodes. lookahead: the best child of"
        " each state.",
    )
    simulations: int = Field(
        8, ge=1, description="uct, puct: iterations from the root; beam: states kept per depth; best_of_n: episodes."
    )
    children: int = Field(4, ge=1, description="Answers sampled in each expanded state; equal actions count once.")
    max_depth: int = Field(
        0, ge=0, description="Turns after which a path is cut, without a verdict; 0 = rollout.max_turns."
    )
    exploration: float = Field(0.25, ge=0, description="uct: weight c of the visit counts (Agent-R: 0.25).")
    discount: float = Field(0.96, gt=0, le=1, description="puct: factor per level when values are backed up.")
    stop_at_end: bool = Field(
        False,
        description="puct: the search ends when it selects a state where the episode has ended, as the released code"
        " does; false: such states are left out of the selection, and every iteration tries something new.",
    )
    value: ValueSource = Field(
        "none",
        description="What a new state is worth. none: what its ended paths earned (uct), or the probability of its"
        " actions (beam, best_of_n); rollouts: the mean return of episodes played on from it; critic, reward_model: a"
        " model's word.",
    )
    rollouts: int = Field(1, ge=1, description="value=rollouts: episodes played on from each new state.")
    max_env_calls: int = Field(
        0, ge=0, description="Most calls of reset and step per tree, repeated ones included; 0 = no limit."
    )
    max_tokens: int = Field(0, ge=0, description="Most sampled tokens per tree; 0 = no limit.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of every answer in a tree.")
    seed: int = Field(0, ge=0, description="Seed of the draws between equally good states.")

    only_for: ClassVar[Readers] = {
        "simulations": {"rule": ("uct", "puct", "beam", "best_of_n")},
        "children": {"rule": _BRANCHING},
        "max_depth": {"rule": _RULES},
        "exploration": {"rule": ("uct",)},
        "discount": {"rule": ("puct",)},
        "stop_at_end": {"rule": ("puct",)},
        "value": {"rule": _RULES},
        "rollouts": {"value": ("rollouts",)},
        "max_env_calls": {"rule": _RULES},
        "max_tokens": {"rule": _RULES},
        "temperature": {"rule": _RULES},
        "seed": {"rule": ("uct", "puct")},
    }
    limits: ClassVar[Limits] = {
        "simulations": (1_000_000, "a tree is held in memory until it is stored"),
        "children": (10_000, "all are sampled at once"),
        "max_depth": (1_000_000, "all turns of a path are held in memory"),
        "rollouts": (10_000, "each new state is played on so often"),
    }

    @property
    def on(self) -> bool:
        """Whether trees are grown at all."""
        return self.rule != "off"
