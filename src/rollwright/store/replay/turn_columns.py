"""The columns of a shard laid out as flat arrays of numbers. Pure: no files. What is laid out was checked before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rollwright.contracts import StopReason

Array = NDArray[Any]

TURN = np.dtype(
    [
        ("trajectory", np.int64),  # place among the shard's trajectories that can be replayed
        ("turn", np.int32),
        ("shared", np.int32),  # leading prompt ids equal to the previous turn's prompt + action
        ("prompt", np.int64),  # where the other prompt ids begin in `ids`
        ("action", np.int64),  # where the action begins
        ("end", np.int64),
        ("reward", np.float64),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
        ("intervened", np.bool_),  # a human wrote some of the action, in place of what the policy proposed
    ]
)
# One record per trajectory holds what filters ask for, so that a view opens neither Parquet nor token ids.
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
IDS = {"ids": np.dtype(np.int32), "mask": np.dtype(np.bool_), "logprobs": np.dtype(np.float32)}  # per token id
# Field of `TRAJECTORY` -> column: strings that repeat, kept as codes and one list of names.
CODED = {"task": "task_id", "tag": "tag", "origin": "origin", "policy": "policy"}
# Only what the arrays are made of, or what a check needs: texts and observations stay on the disk.
HEADER_COLUMNS = ["id", *CODED.values(), "task_split", "seed", "num_turns", "stop_reason", "success", "score"]
HEADER_COLUMNS += ["total_reward", "version", "has_actions", "next_prompt_ids"]
TURN_COLUMNS = [
    "trajectory_id",
    "turn",
    "prompt_shared",
    "prompt_new",
    "action_ids",
    "action_logprobs",
    "spans",
    "rewards",
]
TURN_COLUMNS += ["finish", "terminated", "truncated", "policy_weights"]


def no_trajectories() -> tuple[Array, dict[str, list[str]], Array]:
    """What `trajectory_arrays` gives for none."""
    return np.zeros(0, TRAJECTORY), {field: [] for field in CODED}, np.zeros(0, np.int32)


def trajectory_arrays(table: pa.Table) -> tuple[Array, dict[str, list[str]], Array]:
    """Of a shard's trajectories: the `TRAJECTORY` array, what its codes stand for, and the ids of all next prompts."""
    header = np.zeros(table.num_rows, TRAJECTORY)
    names: dict[str, list[str]] = {}
    for field, column in CODED.items():
        coded = table[column].combine_chunks().dictionary_encode()
        # Names are still packed (`pack_text`) here; `TurnTable` unpacks them.
        header[field], names[field] = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    for field in ("has_actions", "total_reward", "version", "seed", "num_turns"):
        header[field] = table[field].to_numpy()
    header["success"] = [-1 if verdict is None else verdict for verdict in table["success"].to_pylist()]
    header["train"] = np.asarray(table["task_split"].to_pylist(), dtype=object) == "train"
    stops = [StopReason(stop) for stop in table["stop_reason"].to_pylist()]
    # No score at all is not undecided: nobody was asked. A verifier that gave no value is.
    undecided = np.array([score is not None and score["value"] is None for score in table["score"].to_pylist()], bool)
    faults = np.array([stop.is_fault for stop in stops], bool)
    header["learnable"] = ~faults & (header["num_turns"] > 0) & header["has_actions"] & ~undecided
    header["truncated"] = [stop.is_truncation for stop in stops]
    # Exclusive sum: counts the turns before each, so that an episode without turns has a place too.
    header["first_turn"] = np.cumsum(header["num_turns"]) - header["num_turns"]
    ends, next_ids = flat(table["next_prompt_ids"])
    header["next_start"], header["next_end"] = ends[:-1], ends[1:]
    return header, names, next_ids.astype(np.int32)


def turn_arrays(table: pa.Table, owners: Array, offset: int) -> dict[str, Array]:
    """Of a block's turns: the `TURN` array and the arrays with one entry per token id, of which `offset` came before.

    owners: [turns] the trajectory of each.
    """
    prompt_ends, prompts = flat(table["prompt_new"])
    action_ends, actions = flat(table["action_ids"])
    new, written = np.diff(prompt_ends), np.diff(action_ends)
    # Prompt and action of a turn lie side by side in `ids`: a later turn takes over both by one slice (`_prompt`).
    starts = np.cumsum(new + written) - (new + written)
    turns = np.zeros(table.num_rows, TURN)
    turns["trajectory"] = owners
    turns["turn"], turns["shared"] = table["turn"].to_numpy(), table["prompt_shared"].to_numpy()
    turns["prompt"], turns["action"] = offset + starts, offset + starts + new
    turns["end"] = turns["action"] + written
    turns["reward"] = reward_sums(table["rewards"])
    turns["terminated"], turns["truncated"] = table["terminated"].to_numpy(), table["truncated"].to_numpy()
    turns["intervened"] = _written_by(table["spans"], "human")
    # Scatter in place of a loop over turns: the flat place of every prompt id moves by its turn's shift.
    at_prompt = np.repeat(starts - prompt_ends[:-1], new) + np.arange(len(prompts))
    at_action = np.repeat(starts + new - action_ends[:-1], written) + np.arange(len(actions))
    total = len(prompts) + len(actions)
    ids, mask, logprobs = np.zeros(total, np.int32), np.zeros(total, np.bool_), np.zeros(total, np.float32)
    ids[at_prompt], ids[at_action] = prompts, actions
    logprobs[at_action] = flat(table["action_logprobs"])[1]
    mask[at_action] = _chosen(table["spans"], action_ends)
    return {"turns": turns, "ids": ids, "mask": mask, "logprobs": logprobs}


def flat(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """[rows + 1] offsets that begin at 0, and the numbers of a list column."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    # `values` and not `flatten`: of a slice it is the whole buffer, to which the offsets refer.
    values = array.values.to_numpy(zero_copy_only=False)
    return offsets - offsets[0], values[offsets[0] : offsets[-1]]


def reward_sums(column: pa.ChunkedArray) -> Array:
    """[rows] the sum of each turn's named rewards."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values.field("value").to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    return np.bincount(rows, weights=values, minlength=len(array))


def _written_by(column: pa.ChunkedArray, producer: str) -> Array:
    """[rows] whether a span of the turn has this producer."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    marked = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    found = np.asarray(marked.field("producer").to_pylist(), dtype=object) == producer
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    return np.bincount(rows, weights=found, minlength=len(array)) > 0


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
    # Either part of the action is forced, or part of it lies in no span: both need the slow way.
    odd = (np.bincount(rows, weights=covered, minlength=len(array)) != lengths) & (np.diff(offsets) > 0)
    for row in np.flatnonzero(odd):  # rare: guides and forced prefixes
        mask[action_ends[row] : action_ends[row + 1]] = False
        for span in array[row].as_py():
            if span["producer"] != "forced":
                mask[action_ends[row] + span["start"] : action_ends[row] + span["end"]] = True
    return mask
