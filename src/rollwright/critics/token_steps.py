"""Stored trajectories as chains of action tokens: every token that somebody chose is a step; the environment's text
and forced tokens are skipped between them.

Walks through few states say the same again and again. A critic reads each distinct turn once (`StoredSteps`); the steps
point at what was read, so targets and losses are those of the whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollwright.batching import Segment, segment_of
from rollwright.critics.turn_critic import reading
from rollwright.maths import next_in_segment, reverse_discounted_sum, segment_mean
from rollwright.store.replay import Transition, TurnTable


@dataclass(frozen=True, kw_only=True)
class TokenSteps:
    """N action tokens of S trajectories, in the order played.

    segments: distinct turns; all their action tokens are n entries. entries: [N] which of them each step is.
    rewards: [N], on the last token of the action that earned them. index: [N] trajectory. ends: [S] readings of
    the state after each trajectory, None where nothing comes after it.
    """

    segments: list[Segment]
    entries: Tensor
    ends: list[Segment | None]
    rewards: Tensor
    index: Tensor

    @cached_property
    def num_entries(self) -> int:
        """n, the action tokens of the segments."""
        return sum(segment.num_tokens for segment in self.segments)

    @cached_property
    def _distinct_ends(self) -> dict[tuple[int, ...], Segment]:
        return {tuple(end.prompt_ids): end for end in self.ends if end is not None}

    @property
    def readings(self) -> list[Segment]:
        """The turns, and behind them the distinct states after the trajectories that a limit cut."""
        return [*self.segments, *self._distinct_ends.values()]

    def next_values(self, values: Tensor) -> Tensor:
        """[N] the value of the state after each token: that before the next action token, across turns.

        Args:
            values: of `readings`: one per entry, then one per state after a cut.
        """
        places = {ids: place for place, ids in enumerate(self._distinct_ends)}
        # Trajectories that end in the same state share one reading.
        cut = [(s, places[tuple(end.prompt_ids)]) for s, end in enumerate(self.ends) if end is not None]
        # 0 where nothing comes after the trajectory.
        last = torch.zeros(len(self.ends))
        last[[s for s, _ in cut]] = values[self.num_entries :][[place for _, place in cut]]
        return next_in_segment(values[self.entries], self.index, last)

    def returns(self, gamma: float) -> Tensor:
        """[N] reward-to-go, gamma per action token. What comes after a cut is not known and counts as 0."""
        return reverse_discounted_sum(self.rewards, self.index, len(self.ends), gamma)

    @property
    def weights(self) -> Tensor:
        """[n] how often each entry was chosen, of mean 1: a weighted mean over entries is the mean over steps."""
        return torch.bincount(self.entries, minlength=self.num_entries) * (self.num_entries / max(1, len(self.entries)))

    def per_entry(self, values: Tensor) -> Tensor:
        """[N] -> [n] the mean over the steps of each entry. Squared errors to it pull as those to all of them do."""
        return segment_mean(values, self.entries, self.num_entries)


def token_steps(table: TurnTable, turns: NDArray[Any], *, truncated_end: bool = False) -> TokenSteps:
    """The chains of these turns, which must be whole trajectories in order (`keep_trajectories` gives them so).

    Every turn is a segment of its own here, and the steps are the entries.

    Args:
        truncated_end: a limit is the task's own end, so that nothing comes after a cut episode.
    """
    transitions = table.transitions(turns)
    owners, index = np.unique([t.trajectory for t in transitions], return_inverse=True)
    # All action tokens at first: forced ones leave the chain in `_chosen_steps`.
    lengths = torch.tensor([len(t.action_ids) for t in transitions])
    ends: list[Segment | None] = [None] * len(owners)
    rewards = torch.zeros(int(lengths.sum()))
    rewards[lengths.cumsum(0) - 1] = torch.as_tensor(_earned(table, turns)[turns]).float()
    for place in np.flatnonzero(np.isin(turns, [] if truncated_end else _before_cuts(table, turns))):
        # Numbered behind the turns, so that its name is no turn's.
        ends[index[place]] = reading(_state_after(transitions[place]), owner=len(transitions) + int(index[place]))
    index_of = torch.as_tensor(index).repeat_interleave(lengths)
    return _chosen_steps(transitions, torch.arange(len(rewards)), ends, rewards, index_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSteps:
    """Turns of a table by what was read and written in them; steps of any trajectories without reading them again.

    kinds: [U] a number for every turn of the table, the same where prompt and action are the same; -1 where the turn is
    not among those asked for. samples: a turn of each kind. rewards: [U] see `_earned`. after: [S] a turn behind which
    the state after the trajectory lies (the same turn for the same state), -1 where nothing comes after it.
    """

    table: TurnTable
    kinds: NDArray[np.int64]
    samples: NDArray[np.int64]
    rewards: NDArray[np.float64]
    after: NDArray[np.int64]

    @classmethod
    def scan(cls, table: TurnTable, turns: NDArray[Any], *, truncated_end: bool = False) -> StoredSteps:
        """Read every turn once, and keep a few numbers of it; `truncated_end` as for `token_steps`."""
        kinds, after = np.full(len(table), -1, np.int64), np.full(len(table.trajectories), -1, np.int64)
        samples: list[int] = []
        known: dict[bytes, int] = {}
        ends: dict[bytes, int] = {}
        cut = set() if truncated_end else set(_before_cuts(table, turns).tolist())
        for turn in turns.tolist():
            (t,) = table.transitions([turn])
            # A digest in place of the ids: prompts of a large store would not fit into memory.
            kind = known.setdefault(_digest(t.prompt_ids, t.action_ids, t.action_mask), len(known))
            # A new number: no turn of this kind was seen before.
            if kind == len(samples):
                samples.append(turn)
            kinds[turn] = kind
            if turn in cut:
                # The first turn with this state behind it stands for all: equal ones are read once.
                after[t.trajectory] = ends.setdefault(_digest(_state_after(t)), turn)
        earned = _earned(table, turns)
        return cls(table=table, kinds=kinds, samples=np.array(samples, np.int64), rewards=earned, after=after)

    def steps(self, turns: NDArray[Any]) -> TokenSteps:
        """As `token_steps`, each distinct turn one segment."""
        shown, inverse = np.unique(self.kinds[turns], return_inverse=True)
        # One turn of each kind: prompt, action and mask are all that is read of it.
        transitions = self.table.transitions(self.samples[shown])
        sizes = torch.tensor([len(t.action_ids) for t in transitions])
        which = torch.as_tensor(inverse)
        lengths, starts = sizes[which], (sizes.cumsum(0) - sizes)[which]
        lasts = lengths.cumsum(0) - 1
        # The place of each step in its own action.
        inside = torch.arange(int(lengths.sum())) - (lasts + 1 - lengths).repeat_interleave(lengths)
        rewards = torch.zeros(len(inside))
        rewards[lasts] = torch.as_tensor(self.rewards[turns]).float()
        owners, index = np.unique(self.table.owners()[turns], return_inverse=True)
        entries = starts.repeat_interleave(lengths) + inside
        index_of = torch.as_tensor(index).repeat_interleave(lengths)
        return _chosen_steps(transitions, entries, self._ends(owners), rewards, index_of)

    def _ends(self, owners: NDArray[np.int64]) -> list[Segment | None]:
        turns = self.after[owners]
        states = {int(turn): _state_after(self.table.transitions([turn])[0]) for turn in np.unique(turns[turns >= 0])}
        # Negative owners: turns have the numbers from 0 on.
        readings = {turn: reading(ids, owner=-1 - turn) for turn, ids in states.items()}
        return [readings.get(int(turn)) for turn in turns]


def _before_cuts(table: TurnTable, turns: NDArray[Any]) -> NDArray[Any]:
    """Of these turns the last ones of trajectories that a limit cut."""
    owners = table.owners()[turns]
    # Turns are in order, so a trajectory's last one stands where the owner changes.
    last = np.append(owners[1:] != owners[:-1], True)
    cut: NDArray[Any] = turns[last][table.trajectories["truncated"][owners[last]]]
    return cut


def _earned(table: TurnTable, turns: NDArray[Any]) -> NDArray[np.float64]:
    """[U] what each of these turns earned, and what came in turns without an action behind it (a label too doubtful to
    be filled in): the chain has no token there, but the reward was still to come."""
    owners, numbers = table.owners(), np.arange(len(table))
    before = np.searchsorted(turns, numbers, side="right") - 1  # the last of the turns at or before each
    at = turns[np.maximum(before, 0)]
    same = (before >= 0) & (owners[at] == owners)
    return np.bincount(at[same], weights=table.column("reward")[same], minlength=len(table)).astype(np.float64)


def _chosen_steps(
    turns: Sequence[Transition], entries: Tensor, ends: list[Segment | None], rewards: Tensor, index: Tensor
) -> TokenSteps:
    """Of all action tokens the chosen ones. A forced one earns nothing (`Turn` sees to it)."""
    # A mask per entry, spread over the steps that point at it.
    chosen = torch.tensor([chose for turn in turns for chose in turn.action_mask])[entries]
    # Without their masks: `entries` counts all action tokens of a segment.
    segments = [segment_of(turn, sequence=place) for place, turn in enumerate(turns)]
    return TokenSteps(
        segments=segments, entries=entries[chosen], ends=ends, rewards=rewards[chosen], index=index[chosen]
    )


def _state_after(t: Transition) -> tuple[int, ...]:
    """The prompt that would have come next; where that did not fit, the state right behind the last action."""
    return t.next_prompt_ids or t.prompt_ids + t.action_ids


def _digest(*sequences: Sequence[int]) -> bytes:
    """16 bytes that differ for different sequences of ids."""
    whole = hashlib.blake2b(digest_size=16)
    for ids in sequences:
        # Lengths keep apart sequences that are cut at different places.
        whole.update(np.asarray([len(ids), *ids], np.int64).tobytes())
    return whole.digest()
