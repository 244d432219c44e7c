"""The stored form of a trajectory: two Parquet schemas, and the exact conversion to and from rows.

Pure functions: records to rows to bytes and back, no files. `store` decides where the bytes lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollwright.contracts import (
    Attachment,
    DataError,
    Message,
    Score,
    Span,
    Start,
    StopReason,
    Task,
    Timings,
    Trajectory,
    Turn,
)
from rollwright.store.store_checks import require_header, require_total, require_turn

SCHEMA_VERSION = 2
VERSION_KEY = b"rollwright.schema_version"
PAIR_KEY = b"rollwright.shard"
"""In the metadata of both files of a shard: the same mark, which no other shard has. Older shards have none."""

# Named numbers are lists of pairs and not Arrow maps: `datasets` has no map type.
_NAMED = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
_IDS = pa.list_(pa.int32())
_NUMBERS = pa.list_(pa.float64())

_SCORE = pa.struct(
    [
        ("value", pa.float64()),
        ("verifier", pa.string()),
        ("parts", _NAMED),
        ("turn_parts", pa.list_(_NAMED)),
        ("message", pa.string()),
    ]
)

TRAJECTORY_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("tag", pa.string()),
        ("task_id", pa.string()),
        ("task_split", pa.string()),
        ("task_params", pa.string()),  # JSON: every world has other parameters
        ("seed", pa.int64()),
        ("num_turns", pa.int64()),
        ("stop_reason", pa.string()),
        ("success", pa.bool_()),
        ("score", _SCORE),
        ("total_reward", pa.float64()),  # derived; here so that a query need not open the turns
        ("origin", pa.string()),
        ("policy", pa.string()),
        ("version", pa.int64()),
        ("start", pa.struct([("kind", pa.string()), ("prefix_turns", pa.int64()), ("source", pa.string())])),
        ("temperature", pa.float64()),
        ("has_actions", pa.bool_()),
        ("fault", pa.string()),
        ("retries", pa.int64()),
        ("wall_s", pa.float64()),
        ("next_prompt_ids", _IDS),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)

TURN_SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("turn", pa.int64()),
        ("prompt_shared", pa.int64()),  # leading ids equal to the previous turn's prompt_ids + action_ids
        ("prompt_new", _IDS),  # the ids after those
        ("action_ids", _IDS),
        ("action_logprobs", _NUMBERS),
        ("text", pa.string()),
        ("acted", pa.string()),  # null where the same
        ("observed", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        (
            "spans",
            pa.list_(
                pa.struct(
                    [("start", pa.int64()), ("end", pa.int64()), ("version", pa.int64()), ("producer", pa.string())]
                )
            ),
        ),
        ("finish", pa.string()),
        ("rewards", _NAMED),
        ("env_rewards", _NAMED),  # null where the same
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("values", pa.list_(pa.struct([("name", pa.string()), ("values", _NUMBERS)]))),
        ("state_key", pa.string()),
        ("attempt", pa.int64()),
        (
            "attachments",
            pa.list_(pa.struct([("sha256", pa.string()), ("media_type", pa.string()), ("path", pa.string())])),
        ),
        (
            "timings",
            pa.struct([("engine_wait_s", pa.float64()), ("generate_s", pa.float64()), ("env_s", pa.float64())]),
        ),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)

_LATER = frozenset({"env_rewards", "acted"})  # columns that shards written before it lack: read as null

TURNS_PER_BLOCK = 2048
# Columns that repeat themselves; log-probs do not, and pack best with their bytes transposed.
_DICTIONARY = ["tag", "task_id", "task_params", "policy", "trajectory_id", "state_key", "prompt_new.list.element"]
_DICTIONARY += ["action_ids.list.element", "text", "origin", "stop_reason", "task_split", "finish"]
_TRANSPOSED = ["action_logprobs.list.element", "values.list.element.values.list.element"]

_ESCAPED = "\x00json:"


def pack_text(text: str) -> str:
    """Text as Parquet can hold it: page text may carry lone surrogates, which UTF-8 cannot. Undone by `unpack_text`."""
    if text.startswith(_ESCAPED) or any("\ud800" <= char <= "\udfff" for char in text):
        return _ESCAPED + json.dumps(text)
    return text


def unpack_text(stored: str) -> str:
    """The text that `pack_text` was given."""
    return str(json.loads(stored[len(_ESCAPED) :])) if stored.startswith(_ESCAPED) else stored


def schema_fault(found: pa.Schema, expected: pa.Schema) -> str:
    """What a table's columns lack to be read as `expected`; "" where nothing. Columns beyond those are no fault."""
    lacking = sorted({field.name for field in expected} - set(found.names) - _LATER)
    if lacking:
        return f"lacks the columns {', '.join(lacking)}"
    for field in expected:  # nullability too: it decides how the bytes are read
        if field.name in found.names and not found.field(field.name).equals(field):
            return f"has the column {found.field(field.name)}, expected {field}"
    return ""


def shared_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading ids two tuples have in common. Halving over slices: the comparison itself runs in C."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def trajectory_row(trajectory: Trajectory, tag: str) -> dict[str, Any]:
    """The row of `TRAJECTORY_SCHEMA`, without the turns.

    Raises:
        DataError: the task's parameters are not JSON.
    """
    start = trajectory.start
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
        "start": {"kind": start.kind, "prefix_turns": start.prefix_turns, "source": pack_text(start.source)},
        "temperature": trajectory.temperature,
        "has_actions": trajectory.has_actions,
        "fault": pack_text(trajectory.fault),
        "retries": trajectory.retries,
        "wall_s": trajectory.wall_s,
        "next_prompt_ids": trajectory.next_prompt_ids,
    }


def turn_rows(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The rows of `TURN_SCHEMA` of one trajectory, in order.

    A growing history repeats itself in every prompt; only what is new against the previous turn is kept, so an
    append-only episode of n turns takes O(n) ids and not O(n^2).
    """
    rows: list[dict[str, Any]] = []
    seen: tuple[int, ...] = ()
    for index, turn in enumerate(trajectory.turns):
        shared = shared_prefix(seen, turn.prompt_ids)
        place = {"trajectory_id": pack_text(trajectory.id), "turn": index, "prompt_shared": shared}
        rows.append(place | {"prompt_new": turn.prompt_ids[shared:]} | _turn_fields(turn))
        seen = turn.prompt_ids + turn.action_ids
    return rows


def read_trajectory(row: Mapping[str, Any], turns: Iterable[Mapping[str, Any]]) -> Trajectory:
    """The record from its row and the rows of its turns, in order: the inverse of the two functions above.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the rows are no trajectory (a foreign writer's, say), or the
            turns are not this one's.
    """
    require_header(row)
    start = row["start"]
    trajectory = Trajectory(
        id=unpack_text(row["id"]),
        task=_read_task(row),
        seed=row["seed"],
        turns=_read_turns(turns, owner=row["id"]),
        stop_reason=StopReason(row["stop_reason"]),
        success=row["success"],
        score=None if row["score"] is None else _read_score(row["score"]),
        origin=row["origin"],
        policy=unpack_text(row["policy"]),
        version=row["version"],
        start=Start(kind=start["kind"], prefix_turns=start["prefix_turns"], source=unpack_text(start["source"])),
        temperature=row["temperature"],
        has_actions=row["has_actions"],
        fault=unpack_text(row["fault"]),
        retries=row["retries"],
        wall_s=row["wall_s"],
        next_prompt_ids=tuple(row["next_prompt_ids"]),
    )
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
    with _writer(sinks[0], TRAJECTORY_SCHEMA, marked) as headers, _writer(sinks[1], TURN_SCHEMA, marked) as turns:
        for block in _blocks(trajectories):
            rows = [trajectory_row(trajectory, tag) for trajectory in block]
            headers.write_table(pa.Table.from_pylist(rows, schema=TRAJECTORY_SCHEMA))
            rows = [row for trajectory in block for row in turn_rows(trajectory)]
            turns.write_table(pa.Table.from_pylist(rows, schema=TURN_SCHEMA))
    return memoryview(sinks[0].getvalue()), memoryview(sinks[1].getvalue())


def _writer(sink: pa.BufferOutputStream, schema: pa.Schema, metadata: Mapping[bytes, bytes]) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        schema.with_metadata({**schema.metadata, **metadata}),
        compression="zstd",
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
        return json.dumps(dict(task.params))
    except (TypeError, ValueError) as error:
        raise DataError(f"the params of task {task.id!r} cannot be stored: {error}. Task params must be JSON") from None


def _named(parts: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"name": pack_text(name), "value": float(value)} for name, value in parts.items()]


def _read_named(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    return {unpack_text(row["name"]): row["value"] for row in rows}


def _score_row(score: Score) -> dict[str, Any]:
    return {
        "value": score.value,
        "verifier": pack_text(score.verifier),
        "parts": _named(score.parts),
        "turn_parts": None if score.turn_parts is None else [_named(parts) for parts in score.turn_parts],
        "message": pack_text(score.message),
    }


def _read_score(row: Mapping[str, Any]) -> Score:
    turn_parts = row["turn_parts"]
    return Score(
        value=row["value"],
        verifier=unpack_text(row["verifier"]),
        parts=_read_named(row["parts"]),
        turn_parts=None if turn_parts is None else tuple(_read_named(parts) for parts in turn_parts),
        message=unpack_text(row["message"]),
    )


def _turn_fields(turn: Turn) -> dict[str, Any]:
    times = turn.timings
    return {
        "action_ids": turn.action_ids,
        "action_logprobs": turn.action_logprobs,
        "text": pack_text(turn.text),
        "acted": None if turn.acted is None else pack_text(turn.acted),
        "observed": [{"role": m.role, "content": pack_text(m.content)} for m in turn.observed],
        "spans": [{"start": s.start, "end": s.end, "version": s.version, "producer": s.producer} for s in turn.spans],
        "finish": turn.finish,
        "rewards": _named(turn.rewards),
        "env_rewards": None if turn.env_rewards is None else _named(turn.env_rewards),
        "terminated": turn.terminated,
        "truncated": turn.truncated,
        "values": [{"name": pack_text(name), "values": values} for name, values in turn.values.items()],
        "state_key": pack_text(turn.state_key),
        "attempt": turn.attempt,
        "attachments": [_attachment_row(attachment) for attachment in turn.attachments],
        "timings": {"engine_wait_s": times.engine_wait_s, "generate_s": times.generate_s, "env_s": times.env_s},
    }


def _attachment_row(attachment: Attachment) -> dict[str, Any]:
    path = None if attachment.path is None else pack_text(attachment.path)
    return {"sha256": attachment.sha256, "media_type": attachment.media_type, "path": path}


def _read_turns(rows: Iterable[Mapping[str, Any]], *, owner: str) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    seen: tuple[int, ...] = ()
    for place, row in enumerate(rows):
        require_turn(row, owner)
        shared = row["prompt_shared"]
        if row["turn"] != place or not 0 <= shared <= len(seen):
            raise ValueError(f"turn {place} is numbered {row['turn']} and shares {shared} of {len(seen)} ids before it")
        turn = _read_turn(row, seen[:shared] + tuple(row["prompt_new"]))
        turns.append(turn)
        seen = turn.prompt_ids + turn.action_ids
    return tuple(turns)


def _read_turn(row: Mapping[str, Any], prompt_ids: tuple[int, ...]) -> Turn:
    return Turn(
        prompt_ids=prompt_ids,
        action_ids=tuple(row["action_ids"]),
        action_logprobs=tuple(row["action_logprobs"]),
        text=unpack_text(row["text"]),
        acted=None if row.get("acted") is None else unpack_text(row["acted"]),
        observed=tuple(Message(role=m["role"], content=unpack_text(m["content"])) for m in row["observed"]),
        spans=tuple(Span(**span) for span in row["spans"]),
        finish=row["finish"],
        rewards=_read_named(row["rewards"]),
        env_rewards=None if row.get("env_rewards") is None else _read_named(row["env_rewards"]),
        terminated=row["terminated"],
        truncated=row["truncated"],
        values={unpack_text(v["name"]): tuple(v["values"]) for v in row["values"]},
        state_key=unpack_text(row["state_key"]),
        attempt=row["attempt"],
        attachments=tuple(_read_attachment(a) for a in row["attachments"]),
        timings=Timings(**row["timings"]),
    )


def _read_attachment(row: Mapping[str, Any]) -> Attachment:
    path = None if row["path"] is None else unpack_text(row["path"])
    return Attachment(sha256=row["sha256"], media_type=row["media_type"], path=path)
