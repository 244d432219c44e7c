"""Random access to every turn of a store: a million turns on disk, a few arrays of numbers in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import DataError
from rollwright.store.replay.replay_index import ShardIndex, open_index
from rollwright.store.replay.turn_columns import CODED, TRAJECTORY
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.store.turn_rows import unpack_text

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One turn as an off-policy learner needs it: (s, a, r, s').

    prompt_ids, action_ids: what the acting policy was given and wrote. action_mask, logprobs: one entry per action
    token: whether somebody chose it, and its log-prob as sampled.
    next_prompt_ids: s'; empty where the task ended, and where a truncated end left no prompt that fits.
    return_to_go: discounted per turn, this turn's reward included. success: the task's verdict, None without one.
    index: the turn's number in the table. trajectory: its trajectory's number.
    """

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    action_mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    reward: float
    next_prompt_ids: tuple[int, ...]
    terminated: bool
    truncated: bool
    return_to_go: float
    trajectory_return: float
    success: bool | None
    task: str
    turn: int
    turns_left: int
    trajectory: int
    index: int


class TurnTable:
    """All turns of one or more trajectory stores, numbered from 0: store after store, each in the order written.

    The index lies in `replay_index` in each store's folder, or in the user's cache where that cannot be written. It is
    derived: all of it or any part may be deleted at any time. What cannot be replayed is left out with a warning of the
    store's, as a walk over the store does: a block that is damaged with all its trajectories, otherwise the trajectory
    with a row that is wrong (a reward that is not finite, an empty prompt).

    Args:
        stores: the stores, or their folders. Only the last one may grow while the table is open.

    Attributes:
        trajectories: [S] structured array, see `columns.TRAJECTORY`; `first_turn` counts over all shards.
        sources: [S] int64, which of the stores each trajectory lies in.
        names: for "task", "tag", "origin" and "policy" the strings behind the codes of `trajectories`.

    Raises:
        DataError: no store holds a turn (unless `may_be_empty`), a folder holds no store, or a store is known to lack
            episodes (`TrajectoryStore.lacking`).
        RunFolderError: there is nowhere to write an index.
    """

    def __init__(self, *stores: TrajectoryStore | str | Path, may_be_empty: bool = False) -> None:
        self.stores = [s if isinstance(s, TrajectoryStore) else TrajectoryStore(s, mode="read") for s in stores]
        # A run that goes on without some episodes would learn otherwise than the one that it claims to continue.
        if lacking := " ".join(store.lacking for store in self.stores if store.lacking):
            raise DataError(lacking)
        self._shards: dict[tuple[int, int], ShardIndex] = {}  # by place of the store and number of the shard
        self._order: list[ShardIndex] = []  # as they were taken in
        self.trajectories: Array = np.zeros(0, TRAJECTORY)
        self.sources = np.zeros(0, np.int64)
        self.names: dict[str, list[str]] = {field: [] for field in CODED}
        # [shards + 1] the number of each shard's first turn; the last entry is the turn count.
        self._first_turns = np.zeros(1, np.int64)
        self._begins = np.zeros(0, np.int64)  # `first_turn` by itself: searching the field would copy it each time
        self.refresh()
        if not len(self) and not may_be_empty:
            where = ", ".join(str(store.folder) for store in self.stores)
            lost = "".join(f"\n{message}" for store in self.stores for message in store.warnings)
            raise DataError(f"{where} holds no turn to replay: collect some first (recipes/collect.py){lost}")

    def __len__(self) -> int:
        """Turns in all shards."""
        return int(self._first_turns[-1])

    def refresh(self) -> int:
        """Take in the shards that the store has gained. Numbers given before stay valid.

        Returns:
            How many turns are new.
        """
        before = len(self)
        for place, store in enumerate(self.stores):
            store.rescan()
            for number in store.shard_numbers():
                if (place, number) not in self._shards:
                    shard = open_index(store, number)
                    for message in shard.warnings:
                        store.warn(message)
                    self._shards[place, number] = shard
                    self._order.append(shard)
                    self._take_in(shard)
                    self.sources = np.append(self.sources, np.full(len(shard.trajectories), place))
        return len(self) - before

    def _take_in(self, shard: ShardIndex) -> None:
        # A copy: the index is mapped read-only, and its codes and first turns are counted per shard.
        rows = np.array(shard.trajectories)
        for field, listed in shard.names.items():
            known = {name: code for code, name in enumerate(self.names[field])}
            # Each shard has codes of its own; here they become the table's, and known names keep theirs.
            codes = [known.setdefault(unpack_text(name), len(known)) for name in listed]
            self.names[field] = list(known)
            rows[field] = np.asarray(codes, np.int32)[rows[field]] if codes else rows[field]
        rows["first_turn"] += len(self)
        self.trajectories = np.concatenate([self.trajectories, rows])
        self._begins = np.ascontiguousarray(self.trajectories["first_turn"])
        self._first_turns = np.append(self._first_turns, len(self) + len(shard.turns))

    def column(self, name: str) -> Array:
        """[U] one field of every turn: "turn", "reward", "terminated", "truncated", "intervened", or "length"."""
        parts = []
        for shard in self._order:
            turns = shard.turns
            parts.append(turns["end"] - turns["action"] if name == "length" else np.array(turns[name]))
        return np.concatenate(parts) if parts else np.zeros(0)

    def highest_id(self) -> int:
        """The highest token id of all prompts and actions; -1 where there are none. None is negative."""
        ids = [part for shard in self._order for part in (shard.ids, shard.next_ids) if len(part)]
        return max((int(part.max()) for part in ids), default=-1)

    def first_of(self, wanted: Array) -> int:
        """The lowest of these token ids that some prompt or action holds; -1 where none does."""
        ids = [part for shard in self._order for part in (shard.ids, shard.next_ids) if len(part)]
        found = [part[np.isin(part, wanted)] for part in ids]
        return min((int(part.min()) for part in found if len(part)), default=-1)

    def owners(self) -> Array:
        """[U] int64, the trajectory of every turn."""
        # Turns lie trajectory after trajectory, so that counts alone say whose they are.
        return np.repeat(np.arange(len(self.trajectories)), self.trajectories["num_turns"])

    def per_turn(self, field: str) -> Array:
        """[U] a field of `trajectories`, repeated for each of its turns."""
        return np.repeat(self.trajectories[field], self.trajectories["num_turns"])

    def transitions(self, indices: Sequence[int] | Array, *, gamma: float = 1.0) -> list[Transition]:
        """The turns of these numbers, in this order."""
        numbers = np.asarray(indices, np.int64)
        # "right" - 1 takes the last of equal begins: an episode without turns begins where the next one does.
        owners = np.searchsorted(self._begins, numbers, side="right") - 1
        return [self._transition(i, owner, gamma) for i, owner in zip(numbers.tolist(), owners.tolist(), strict=True)]

    def prompt_ids(self, index: int) -> tuple[int, ...]:
        """What the acting policy was given in this turn."""
        shard, place = self._locate(index)
        return tuple(_prompt(shard, place).tolist())

    def _locate(self, index: int) -> tuple[ShardIndex, int]:
        if not 0 <= index < len(self):
            raise DataError(f"the table has turns 0 to {len(self) - 1}, not {index}")
        number = int(np.searchsorted(self._first_turns, index, side="right")) - 1
        return self._order[number], index - int(self._first_turns[number])

    def _transition(self, index: int, owner: int, gamma: float) -> Transition:
        shard, place = self._locate(index)
        turn = shard.turns[place]
        # The shard's own row and not the table's: `place` and `first_turn` are both counted from the shard's beginning.
        local = shard.trajectories[turn["trajectory"]]
        end = int(local["first_turn"] + local["num_turns"])
        tokens = slice(int(turn["action"]), int(turn["end"]))
        rewards = shard.turns["reward"][place:end]
        return Transition(
            prompt_ids=tuple(_prompt(shard, place).tolist()),
            action_ids=tuple(shard.ids[tokens].tolist()),
            action_mask=tuple(shard.mask[tokens].tolist()),
            logprobs=tuple(shard.logprobs[tokens].tolist()),
            reward=float(turn["reward"]),
            next_prompt_ids=_next_prompt(shard, place, local),
            # By the trajectory's stop reason, and for its last turn alone, whatever the turns' own columns say.
            terminated=place + 1 == end and not local["truncated"],
            truncated=place + 1 == end and bool(local["truncated"]),
            return_to_go=float(rewards @ gamma ** np.arange(len(rewards))),
            trajectory_return=float(local["total_reward"]),
            success=None if local["success"] < 0 else bool(local["success"]),
            task=self.names["task"][int(self.trajectories["task"][owner])],
            turn=int(turn["turn"]),
            turns_left=end - place - 1,
            trajectory=owner,
            index=index,
        )


def _prompt(shard: ShardIndex, place: int) -> Array:
    """A turn's prompt: what it shares with the turns before it, then its own ids."""
    turns, shared = shard.turns, shard.turns["shared"]
    parts = [shard.ids[turns["prompt"][place] : turns["action"][place]]]
    wanted = int(shared[place])
    while wanted:
        place -= 1
        while shared[place] >= wanted:  # this turn took all of it over from an earlier one
            place -= 1
        start, own = int(turns["prompt"][place]), wanted - int(shared[place])
        # Collected backwards: from the turn's own ids to those that it shares with ever earlier turns.
        parts.append(shard.ids[start : start + own])
        wanted = int(shared[place])
    return np.concatenate(parts[::-1])


def _next_prompt(shard: ShardIndex, place: int, trajectory: Any) -> tuple[int, ...]:
    if place + 1 < trajectory["first_turn"] + trajectory["num_turns"]:
        return tuple(_prompt(shard, place + 1).tolist())
    # Of the last turn: the prompt that would have come next where a limit cut the episode, else nothing.
    return tuple(shard.next_ids[trajectory["next_start"] : trajectory["next_end"]].tolist())
