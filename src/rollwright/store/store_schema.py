"""The columns of a store: two Parquet schemas, what each version of them has, and what makes a file readable.

Pure: no files. A column that was added later is empty in a shard of an older version, and reads as the field's default.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

SCHEMA_VERSION = 3
"""The version that is written."""
VERSION_KEY = b"rollwright.schema_version"
PAIR_KEY = b"rollwright.shard"
"""In the metadata of both files of a shard: the same mark, which no other shard has. Older shards have none."""
TABLES: tuple[str, str] = ("trajectories", "turns")

# Named numbers are lists of pairs and not Arrow maps: `datasets` has no map type.
_NAMED = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
_PLACED = pa.list_(pa.struct([("position", pa.int64()), ("name", pa.string()), ("value", pa.float64())]))
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
        ("success", pa.bool_()),
        ("score", _SCORE),
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
        ("kind", pa.string()),  # null for an act
        ("acted", pa.string()),  # null where the same
        (
            "observed",
            pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("parts", pa.list_(_PART))])),
        ),
        ("spans", pa.list_(_SPAN)),
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

_WEIGHTS = frozenset({"policy_weights", "value_weights", "kl_weights"})
ADDED_IN_3 = _WEIGHTS | {"world", "branch", "score.turn_parts_at", "start.prefix_tokens", "observed.parts"}
ADDED_IN_3 |= {"kind", "rewards_at", "costs", "sampler_mask"}
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
