"""Episodes as the page reads them: rows of a list, and one episode turn by turn with its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from rollwright.contracts import ACT, StopReason, Trajectory, Turn
from rollwright.store import Ref, common_length, unpack_text
from rollwright.view.live.episode_index import EpisodeIndex
from rollwright.view.transcripts import origins, outcome

MAX_SHOWN_TOKENS = 400_000
"""Of one episode: the turns behind so many new prompt tokens and action tokens are left out of the answer."""
# Stored packed, since page text may hold half surrogates.
_TEXTS = ("id", "tag", "task", "policy", "fault", "branch")
_FAULTS = {reason.value for reason in StopReason if reason.is_fault}

LoggedTurns = Mapping[tuple[str, int], Mapping[str, Any]]
"""(episode's id, number of the turn) -> what the token log says of the turn's action, one entry per action id."""


def episode_rows(
    index: EpisodeIndex, places: Sequence[int], logged: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """The rows of a list.

    Args:
        places: rows of the index.
        logged: tags of which the token log has something.
    """
    return [_row(raw, logged) for raw in index.table.take(pa.array(places, pa.int64())).to_pylist()]


def _row(raw: dict[str, Any], logged: frozenset[str]) -> dict[str, Any]:
    row = raw | {name: unpack_text(raw[name]) for name in _TEXTS if raw[name] is not None}
    # Shard and row name an episode for good; a place in the list changes when a resumed run sets shards aside.
    row["key"] = f"{row.pop('shard')}.{row.pop('row')}"
    row["is_fault"] = row["stop"] in _FAULTS
    row["tokens_logged"] = row["tag"] in logged
    return row


def ref_of(key: str) -> Ref | None:
    """The place that a key of the page names; None where it names none."""
    shard, dot, row = key.partition(".")
    # `isdecimal` alone takes other scripts' digits; nine digits stay within 32 bits.
    if dot and all(part.isascii() and part.isdecimal() and len(part) < 10 for part in (shard, row)):
        return Ref(int(shard), int(row))
    return None


def episode_answer(episode: Trajectory, logged: LoggedTurns, max_tokens: int = MAX_SHOWN_TOKENS) -> dict[str, Any]:
    """One episode without its place in the run: what it was, and its turns.

    The prompt of a turn is `(previous prompt + previous action)[:shared] + prompt`: a growing history is sent once.
    """
    turns: list[dict[str, Any]] = []
    seen: tuple[int, ...] = ()
    spent = 0
    for number, turn in enumerate(episode.turns):
        # Not every turn continues the one before: a windowed prompt may begin anew.
        shared = common_length(seen, turn.prompt_ids)
        spent += len(turn.prompt_ids) - shared + len(turn.action_ids)
        # The first turn is always shown, however long it is.
        if turns and spent > max_tokens:
            break
        turns.append(_turn_answer(number, turn, shared, logged.get((episode.id, number))))
        # What the next prompt begins with where the history only grows.
        seen = turn.prompt_ids + turn.action_ids
    kept = [turn["log"] for turn in turns if turn["log"]]
    return {
        "params": dict(episode.task.params),
        "world": None if episode.world is None else asdict(episode.world),
        "start": asdict(episode.start),
        "branch": None if episode.branch is None else asdict(episode.branch),
        "score": None if episode.score is None else _score(episode),
        "fault": episode.fault,
        "notes": origins(episode),
        "num_turns": len(episode.turns),
        "truncated": len(turns) < len(episode.turns),
        "channels": list(dict.fromkeys(name for turn in episode.turns for name in turn.rewards)),
        "costs": list(dict.fromkeys(name for turn in episode.turns for name in turn.costs)),
        "logged": [name for name in _LOGGED if any(log.get(name) is not None for log in kept)],
        "turns": turns,
    }


_LOGGED = ("advantages", "diffs", "entropies", "masks", "weights", "values", "returns")


def shown_ids(turns: Sequence[Mapping[str, Any]]) -> set[int]:
    """The token ids that an answer's turns name."""
    return {token for turn in turns for ids in (turn["prompt"], turn["action"]) for token in ids}


def _score(episode: Trajectory) -> dict[str, Any]:
    assert episode.score is not None
    score = episode.score
    return {
        "value": score.value,
        "verifier": score.verifier,
        "parts": dict(score.parts),
        "message": score.message,
    }


def _turn_answer(number: int, turn: Turn, shared: int, log: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "index": number,
        "kind": turn.kind,
        "is_act": turn.kind == ACT,
        "attempt": turn.attempt,
        "observed": [
            {
                "role": message.role,
                "content": message.content,
                # Parts without a hash are text, which `content` holds already.
                "pictures": [part.sha256 for part in message.parts if hasattr(part, "sha256")],
            }
            for message in turn.observed
        ],
        "shared": shared,
        "prompt": list(turn.prompt_ids[shared:]),
        "action": list(turn.action_ids),
        "logprobs": list(turn.action_logprobs),
        "text": turn.text,
        "acted": turn.acted,
        "producers": [[span.producer, span.start, span.end] for span in turn.spans],
        "versions": [[span.version, span.start, span.end] for span in turn.spans],
        "mask": [int(chosen) for chosen in turn.action_mask],
        "rewards": dict(turn.rewards),
        "rewards_at": [asdict(placed) for placed in turn.rewards_at],
        "token_rewards": list(turn.token_rewards),
        "costs": dict(turn.costs),
        "env_rewards": None if turn.env_rewards is None else dict(turn.env_rewards),
        "values": {name: list(values) for name, values in turn.values.items()},
        "sampler_mask": "" if turn.sampler_mask is None else turn.sampler_mask.mask_id,
        "finish": turn.finish,
        "terminated": turn.terminated,
        "truncated": turn.truncated,
        "state_key": turn.state_key,
        "timings": asdict(turn.timings),
        "attachments": [{"sha256": a.sha256, "media_type": a.media_type} for a in turn.attachments],
        "outcome": outcome(turn),
        "log": None if log is None else dict(log),
    }
