"""What a stored row must hold to be believed: checked whenever a row is read. Pure: no files.

Checksums say that the bytes are those that were written, not that a sound writer wrote them, nor that a turn still lies
beside its own trajectory. What these checks refuse would be learned from as if it were something else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rollwright.contracts import FINISHES, ORIGINS, PRODUCERS, ROLES, SPLITS, START_KINDS, StopReason
from rollwright.store.store_schema import NULLABLE

MAX_LOGPROB = 1e-3
"""A log-prob is at most 0; an engine that computes in bfloat16 may round it to a little more."""
MIN_LOGPROB = -1e30
"""No sampled token has the probability 0, and what float32 cannot hold would become that."""
STOP_REASONS = tuple(reason.value for reason in StopReason)

Row = Mapping[str, Any]


def require_values(row: Row) -> None:
    """ValueError where a column, or an entry of its list, has no value and must have one."""
    empty = [n for n, v in row.items() if n not in NULLABLE and (v is None or (isinstance(v, list) and None in v))]
    if empty:
        raise ValueError(f"no value in the columns {', '.join(empty)}")


def require_header(row: Row) -> None:
    """ValueError where a row of the trajectories' table cannot be that of an episode."""
    require_values(row)
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
    for column in ("rewards", "env_rewards", "costs"):
        if parts := row.get(column):
            _require_parts(column, parts)
    _require_once("values", row["values"])
    for critic in row["values"]:
        _require_finite("values", critic["values"])


def require_total(stored: float, total: float) -> None:
    """ValueError where a trajectory's turns do not add up to the return that its row names."""
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
    if ids and min(ids) < 0:
        raise ValueError(f"{column} holds the token id {min(ids)}; ids are 0 or more")


def _require_logprobs(logprobs: Sequence[float]) -> None:
    odd = [value for value in logprobs if not MIN_LOGPROB <= value <= MAX_LOGPROB]  # NaN too
    if odd:
        raise ValueError(f"action_logprobs holds {odd[0]}; the logarithm of a probability is finite and at most 0")


def _require_span(span: Row, length: int) -> None:
    _require_word("producer", span["producer"], PRODUCERS)
    if not 0 <= span["start"] <= span["end"] <= length:
        raise ValueError(f"a span of tokens {span['start']} to {span['end']} lies in an action of {length}")
