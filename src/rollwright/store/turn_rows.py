"""The stored form of turns: records to rows of `TURN_SCHEMA` and back. Pure: no files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rollwright.contracts import (
    ACT,
    Attachment,
    ImagePart,
    Message,
    Part,
    PlacedReward,
    SamplerMask,
    Span,
    TextPart,
    Timings,
    Trajectory,
    Turn,
)
from rollwright.store.store_checks import require_turn

Row = Mapping[str, Any]

# A NUL cannot begin an ordinary text by accident, and `pack_text` escapes a text that does begin like this.
_ESCAPED = "\x00json:"


def pack_text(text: str) -> str:
    """Text as Parquet can hold it: page text may carry lone surrogates, which UTF-8 cannot. Undone by `unpack_text`."""
    if text.startswith(_ESCAPED) or any("\ud800" <= char <= "\udfff" for char in text):
        return _ESCAPED + json.dumps(text)  # ASCII: a lone surrogate becomes \udXXX
    return text


def unpack_text(stored: str) -> str:
    """The text that `pack_text` was given."""
    return str(json.loads(stored[len(_ESCAPED) :])) if stored.startswith(_ESCAPED) else stored


def named_rows(parts: Mapping[str, float]) -> list[dict[str, Any]]:
    """Named numbers as a list of pairs. Undone by `read_named`."""
    return [{"name": pack_text(name), "value": float(value)} for name, value in parts.items()]


def read_named(rows: Iterable[Row]) -> dict[str, float]:
    """The named numbers that `named_rows` was given."""
    return {unpack_text(row["name"]): row["value"] for row in rows}


def placed_rows(parts: Iterable[PlacedReward]) -> list[dict[str, Any]]:
    """Rewards inside an action, as rows. Undone by `read_placed`."""
    return [{"position": p.position, "name": pack_text(p.name), "value": float(p.value)} for p in parts]


def read_placed(rows: Iterable[Row]) -> tuple[PlacedReward, ...]:
    """The rewards that `placed_rows` was given."""
    return tuple(
        PlacedReward(position=row["position"], name=unpack_text(row["name"]), value=row["value"]) for row in rows
    )


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading ids two tuples have in common. Halving over slices: the comparison itself runs in C."""
    low, high = 0, min(len(first), len(second))
    # The usual case of a growing history: all of the shorter one is shared.
    if first[:high] == second[:high]:
        return high
    while low < high:
        # Rounded up: rounded down, `low = middle` would stand still where high = low + 1.
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:  # ids before `low` are known to agree
            low = middle
        else:
            high = middle - 1
    return low


def turn_rows(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The rows of `TURN_SCHEMA` of one trajectory, in order.

    A growing history repeats itself in every prompt; only what is new against the previous turn is kept, so an
    append-only episode of n turns takes O(n) ids and not O(n^2).
    """
    rows: list[dict[str, Any]] = []
    seen: tuple[int, ...] = ()
    for index, turn in enumerate(trajectory.turns):
        shared = common_length(seen, turn.prompt_ids)
        place = {"trajectory_id": pack_text(trajectory.id), "turn": index, "prompt_shared": shared}
        rows.append(place | {"prompt_new": turn.prompt_ids[shared:]} | _turn_fields(turn))
        # The next prompt of a growing context begins with this; a windowed one shares less, and stores more.
        seen = turn.prompt_ids + turn.action_ids
    return rows


def read_turns(rows: Iterable[Row], *, owner: str) -> tuple[Turn, ...]:
    """The turns of one trajectory from their rows, in order: the inverse of `turn_rows`.

    Args:
        owner: the trajectory's id as its own row holds it.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the rows are no turns, or not this trajectory's.
    """
    turns: list[Turn] = []
    seen: tuple[int, ...] = ()
    for place, row in enumerate(rows):
        require_turn(row, owner)
        shared = row["prompt_shared"]
        # A slice beyond `seen` is no error in Python: the prompt would come back shorter than it was.
        if row["turn"] != place or not 0 <= shared <= len(seen):
            raise ValueError(f"turn {place} is numbered {row['turn']} and shares {shared} of {len(seen)} ids before it")
        turn = _read_turn(row, seen[:shared] + tuple(row["prompt_new"]))
        turns.append(turn)
        seen = turn.prompt_ids + turn.action_ids
    return tuple(turns)


def _turn_fields(turn: Turn) -> dict[str, Any]:
    times = turn.timings
    return {
        "action_ids": turn.action_ids,
        "action_logprobs": turn.action_logprobs,
        "text": pack_text(turn.text),
        # None for the usual value of a column: a column that is null in all rows costs next to nothing.
        "kind": None if turn.kind == ACT else turn.kind,
        "acted": None if turn.acted is None else pack_text(turn.acted),
        "observed": [_message_row(message) for message in turn.observed],
        "spans": [{"start": s.start, "end": s.end, "version": s.version, "producer": s.producer} for s in turn.spans],
        "finish": turn.finish,
        "rewards": named_rows(turn.rewards),
        "rewards_at": placed_rows(turn.rewards_at) or None,
        # Not `or None`: an environment that paid nothing is an empty list, null says "the same as `rewards`".
        "env_rewards": None if turn.env_rewards is None else named_rows(turn.env_rewards),
        "costs": named_rows(turn.costs) or None,
        "terminated": turn.terminated,
        "truncated": turn.truncated,
        "values": [{"name": pack_text(name), "values": values} for name, values in turn.values.items()],
        "policy_weights": turn.policy_weights,
        "value_weights": turn.value_weights,
        "kl_weights": turn.kl_weights,
        "sampler_mask": None if turn.sampler_mask is None else _mask_row(turn.sampler_mask),
        "state_key": pack_text(turn.state_key),
        "attempt": turn.attempt,
        "attachments": [_attachment_row(attachment) for attachment in turn.attachments],
        "timings": {"engine_wait_s": times.engine_wait_s, "generate_s": times.generate_s, "env_s": times.env_s},
    }


def _message_row(message: Message) -> dict[str, Any]:
    parts = [_part_row(part) for part in message.parts] or None
    return {"role": message.role, "content": pack_text(message.content), "parts": parts}


def _part_row(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": pack_text(part.text)}
    return {"sha256": part.sha256, "media_type": part.media_type}


def _mask_row(mask: SamplerMask) -> dict[str, Any]:
    return {"mask_id": pack_text(mask.mask_id), "kept_ids": mask.kept_ids, "raw_logprobs": mask.raw_logprobs}


def _attachment_row(attachment: Attachment) -> dict[str, Any]:
    path = None if attachment.path is None else pack_text(attachment.path)
    return {"sha256": attachment.sha256, "media_type": attachment.media_type, "path": path}


def _read_turn(row: Row, prompt_ids: tuple[int, ...]) -> Turn:
    return Turn(
        prompt_ids=prompt_ids,
        action_ids=tuple(row["action_ids"]),
        action_logprobs=tuple(row["action_logprobs"]),
        text=unpack_text(row["text"]),
        # `get` for what an older shard lacks, or `without_empty_columns` dropped from the block.
        kind=row.get("kind") or ACT,
        acted=None if row.get("acted") is None else unpack_text(row["acted"]),
        observed=tuple(_read_message(message) for message in row["observed"]),
        spans=tuple(Span(**span) for span in row["spans"]),
        finish=row["finish"],
        rewards=read_named(row["rewards"]),
        rewards_at=read_placed(row.get("rewards_at") or ()),
        env_rewards=None if row.get("env_rewards") is None else read_named(row["env_rewards"]),
        costs=read_named(row.get("costs") or ()),
        terminated=row["terminated"],
        truncated=row["truncated"],
        values={unpack_text(v["name"]): tuple(v["values"]) for v in row["values"]},
        policy_weights=_numbers(row.get("policy_weights")),
        value_weights=_numbers(row.get("value_weights")),
        kl_weights=_numbers(row.get("kl_weights")),
        sampler_mask=None if row.get("sampler_mask") is None else _read_mask(row["sampler_mask"]),
        state_key=unpack_text(row["state_key"]),
        attempt=row["attempt"],
        attachments=tuple(_read_attachment(a) for a in row["attachments"]),
        timings=Timings(**row["timings"]),
    )


def _numbers(stored: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if stored is None else tuple(stored)


def _read_message(row: Row) -> Message:
    stored = row.get("parts")
    parts = tuple(_read_part(part) for part in stored) if stored else ()
    return Message(role=row["role"], content=unpack_text(row["content"]), parts=parts)


def _read_part(row: Row) -> Part:
    if row["text"] is not None:
        return TextPart(text=unpack_text(row["text"]))
    return ImagePart(sha256=row["sha256"], media_type=row["media_type"])


def _read_mask(row: Row) -> SamplerMask:
    kept = None if row["kept_ids"] is None else tuple(tuple(ids) for ids in row["kept_ids"])
    return SamplerMask(mask_id=unpack_text(row["mask_id"]), kept_ids=kept, raw_logprobs=_numbers(row["raw_logprobs"]))


def _read_attachment(row: Row) -> Attachment:
    path = None if row["path"] is None else unpack_text(row["path"])
    return Attachment(sha256=row["sha256"], media_type=row["media_type"], path=path)
