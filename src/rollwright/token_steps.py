"""Stored trajectories as chains of action tokens: every token a step, the environment's text skipped between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollwright.batching import Segment
from rollwright.offpolicy import to_segments
from rollwright.replay import TurnTable
from rollwright.segments import next_in_segment, reverse_discounted_sum
from rollwright.turn_critic import reading


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSteps:
    """N action tokens of S trajectories, in the order played.

    segments: one per turn; their action tokens are the N entries. rewards: [N], on the last token of the action that
    earned them. index: [N] trajectory. ends: [S] readings of the state after each trajectory, None where it terminated.
    """

    segments: list[Segment]
    ends: list[Segment | None]
    rewards: Tensor
    index: Tensor

    @property
    def readings(self) -> list[Segment]:
        """The turns, and behind them the states after the trajectories that a limit cut."""
        return [*self.segments, *(end for end in self.ends if end is not None)]

    def next_values(self, values: Tensor) -> Tensor:
        """[N] the value of the state after each token: that before the next action token, across turns.

        Args:
            values: of `readings`: one per action token, then one per cut trajectory.
        """
        num = len(self.rewards)
        last = torch.zeros(len(self.ends))
        last[[s for s, end in enumerate(self.ends) if end is not None]] = values[num:]
        return next_in_segment(values[:num], self.index, last)

    def returns(self, gamma: float) -> Tensor:
        """[N] reward-to-go, gamma per action token. What comes after a cut is not known and counts as 0."""
        return reverse_discounted_sum(self.rewards, self.index, len(self.ends), gamma)


def token_steps(table: TurnTable, turns: NDArray[Any]) -> TokenSteps:
    """The chains of these turns, which must be whole trajectories in order (`keep_trajectories` gives them so)."""
    transitions = table.transitions(turns)
    owners, index = np.unique([t.trajectory for t in transitions], return_inverse=True)
    lengths = torch.tensor([len(t.action_ids) for t in transitions])
    ends: list[Segment | None] = [None] * len(owners)
    rewards = torch.zeros(int(lengths.sum()))
    rewards[lengths.cumsum(0) - 1] = torch.tensor([t.reward for t in transitions])
    for t, owner in zip(transitions, index, strict=True):
        if t.truncated and t.next_prompt_ids:
            ends[owner] = reading(t.next_prompt_ids, owner=len(transitions) + int(owner))
    return TokenSteps(
        segments=to_segments(transitions, [0.0] * len(transitions)),
        ends=ends,
        rewards=rewards,
        index=torch.as_tensor(index).repeat_interleave(lengths),
    )
