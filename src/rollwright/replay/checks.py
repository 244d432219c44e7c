"""Which trajectories of a block can be replayed. Pure: no files.

What is wrong in the columns must be found before they are laid out: here it costs the trajectory that it is in, in flat
arrays it would shift, or pass for, something else. Wrong here are rows that `TrajectoryStore.read` refuses for what the
arrays hold of them, and turns without a state to replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rollwright.replay.columns import flat, reward_sums
from rollwright.store_rows import NULLABLE
from rollwright.types import SPLITS, StopReason

Array = NDArray[Any]
Checks = Iterator[tuple[str, Array]]  # what is wrong, and [rows] where


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Rows of one table ("trajectories" or "turns") of a block that cannot be replayed, and why.

    rows: [n] within the block. trajectories: [n] the trajectories that they spoil, as rows of theirs.
    """

    table: str
    reason: str
    rows: Array
    trajectories: Array


def owners_of(headers: pa.Table, turns: pa.Table) -> Array:
    """[turns] the row of the trajectory that each turn belongs to.

    Raises:
        ValueError: there are more or fewer turns than the trajectories name: nothing says whose they are.
    """
    counts = np.nan_to_num(headers["num_turns"].to_numpy(), nan=-1).astype(np.int64)
    if ((counts < 0) | (counts > turns.num_rows)).any() or counts.sum() != turns.num_rows:
        raise ValueError(f"{turns.num_rows} turns, its trajectories name {counts.sum()}")
    return np.repeat(np.arange(len(counts)), counts)


def faults(headers: pa.Table, turns: pa.Table, owners: Array) -> Iterator[Fault]:
    """What is wrong in a block, each kind with the rows that have it. A healthy block has none."""
    itself = np.arange(headers.num_rows)
    tables = (
        ("trajectories", itself, chain(_empty_values(headers), _odd_headers(headers))),
        ("turns", owners, chain(_empty_values(turns), _odd_turns(turns, owners))),
    )
    for table, owner, checks in tables:
        for reason, wrong in checks if len(owner) else ():
            if wrong.any():
                yield Fault(table=table, reason=reason, rows=np.flatnonzero(wrong), trajectories=owner[wrong])


def _empty_values(table: pa.Table) -> Checks:
    for name in table.column_names:
        if name not in NULLABLE:
            yield f"no value in the column {name}", _null_rows(table[name].combine_chunks())


def _null_rows(array: pa.Array) -> Array:
    """[rows] where the value is null, or anything within it."""
    null = np.array(array.is_null()) if array.null_count else np.zeros(len(array), np.bool_)
    if pa.types.is_struct(array.type):
        for child in array.flatten():
            null |= _null_rows(child)
    elif pa.types.is_list(array.type):
        offsets = array.offsets.to_numpy()
        inner = _null_rows(array.values.slice(offsets[0], offsets[-1] - offsets[0]))
        if inner.any():
            null[np.repeat(np.arange(len(array)), np.diff(offsets))[inner]] = True
    return null


def _odd_headers(headers: pa.Table) -> Checks:
    known = {reason.value for reason in StopReason}
    yield "an unknown stop reason", np.array([stop not in known for stop in headers["stop_reason"].to_pylist()], bool)
    yield "an unknown split", np.array([split not in SPLITS for split in headers["task_split"].to_pylist()], bool)
    yield "total_reward is not finite", ~np.isfinite(headers["total_reward"].to_numpy())


def _odd_turns(turns: pa.Table, owners: Array) -> Checks:
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    place = np.arange(len(owners)) - np.repeat(begins, np.diff(begins, append=len(owners)))
    yield "turns out of order", turns["turn"].to_numpy() != place
    new, written = _lengths(turns["prompt_new"]), _lengths(turns["action_ids"])
    shared = turns["prompt_shared"].to_numpy()
    whole = shared + new + written
    before = np.where(place == 0, 0, np.roll(whole, 1))
    yield "prompt_shared exceeds the turn before", ~((shared >= 0) & (shared <= before))
    yield "an empty prompt", (shared == 0) & (new == 0)
    yield "more or fewer log-probs than action ids", _lengths(turns["action_logprobs"]) != written
    yield "a reward is not finite", ~np.isfinite(reward_sums(turns["rewards"]))
    yield "a span reaches beyond the action", _odd_spans(turns["spans"].combine_chunks(), written)


def _odd_spans(array: pa.Array, lengths: Array) -> Array:
    offsets = array.offsets.to_numpy()
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    spans = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    start, end = (spans.field(name).to_numpy(zero_copy_only=False) for name in ("start", "end"))
    wrong = np.zeros(len(array), np.bool_)
    wrong[rows[~((start >= 0) & (start <= end) & (end <= lengths[rows]))]] = True
    return wrong


def _lengths(column: pa.ChunkedArray) -> Array:
    return np.diff(flat(column)[0])
