"""What judges states in a search that stands outside of a training loop: a value model in a folder, or a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field, model_validator

from rollwright.config import Readers
from rollwright.contracts import ConfigError, Group, Reward, Score, StopReason, Task, Trajectory, Turn, scores_of
from rollwright.critics import SuccessChance, load_step_value
from rollwright.models import ChatCodec
from rollwright.rollout.trees.tree import StateValue
from rollwright.rollout.trees.tree_settings import SearchSettings


class ValuedSearch(SearchSettings):
    """A search whose value model lies in a folder."""

    critic: str = Field("", description="value=critic: folder of the value model, as recipes/reasoner.py writes it.")

    only_for: ClassVar[Readers] = {**SearchSettings.only_for, "critic": {"value": ("critic",)}}

    @model_validator(mode="after")
    def _a_critic_has_a_folder(self) -> ValuedSearch:
        if self.value == "critic" and not self.critic:
            raise ValueError(
                "`value=critic` and `critic` is empty: name the folder of a value model, such as runs/reasoner/value, "
                "or choose another `value`"
            )
        return self


class RewardValue:
    """A reward as a value of states: what it says of the turns so far, as if the episode ended there.

    It is shown no reward of the world and no verdict, so that a reward that only repeats those says nothing.
    """

    def __init__(self, reward: Reward) -> None:
        self.reward = reward

    def __call__(self, task: Task, turns: tuple[Turn, ...], prompt_ids: tuple[int, ...]) -> float:
        """The reward's value of the turns; 0 where it cannot tell. Raises RewardFault where it fails."""
        return self.values([(task, turns, prompt_ids)])[0]

    def values(self, states: Sequence[tuple[Task, tuple[Turn, ...], tuple[int, ...]]]) -> list[float]:
        """The same of many states, each of which is judged alone."""
        return [_score(self.reward, task, turns).value or 0.0 for task, turns, _ in states]


def _score(reward: Reward, task: Task, turns: Sequence[Turn]) -> Score:
    bare = tuple(replace(turn, rewards={}, rewards_at=(), env_rewards=None, terminated=False) for turn in turns)
    state = Trajectory(id="state", task=task, seed=0, turns=bare, stop_reason=StopReason.MAX_TURNS)
    return scores_of(reward, Group(id="state", task=task, seed=0, trajectories=(state,)))[0]


def open_state_value(settings: ValuedSearch, codec: ChatCodec, reward: Reward | None = None) -> StateValue | None:
    """The value that `search.value` names; None where the search asks no model.

    Args:
        reward: what `search.value=reward_model` asks, where there is one.

    Raises:
        ConfigError: the folder holds no value model, or there is no reward to ask.
    """
    if settings.value == "critic":
        return SuccessChance(load_step_value(settings.critic, codec.tokenizer))
    if settings.value == "reward_model":
        if reward is None:
            raise ConfigError("search.value=reward_model needs a reward: name it with reward.name")
        return RewardValue(reward)
    return None
