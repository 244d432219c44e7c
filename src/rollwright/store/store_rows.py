"""The stored form of a trajectory, its turns apart (`turn_rows`), and both files of a shard in memory.

Pure functions: records to rows to bytes and back, no files. `trajectory_store` decides where the bytes lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollwright.contracts import Branch, DataError, Score, Start, StopReason, Task, Trajectory, WorldMark
from rollwright.store.store_checks import PAIR_KEY, TRAJECTORY_SCHEMA, TURN_SCHEMA, require_header, require_total
from rollwright.store.turn_rows import (
    Row,
    named_rows,
    pack_text,
    placed_rows,
    read_named,
    read_placed,
    read_turns,
    turn_rows,
    unpack_text,
)

# A block is what a damaged page costs, and what a walk holds in memory at once.
TURNS_PER_BLOCK = 2048
# Columns that repeat themselves; log-probs do not, and pack best with their bytes transposed.
# The names are those of Parquet's leaf columns: a list's values are `column.list.element`.
_DICTIONARY = ["tag", "task_id", "task_params", "policy", "trajectory_id", "state_key", "prompt_new.list.element"]
_DICTIONARY += ["action_ids.list.element", "text", "origin", "stop_reason", "task_split", "finish"]
_TRANSPOSED = ["action_logprobs.list.element", "values.list.element.values.list.element"]


def trajectory_row(trajectory: Trajectory, tag: str) -> dict[str, Any]:
    """The row of `TRAJECTORY_SCHEMA`, without the turns.

    Raises:
        DataError: the task's parameters are not JSON.
    """
    return {
        "id": pack_text(trajectory.id),
        "tag": pack_text(tag),
        "task_id": pack_text(trajectory.task.id),
        "task_split": trajectory.task.split,
        "task_params": _params_json(trajectory.task),
        "seed": trajectory.seed,
        "num_turns": len(trajectory.turns),
        "stop_reason": trajectory.stop_reason.value,
        "success": trajectory.success,
        "score": None if trajectory.score is None else _score_row(trajectory.score),
        "total_reward": trajectory.total_reward,
        "origin": trajectory.origin,
        "policy": pack_text(trajectory.policy),
        "version": trajectory.version,
        "world": None if trajectory.world is None else _world_row(trajectory.world),
        "start": _start_row(trajectory.start),
        "branch": None if trajectory.branch is None else _branch_row(trajectory.branch),
        "temperature": trajectory.temperature,
        "has_actions": trajectory.has_actions,
        "fault": pack_text(trajectory.fault),
        "retries": trajectory.retries,
        "wall_s": trajectory.wall_s,
        "next_prompt_ids": trajectory.next_prompt_ids,
    }


def read_trajectory(row: Row, turns: Iterable[Row]) -> Trajectory:
    """The record from its row and the rows of its turns, in order: the inverse of `trajectory_row` and `turn_rows`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the rows are no trajectory (a foreign writer's, say), or the
            turns are not this one's.
    """
    # First, so that an odd value is named by its column and not by whatever constructor meets it.
    require_header(row)
    trajectory = Trajectory(
        id=unpack_text(row["id"]),
        task=_read_task(row),
        seed=row["seed"],
        turns=read_turns(turns, owner=row["id"]),
        stop_reason=StopReason(row["stop_reason"]),
        success=row["success"],
        score=None if row["score"] is None else _read_score(row["score"]),
        origin=row["origin"],
        policy=unpack_text(row["policy"]),
        version=row["version"],
        world=None if row.get("world") is None else _read_world(row["world"]),
        start=_read_start(row["start"]),
        branch=None if row.get("branch") is None else _read_branch(row["branch"]),
        temperature=row["temperature"],
        has_actions=row["has_actions"],
        fault=unpack_text(row["fault"]),
        retries=row["retries"],
        wall_s=row["wall_s"],
        next_prompt_ids=tuple(row["next_prompt_ids"]),
    )
    # `total_reward` is derived, never taken over: a query reads the column, a learner the turns, so both must agree.
    require_total(row["total_reward"], trajectory.total_reward)
    return trajectory


def encode_shard(trajectories: Sequence[Trajectory], tag: str, mark: str = "") -> tuple[memoryview, memoryview]:
    """Both files of a shard, trajectories and turns, in memory: what cannot be encoded never reaches the disk.

    Args:
        mark: a name that no other shard has; it lies in both files and says that they belong together.

    Raises:
        DataError: the task's parameters are not JSON.
    """
    sinks = (pa.BufferOutputStream(), pa.BufferOutputStream())
    marked = {PAIR_KEY: mark.encode()} if mark else {}
    # One `write_table` below is one row group of each file, so block i of both files holds the same trajectories.
    with (
        table_writer(sinks[0], TRAJECTORY_SCHEMA, marked) as headers,
        table_writer(sinks[1], TURN_SCHEMA, marked) as turns,
    ):
        for block in _blocks(trajectories):
            rows = [trajectory_row(trajectory, tag) for trajectory in block]
            headers.write_table(pa.Table.from_pylist(rows, schema=TRAJECTORY_SCHEMA))
            # An empty table still writes its row group, so that blocks without turns keep their number.
            rows = [row for trajectory in block for row in turn_rows(trajectory)]
            turns.write_table(pa.Table.from_pylist(rows, schema=TURN_SCHEMA))
    return memoryview(sinks[0].getvalue()), memoryview(sinks[1].getvalue())


def table_writer(sink: Any, schema: pa.Schema, metadata: Mapping[bytes, bytes]) -> pq.ParquetWriter:
    """A writer of one file of a shard, checksums included; `metadata` is added to that of the schema."""
    return pq.ParquetWriter(
        sink,
        schema.with_metadata({**(schema.metadata or {}), **metadata}),
        compression="zstd",
        # A column that both lists named would get its dictionary and stay untransposed: pyarrow takes the dictionary.
        use_dictionary=_DICTIONARY,
        use_byte_stream_split=_TRANSPOSED,
        write_page_checksum=True,
    )


def _blocks(trajectories: Sequence[Trajectory]) -> Iterator[list[Trajectory]]:
    """Consecutive trajectories of at most `TURNS_PER_BLOCK` turns together, at least one each."""
    block: list[Trajectory] = []
    num_turns = 0
    for trajectory in trajectories:
        if block and num_turns + len(trajectory.turns) > TURNS_PER_BLOCK:
            yield block
            block, num_turns = [], 0
        block.append(trajectory)
        # An episode without turns counts as one, or a shard of failed starts would be a single block without bound.
        num_turns += max(1, len(trajectory.turns))
    if block:
        yield block


def _read_task(row: Mapping[str, Any]) -> Task:
    params = json.loads(row["task_params"])
    if not isinstance(params, dict):
        raise ValueError(f"task_params is {row['task_params'][:80]!r}; expected a JSON object")
    return Task(id=unpack_text(row["task_id"]), split=row["task_split"], params=params)


def _params_json(task: Task) -> str:
    try:
        # A plain dict: `json` writes no other mapping, such as a frozen view of one.
        return json.dumps(dict(task.params))
    except (TypeError, ValueError) as error:
        raise DataError(f"the params of task {task.id!r} cannot be stored: {error}. Task params must be JSON") from None


def _score_row(score: Score) -> dict[str, Any]:
    # None and an empty list differ: the reward said nothing of the turns, or gave them nothing.
    at = score.turn_parts_at
    return {
        "value": score.value,
        "verifier": pack_text(score.verifier),
        "parts": named_rows(score.parts),
        "turn_parts": None if score.turn_parts is None else [named_rows(parts) for parts in score.turn_parts],
        "turn_parts_at": None if at is None else [placed_rows(parts) for parts in at],
        "message": pack_text(score.message),
    }


def _read_score(row: Row) -> Score:
    # `get`: version 2 has no such field within its `score`.
    turn_parts, at = row["turn_parts"], row.get("turn_parts_at")
    return Score(
        value=row["value"],
        verifier=unpack_text(row["verifier"]),
        parts=read_named(row["parts"]),
        turn_parts=None if turn_parts is None else tuple(read_named(parts) for parts in turn_parts),
        turn_parts_at=None if at is None else tuple(read_placed(parts) for parts in at),
        message=unpack_text(row["message"]),
    )


def _start_row(start: Start) -> dict[str, Any]:
    lengths = {"prefix_turns": start.prefix_turns, "prefix_tokens": start.prefix_tokens}
    return {"kind": start.kind, **lengths, "source": pack_text(start.source)}


def _read_start(row: Row) -> Start:
    return Start(
        kind=row["kind"],
        prefix_turns=row["prefix_turns"],
        prefix_tokens=row.get("prefix_tokens") or 0,  # version 2 lacks it
        source=unpack_text(row["source"]),
    )


def _branch_row(branch: Branch) -> dict[str, Any]:
    return {"parent": pack_text(branch.parent), "turn": branch.turn, "token": branch.token}


def _read_branch(row: Row) -> Branch:
    return Branch(parent=unpack_text(row["parent"]), turn=row["turn"], token=row["token"])


def _world_row(world: WorldMark) -> dict[str, Any]:
    names = {"name": world.name, "version": world.version, "fingerprint": world.fingerprint}
    return {key: pack_text(text) for key, text in names.items()}


def _read_world(row: Row) -> WorldMark:
    return WorldMark(**{key: unpack_text(text) for key, text in row.items()})
