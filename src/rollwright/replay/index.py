"""The index of one shard: Parquet columns laid out as flat arrays that can be memory-mapped. Pure of any policy."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rollwright.types import StopReason

Array = NDArray[Any]
INDEX_VERSION = 1

TURN = np.dtype(
    [
        ("trajectory", np.int64),  # row within the shard
        ("turn", np.int32),
        ("shared", np.int32),  # leading prompt ids equal to the previous turn's prompt + action
        ("prompt", np.int64),  # where the other prompt ids begin in `ids`
        ("action", np.int64),  # where the action begins
        ("end", np.int64),
        ("reward", np.float64),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
    ]
)
TRAJECTORY = np.dtype(
    [
        ("task", np.int32),
        ("tag", np.int32),
        ("origin", np.int32),
        ("policy", np.int32),
        ("success", np.int8),  # -1: no verdict
        ("learnable", np.bool_),
        ("has_actions", np.bool_),
        ("truncated", np.bool_),
        ("train", np.bool_),
        ("total_reward", np.float64),
        ("version", np.int64),
        ("seed", np.int64),
        ("first_turn", np.int64),
        ("num_turns", np.int64),
        ("next_start", np.int64),  # the prompt after a truncated end, in `next_ids`
        ("next_end", np.int64),
    ]
)
CODED = {"task": "task_id", "tag": "tag", "origin": "origin", "policy": "policy"}
_TURN_COLUMNS = ["turn", "prompt_shared", "prompt_new", "action_ids", "action_logprobs", "spans", "rewards"]
_TURN_COLUMNS += ["terminated", "truncated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """Memory-mapped arrays of one shard: see `TURN` and `TRAJECTORY`; the other four have one entry per token id.

    ids: int32 prompt and action ids, turn after turn. mask: bool, an action token that somebody chose.
    logprobs: float32 of action tokens as sampled, 0 elsewhere. names: what the codes in `trajectories` stand for.
    """

    turns: Array
    trajectories: Array
    ids: Array
    mask: Array
    logprobs: Array
    next_ids: Array
    names: dict[str, list[str]]


def open_index(trajectories: Path, turns: Path, folder: Path) -> ShardIndex:
    """The index of a shard, built where it is missing or older than the shard's files."""
    source = {"version": INDEX_VERSION, "trajectories": _stamp(trajectories), "turns": _stamp(turns)}
    if _read_meta(folder).get("source") != source:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / ".lock").open("w") as lock:  # every rank of a run opens the same store at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _read_meta(folder).get("source") != source:
                _build(trajectories, turns, folder, source)
    arrays = {name: _map(folder / f"{name}.npy") for name in ShardIndex.__slots__ if name != "names"}
    return ShardIndex(**arrays, names=_read_meta(folder)["names"])


def _map(path: Path) -> Array:
    # As a plain array: `np.memmap` is a subclass that costs microseconds at each access.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or torn: the index is built anew
        return {}
    return meta


def _build(trajectories: Path, turns: Path, folder: Path, source: dict[str, Any]) -> None:
    """Write the index beside its place and rename it: readers see all of it or nothing."""
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    header, names, next_ids = _trajectory_table(trajectories)
    blocks = list(_turn_blocks(turns, header["num_turns"]))
    for name, dtype in (("turns", TURN), ("ids", np.int32), ("mask", np.bool_), ("logprobs", np.float32)):
        parts = [block[name] for block in blocks]
        np.save(temporary / f"{name}.npy", np.concatenate(parts) if parts else np.zeros(0, dtype))
    np.save(temporary / "trajectories.npy", header)
    np.save(temporary / "next_ids.npy", next_ids)
    (temporary / "meta.json").write_text(json.dumps({"source": source, "names": names}), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _trajectory_table(path: Path) -> tuple[Array, dict[str, list[str]], Array]:
    table = pq.read_table(path)
    header = np.zeros(table.num_rows, TRAJECTORY)
    names: dict[str, list[str]] = {}
    for field, column in CODED.items():
        coded = table[column].combine_chunks().dictionary_encode()
        header[field], names[field] = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    for field in ("has_actions", "total_reward", "version", "seed", "num_turns"):
        header[field] = table[field].to_numpy()
    header["success"] = [-1 if verdict is None else verdict for verdict in table["success"].to_pylist()]
    header["train"] = np.asarray(table["task_split"].to_pylist(), dtype=object) == "train"
    stops = [StopReason(stop) for stop in table["stop_reason"].to_pylist()]
    undecided = np.array([score is not None and score["value"] is None for score in table["score"].to_pylist()], bool)
    faults = np.array([stop.is_fault for stop in stops], bool)
    header["learnable"] = ~faults & (header["num_turns"] > 0) & header["has_actions"] & ~undecided
    header["truncated"] = [stop.is_truncation for stop in stops]
    header["first_turn"] = np.cumsum(header["num_turns"]) - header["num_turns"]
    ends, next_ids = _flat(table["next_prompt_ids"])
    header["next_start"], header["next_end"] = ends[:-1], ends[1:]
    return header, names, next_ids.astype(np.int32)


def _turn_blocks(path: Path, num_turns: Array) -> Iterator[dict[str, Array]]:
    """The arrays of each row group: one of them is in memory as Arrow at a time."""
    owners = np.repeat(np.arange(len(num_turns)), num_turns)
    seen, offset = 0, 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=_TURN_COLUMNS)
            block = _turn_block(table, offset)
            block["turns"]["trajectory"] = owners[seen : seen + table.num_rows]
            seen, offset = seen + table.num_rows, offset + len(block["ids"])
            yield block


def _turn_block(table: pa.Table, offset: int) -> dict[str, Array]:
    prompt_ends, prompts = _flat(table["prompt_new"])
    action_ends, actions = _flat(table["action_ids"])
    new, written = np.diff(prompt_ends), np.diff(action_ends)
    starts = np.cumsum(new + written) - (new + written)
    turns = np.zeros(table.num_rows, TURN)
    turns["turn"], turns["shared"] = table["turn"].to_numpy(), table["prompt_shared"].to_numpy()
    turns["prompt"], turns["action"] = offset + starts, offset + starts + new
    turns["end"] = turns["action"] + written
    turns["reward"] = _reward_sums(table["rewards"])
    turns["terminated"], turns["truncated"] = table["terminated"].to_numpy(), table["truncated"].to_numpy()
    at_prompt = np.repeat(starts - prompt_ends[:-1], new) + np.arange(len(prompts))
    at_action = np.repeat(starts + new - action_ends[:-1], written) + np.arange(len(actions))
    total = len(prompts) + len(actions)
    ids, mask, logprobs = np.zeros(total, np.int32), np.zeros(total, np.bool_), np.zeros(total, np.float32)
    ids[at_prompt], ids[at_action] = prompts, actions
    logprobs[at_action] = _flat(table["action_logprobs"])[1]
    mask[at_action] = _chosen(table["spans"], action_ends)
    return {"turns": turns, "ids": ids, "mask": mask, "logprobs": logprobs}


def _flat(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """[rows + 1] offsets that begin at 0, and the values of a list column."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)
    return offsets - offsets[0], values[offsets[0] : offsets[-1]]


def _reward_sums(column: pa.ChunkedArray) -> Array:
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values.field("value").to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    return np.bincount(rows, weights=values, minlength=len(array))


def _chosen(column: pa.ChunkedArray, action_ends: Array) -> Array:
    """[action tokens] false where a token was forced; a turn without spans was chosen as a whole."""
    array = column.combine_chunks()
    mask = np.ones(action_ends[-1], np.bool_)
    offsets = array.offsets.to_numpy()
    marked = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    forced = np.asarray(marked.field("producer").to_pylist(), dtype=object) == "forced"
    covered = (marked.field("end").to_numpy() - marked.field("start").to_numpy()) * ~forced
    lengths = np.diff(action_ends)
    odd = (np.bincount(rows, weights=covered, minlength=len(array)) != lengths) & (np.diff(offsets) > 0)
    for row in np.flatnonzero(odd):  # rare: guides and forced prefixes
        mask[action_ends[row] : action_ends[row + 1]] = False
        for span in array[row].as_py():
            if span["producer"] != "forced":
                mask[action_ends[row] + span["start"] : action_ends[row] + span["end"]] = True
    return mask
