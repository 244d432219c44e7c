"""What a stored row must hold to be believed: checked whenever a row is read. Pure: no files.

Checksums say that the bytes are those that were written, not that a sound writer wrote them, nor that a turn still lies
beside its own trajectory. What these checks refuse would be learned from as if it were something else.

The columns of a store: two Parquet schemas, what each version of them has, and what makes a file readable.

Pure: no files. A column that was added later is empty in a shard of an older version, and reads as the field's default.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rollwright.contracts import FINISHES, ORIGINS, PRODUCERS, ROLES, SPLITS, START_KINDS, StopReason

SCHEMA_VERSION = 3
"""The version that is written."""
VERSION_KEY = b"rollwright.schema_version"
PAIR_KEY = b"rollwright.shard"
"""In the metadata of both files of a shard: the same mark, which no other shard has. Older shards have none."""
TABLES: tuple[str, str] = ("trajectories", "turns")

# Named numbers are lists of pairs and not Arrow maps: `datasets` has no map type.
_NAMED = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
_PLACED = pa.list_(pa.struct([("position", pa.int64()), ("name", pa.string()), ("value", pa.float64())]))
# int32 holds every vocabulary at half the size of int64.
_IDS = pa.list_(pa.int32())
_NUMBERS = pa.list_(pa.float64())

_SCORE = pa.struct(
    [
        ("value", pa.float64()),
        ("verifier", pa.string()),
        ("parts", _NAMED),
        ("turn_parts", pa.list_(_NAMED)),
        ("turn_parts_at", pa.list_(_PLACED)),
        ("message", pa.string()),
    ]
)
_START = pa.struct(
    [("kind", pa.string()), ("prefix_turns", pa.int64()), ("prefix_tokens", pa.int64()), ("source", pa.string())]
)
_PART = pa.struct([("text", pa.string()), ("sha256", pa.string()), ("media_type", pa.string())])  # text or a picture
_SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("version", pa.int64()), ("producer", pa.string())])

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
        ("success", pa.bool_()),  # null: no verdict
        ("score", _SCORE),  # null: not scored
        ("total_reward", pa.float64()),  # derived; here so that a query need not open the turns
        ("origin", pa.string()),
        ("policy", pa.string()),
        ("version", pa.int64()),
        ("world", pa.struct([("name", pa.string()), ("version", pa.string()), ("fingerprint", pa.string())])),
        ("start", _START),
        ("branch", pa.struct([("parent", pa.string()), ("turn", pa.int64()), ("token", pa.int64())])),
        ("temperature", pa.float64()),
        ("has_actions", pa.bool_()),
        ("fault", pa.string()),
        ("retries", pa.int64()),
        ("wall_s", pa.float64()),
        ("next_prompt_ids", _IDS),  # s' of a truncated end, [] elsewhere
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)

TURN_SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),  # repeated, to notice turns that have changed places
        ("turn", pa.int64()),
        ("prompt_shared", pa.int64()),  # leading ids equal to the previous turn's prompt_ids + action_ids
        ("prompt_new", _IDS),  # the ids after those
        ("action_ids", _IDS),
        ("action_logprobs", _NUMBERS),  # float64: what is read back equals what was sampled
        ("text", pa.string()),
        ("kind", pa.string()),  # null for an act
        ("acted", pa.string()),  # null where the same
        (
            "observed",
            pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("parts", pa.list_(_PART))])),
        ),
        ("spans", pa.list_(_SPAN)),  # token ranges [start, end) within the action
        ("finish", pa.string()),
        ("rewards", _NAMED),
        ("rewards_at", _PLACED),  # null where all lies on the last token
        ("env_rewards", _NAMED),  # null where the same
        ("costs", _NAMED),  # null where there are none
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("values", pa.list_(pa.struct([("name", pa.string()), ("values", _NUMBERS)]))),
        ("policy_weights", _NUMBERS),  # null where all are 1
        ("value_weights", _NUMBERS),
        ("kl_weights", _NUMBERS),
        (
            "sampler_mask",
            pa.struct([("mask_id", pa.string()), ("kept_ids", pa.list_(_IDS)), ("raw_logprobs", _NUMBERS)]),
        ),
        ("state_key", pa.string()),
        ("attempt", pa.int64()),  # among the attempts at one task, from 0
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

_WEIGHTS = frozenset({"policy_weights", "value_weights", "kl_weights"})
# `column.field` names a field within a struct, or within the structs of a list: see `_before`.
ADDED_IN_3 = _WEIGHTS | {"world", "branch", "score.turn_parts_at", "start.prefix_tokens", "observed.parts"}
ADDED_IN_3 |= {"kind", "rewards_at", "costs", "sampler_mask"}
# `require_values` looks at top-level columns alone: a nested field that came later is null within its struct.
NULLABLE = frozenset({"success", "score", "env_rewards", "acted"}) | {n for n in ADDED_IN_3 if "." not in n}
"""Columns that may be empty in a row; every other one has a value in each."""

_LATER = frozenset({"env_rewards", "acted"})  # columns that some shards of version 2 lack: read as null


def _before(schema: pa.Schema, added: Collection[str], version: int) -> pa.Schema:
    """The schema without columns, and fields within columns (`column.field`), that came later."""
    fields = [
        field.with_type(_without(field.type, {n.partition(".")[2] for n in added if n.startswith(f"{field.name}.")}))
        for field in schema
        if field.name not in added
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(version)})


def _without(kind: pa.DataType, names: Collection[str]) -> pa.DataType:
    if not names:
        return kind
    if pa.types.is_list(kind):
        return pa.list_(_without(kind.value_type, names))
    return pa.struct([field for field in kind if field.name not in names])


SCHEMAS: dict[str, tuple[pa.Schema, pa.Schema]] = {
    "2": (_before(TRAJECTORY_SCHEMA, ADDED_IN_3, 2), _before(TURN_SCHEMA, ADDED_IN_3, 2)),
    str(SCHEMA_VERSION): (TRAJECTORY_SCHEMA, TURN_SCHEMA),
}
"""Every version that is read, with the columns of its two tables."""


def schema_fault(found: pa.Schema, expected: pa.Schema) -> str:
    """What a table's columns lack to be read as `expected`; "" where nothing. Columns beyond those are no fault."""
    lacking = sorted({field.name for field in expected} - set(found.names) - _LATER)
    if lacking:
        return f"lacks the columns {', '.join(lacking)}"
    for field in expected:  # nullability too: it decides how the bytes are read
        if field.name in found.names and not found.field(field.name).equals(field):
            return f"has the column {found.field(field.name)}, expected {field}"
    return ""


MAX_LOGPROB = 1e-3
"""A log-prob is at most 0; an engine that computes in bfloat16 may round it to a little more."""
MIN_LOGPROB = -1e30
"""No sampled token has the probability 0, and what float32 cannot hold would become that."""
STOP_REASONS = tuple(reason.value for reason in StopReason)

Row = Mapping[str, Any]


def require_values(row: Row) -> None:
    """ValueError where a column, or an entry of its list, has no value and must have one."""
    # Parquet lets any column be null; unchecked, a null among ids is a TypeError that names no column.
    empty = [n for n, v in row.items() if n not in NULLABLE and (v is None or (isinstance(v, list) and None in v))]
    if empty:
        raise ValueError(f"no value in the columns {', '.join(empty)}")


def require_header(row: Row) -> None:
    """ValueError where a row of the trajectories' table cannot be that of an episode."""
    require_values(row)
    # `headers` yields rows of which no record is built: nothing else would refuse an unknown word there.
    _require_word("stop_reason", row["stop_reason"], STOP_REASONS)
    _require_word("task_split", row["task_split"], SPLITS)
    _require_word("origin", row["origin"], ORIGINS)
    _require_word("start.kind", row["start"]["kind"], START_KINDS)
    _require_finite("total_reward", [row["total_reward"]])
    _require_finite("temperature", [row["temperature"]])
    _require_ids("next_prompt_ids", row["next_prompt_ids"])
    if row["score"] is not None:
        _require_parts("score.parts", row["score"]["parts"])


def require_turn(row: Row, owner: str) -> None:
    """ValueError where a row of the turns' table is not a turn of this trajectory, or cannot be a turn.

    Args:
        owner: the trajectory's id as its own row holds it.
    """
    require_values(row)
    if row["trajectory_id"] != owner:
        raise ValueError(f"a turn of trajectory {row['trajectory_id']!r} lies among those of {owner!r}")
    _require_ids("prompt_new", row["prompt_new"])
    _require_ids("action_ids", row["action_ids"])
    _require_logprobs(row["action_logprobs"])
    _require_word("finish", row["finish"], FINISHES)
    for message in row["observed"]:
        _require_word("role", message["role"], ROLES)
    for span in row["spans"]:
        _require_span(span, len(row["action_ids"]))
    # `get`: the last two are dropped from a block where no row has them, and older shards lack them.
    for column in ("rewards", "env_rewards", "costs"):
        if parts := row.get(column):
            _require_parts(column, parts)
    # A name that stands twice would be lost without a word: readers make a dict of these pairs.
    _require_once("values", row["values"])
    for critic in row["values"]:
        _require_finite("values", critic["values"])


def require_total(stored: float, total: float) -> None:
    """ValueError where a trajectory's turns do not add up to the return that its row names."""
    # Not equality: the order of a sum decides its last digits, and another writer may have summed otherwise.
    if not math.isclose(stored, total, rel_tol=1e-9, abs_tol=1e-9):
        raise ValueError(f"its turns earned {total:g}, its row says total_reward = {stored:g}")


def _require_word(column: str, word: Any, known: Sequence[str]) -> None:
    if word not in known:
        raise ValueError(f"{column} is {word!r}; known are {', '.join(known)}")


def _require_finite(column: str, values: Sequence[float]) -> None:
    odd = [value for value in values if not math.isfinite(value)]
    if odd:
        raise ValueError(f"{column} holds {odd[0]}; expected finite numbers")


def _require_parts(column: str, parts: Sequence[Row]) -> None:
    _require_finite(column, [part["value"] for part in parts])
    _require_once(column, parts)


def _require_once(column: str, named: Sequence[Row]) -> None:
    names = [entry["name"] for entry in named]
    if len(set(names)) != len(names):
        raise ValueError(f"{column} holds a name twice: {', '.join(names)}")


def _require_ids(column: str, ids: Sequence[int]) -> None:
    # On a GPU an embedding answers a negative id with an assertion that names no row and ends the process.
    if ids and min(ids) < 0:
        raise ValueError(f"{column} holds the token id {min(ids)}; ids are 0 or more")


def _require_logprobs(logprobs: Sequence[float]) -> None:
    # Written as `not (low <= x <= high)`, because every comparison with NaN is false.
    odd = [value for value in logprobs if not MIN_LOGPROB <= value <= MAX_LOGPROB]  # NaN too
    if odd:
        raise ValueError(f"action_logprobs holds {odd[0]}; the logarithm of a probability is finite and at most 0")


def _require_span(span: Row, length: int) -> None:
    _require_word("producer", span["producer"], PRODUCERS)
    # Slices clip in silence: a span that reaches too far would mask other tokens than it names.
    if not 0 <= span["start"] <= span["end"] <= length:
        raise ValueError(f"a span of tokens {span['start']} to {span['end']} lies in an action of {length}")
