"""Which trajectories of a block can be replayed. Pure: no files.

What is wrong in the columns must be found before they are laid out: here it costs the trajectory that it is in, in flat
arrays it would shift, or pass for, something else. Wrong here are rows that `TrajectoryStore.read` refuses for what the
arrays hold of them, and turns without a state to replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rollwright.contracts import FINISHES, ORIGINS, PRODUCERS, SPLITS
from rollwright.store.replay.turn_columns import flat, reward_sums
from rollwright.store.store_checks import MAX_LOGPROB, MIN_LOGPROB, NULLABLE, STOP_REASONS

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
    # A column of ints with a null becomes floats with NaN; -1 stands for it and is refused below.
    counts = np.nan_to_num(headers["num_turns"].to_numpy(), nan=-1).astype(np.int64)
    # Each by itself as well: a negative count and one that is too large could add up to the right sum.
    if ((counts < 0) | (counts > turns.num_rows)).any() or counts.sum() != turns.num_rows:
        raise ValueError(f"{turns.num_rows} turns, its trajectories name {counts.sum()}")
    return np.repeat(np.arange(len(counts)), counts)


def faults(headers: pa.Table, turns: pa.Table, owners: Array) -> Iterator[Fault]:
    """What is wrong in a block, each kind with the rows that have it. A healthy block has none."""
    itself = np.arange(headers.num_rows)
    tables = (
        ("trajectories", itself, chain(_empty_values(headers), _odd_headers(headers, turns, owners))),
        ("turns", owners, chain(_empty_values(turns), _odd_turns(headers, turns, owners))),
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
    # `flatten`, unlike `field`, hands a null of the struct down to its children.
    if pa.types.is_struct(array.type):
        for child in array.flatten():
            null |= _null_rows(child)
    elif pa.types.is_list(array.type):
        offsets = array.offsets.to_numpy()
        # A sliced list array keeps all of its values: the offsets say which of them are this block's.
        inner = _null_rows(array.values.slice(offsets[0], offsets[-1] - offsets[0]))
        if inner.any():
            null[np.repeat(np.arange(len(array)), np.diff(offsets))[inner]] = True
    return null


def _odd_headers(headers: pa.Table, turns: pa.Table, owners: Array) -> Checks:
    yield "an unknown stop reason", _unknown(headers["stop_reason"], STOP_REASONS)
    yield "an unknown split", _unknown(headers["task_split"], SPLITS)
    yield "an unknown origin", _unknown(headers["origin"], ORIGINS)
    yield "a negative token id", _with_entries(headers["next_prompt_ids"], lambda ids: ids < 0)
    totals = headers["total_reward"].to_numpy()
    yield "total_reward is not finite", ~np.isfinite(totals)
    # Without `minlength` the last trajectories would be missing where they have no turns.
    earned = np.bincount(owners, weights=reward_sums(turns["rewards"]), minlength=len(totals))
    # Looser than `require_total`: `bincount` adds plain float64, `Turn.reward` sums by `fsum`.
    unlike = ~np.isclose(totals, earned, rtol=1e-6, atol=1e-6)
    yield "total_reward is not what its turns earned", unlike & np.isfinite(totals) & np.isfinite(earned)


def _odd_turns(headers: pa.Table, turns: pa.Table, owners: Array) -> Checks:
    owner_ids = headers["id"].combine_chunks().take(pa.array(owners))
    # Two turns that changed places between trajectories leave every count as it was: only the ids tell.
    strange = pc.not_equal(turns["trajectory_id"].combine_chunks(), owner_ids)
    yield "a turn of another trajectory", np.array(pc.fill_null(strange, False), bool)
    yield "an unknown finish", _unknown(turns["finish"], FINISHES)
    # `owners` ascends, so that a change of it is a first turn; `place` then counts 0, 1, ... within each trajectory.
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    place = np.arange(len(owners)) - np.repeat(begins, np.diff(begins, append=len(owners)))
    yield "turns out of order", turns["turn"].to_numpy() != place
    new, written = _lengths(turns["prompt_new"]), _lengths(turns["action_ids"])
    shared = turns["prompt_shared"].to_numpy()
    whole = shared + new + written
    # Of the first turn 0, and not the length that `roll` brings from the trajectory before it.
    before = np.where(place == 0, 0, np.roll(whole, 1))
    yield "prompt_shared exceeds the turn before", ~((shared >= 0) & (shared <= before))
    # A prompt of no ids gives a model no position from which it could predict the first token of the action.
    yield "an empty prompt", (shared == 0) & (new == 0)
    for column in ("prompt_new", "action_ids"):
        yield "a negative token id", _with_entries(turns[column], lambda ids: ids < 0)
    possible = "a log-prob above 0 or not a finite number"
    yield possible, _with_entries(turns["action_logprobs"], lambda p: ~((p >= MIN_LOGPROB) & (p <= MAX_LOGPROB)))
    yield "more or fewer log-probs than action ids", _lengths(turns["action_logprobs"]) != written
    yield "a reward is not finite", ~np.isfinite(reward_sums(turns["rewards"]))
    yield "a span reaches beyond the action", _odd_spans(turns["spans"].combine_chunks(), written)
    yield "an unknown producer", _odd_producers(turns["spans"].combine_chunks())
    # As `Turn` refuses it: no loss sees a forced token, so that the reward would vanish.
    earned = (reward_sums(turns["rewards"]) != 0) & (written > 0)
    yield "a reward on a forced token", earned & _ends_forced(turns["spans"].combine_chunks(), written)
    # Revisions (Agent-R) hold steps that must be read and not learned; replay has no weight per token for them.
    if "policy_weights" in turns.column_names:  # stores of version 2 have none
        unlearned = _with_entries(turns["policy_weights"], lambda weights: weights == 0)
        yield "tokens that are not to be learned (policy weight 0): imitate such records with recipes/sft.py", unlearned


def _odd_spans(array: pa.Array, lengths: Array) -> Array:
    offsets = array.offsets.to_numpy()
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    spans = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    start, end = (spans.field(name).to_numpy(zero_copy_only=False) for name in ("start", "end"))
    wrong = np.zeros(len(array), np.bool_)
    wrong[rows[~((start >= 0) & (start <= end) & (end <= lengths[rows]))]] = True
    return wrong


def _ends_forced(array: pa.Array, lengths: Array) -> Array:
    """[rows] where spans are given and none of somebody who chose the token holds the action's last one."""
    offsets = array.offsets.to_numpy()
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    spans = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    start, end = (spans.field(name).to_numpy(zero_copy_only=False) for name in ("start", "end"))
    chosen = ~np.array(pc.fill_null(pc.equal(spans.field("producer"), "forced"), False), bool)
    # Without spans the policy chose the whole action; with spans, what lies in none of them was chosen by nobody.
    forced = np.diff(offsets) > 0
    forced[rows[chosen & (start < lengths[rows]) & (end >= lengths[rows])]] = False
    return forced


def _odd_producers(array: pa.Array) -> Array:
    offsets = array.offsets.to_numpy()
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    producers = array.values.slice(offsets[0], offsets[-1] - offsets[0]).field("producer")
    wrong = np.zeros(len(array), np.bool_)
    wrong[rows[_unknown(producers, PRODUCERS)]] = True
    return wrong


def _unknown(column: pa.Array | pa.ChunkedArray, known: Sequence[str]) -> Array:
    """[rows] where the word is none of these; what has no value is found by another check."""
    # `is_in` says false of a null, which is no word: hence `is_valid`.
    odd = pc.invert(pc.is_in(column, value_set=pa.array(known, pa.string())))
    return np.array(pc.and_(odd, pc.is_valid(column)), bool)


def _with_entries(column: pa.ChunkedArray, wrong: Callable[[Array], Array]) -> Array:
    """[rows] where a list of numbers has an entry that is wrong."""
    offsets, values = flat(column)
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    found = np.zeros(len(offsets) - 1, np.bool_)
    found[rows[wrong(values)]] = True
    return found


def _lengths(column: pa.ChunkedArray) -> Array:
    return np.diff(flat(column)[0])
