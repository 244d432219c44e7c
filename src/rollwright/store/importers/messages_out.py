"""Stored trajectories as OpenAI messages, one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollwright.contracts import Message, Trajectory, Turn
from rollwright.store.importers.tool_text import call_text, openai_calls, result_text, tools_text
from rollwright.store.trajectory_store import TrajectoryStore

Line = dict[str, Any]


def export_messages(store: TrajectoryStore) -> Iterator[str]:
    """JSON lines of every trajectory with a turn, in the order stored; faults carry their `stop_reason`.

    An episode whose prompts do not continue each other (a windowed context) becomes one line per turn.
    """
    for trajectory in store.iter_trajectories():
        for line in message_lines(trajectory):
            text = json.dumps(line, ensure_ascii=False)
            # UTF-8 has no lone surrogates: such a line is written in ASCII, where they are escapes.
            yield json.dumps(line) if any("\ud800" <= char <= "\udfff" for char in text) else text


def message_lines(trajectory: Trajectory) -> list[Line]:
    """The conversations of one trajectory, with what `rollwright import messages` reads beside them."""
    parts = _conversations(trajectory)
    # A world's own params may hold other things under the names `sources`, `tools` and `rest`.
    params = trajectory.task.params if trajectory.origin == "log" else {}
    lines = []
    for number, turns in enumerate(parts):
        said = [message for turn in turns for message in _said(turn)]
        # `rest` came after the last answer of the log, so that it belongs to its last part.
        said += [dict(rest) for rest in _listed(params.get("rest"))] if turns is parts[-1] else []
        line: Line = {"id": trajectory.id if len(parts) == 1 else f"{trajectory.id}#{number}"}
        line |= {"task_id": trajectory.task.id, "split": trajectory.task.split, "messages": _restored(said, params)}
        line |= {"tools": list(params["tools"])} if params.get("tools") else {}
        line |= {"rewards": [turn.reward for turn in turns]} if any(turn.rewards for turn in turns) else {}
        line |= {} if trajectory.success is None else {"success": trajectory.success}
        line |= {"stop_reason": trajectory.stop_reason.value} if trajectory.stop_reason.is_fault else {}
        lines.append(line)
    return lines


def _conversations(trajectory: Trajectory) -> list[Sequence[Turn]]:
    """The turns of each growing conversation: all of a log's, those of a played episode as its prompts say."""
    if trajectory.origin == "log":
        # Not by the ids: a template that rewrites history gives a log prompts that do not continue each other.
        return [trajectory.turns] if trajectory.turns else []
    parts: list[list[Turn]] = []
    seen: tuple[int, ...] = ()
    for turn in trajectory.turns:
        # A turn that does not begin with all of the one before it was shown a window: a new conversation.
        if parts and turn.prompt_ids[: len(seen)] == seen:
            parts[-1].append(turn)
        else:
            parts.append([turn])
        seen = turn.prompt_ids + turn.action_ids
    return list(parts)


def _said(turn: Turn) -> list[Line]:
    observed: Sequence[Message] = turn.observed
    shown: list[Line] = [{"role": message.role, "content": message.content} for message in observed]
    answer: Line = {"role": "assistant", "content": turn.text}
    # Nobody chose these tokens, so a trainer that reads the export must not imitate them either.
    return [*shown, answer if any(turn.action_mask) or not turn.action_ids else answer | {"weight": 0}]


def _restored(said: Sequence[Line], params: Mapping[str, Any]) -> list[Line]:
    """Tool calls and results as they were, where the text is still what the import made of them."""
    sources = params.get("sources")
    if not isinstance(sources, Mapping):
        return list(said)
    found = []
    for at, line in enumerate(said):
        # The place still fits: an import keeps every message, and those without a source are passed through.
        source = sources.get(str(at))
        restored = _original(line, source, params) if isinstance(source, Mapping) else line
        found += [] if restored is None else [restored]
    return found


def _original(line: Line, source: Mapping[str, Any], params: Mapping[str, Any]) -> Line | None:
    content, calls = source.get("content"), source.get("tool_calls")
    match line["role"]:
        # Each case compares first: a text that is not what the import made goes out as it stands.
        case "system" if line["content"] == tools_text(content or "", _listed(params.get("tools"))):
            return None if content is None else {"role": "system", "content": content}
        case "user" if line["content"] == result_text(content or ""):
            names = {key: source[key] for key in ("tool_call_id", "name") if key in source}
            return {"role": "tool", "content": content, **names}
        # Stripped, as a tokenizer may change blanks at the ends.
        case "assistant" if calls and line["content"].strip() == call_text(content or "", calls).strip():
            return {**line, "content": content or None, "tool_calls": openai_calls(calls)}
    return line


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
