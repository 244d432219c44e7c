"""Conversations: OpenAI messages and ShareGPT. One row is one episode; of a preference, two of one task.

Beside the conversation a row may hold `id`, `task_id` (rows with one are attempts at the same task), `split`,
`success`, `reward` (on the last turn) or `rewards` (one per assistant message), and `tools`. A row with `chosen` and
`rejected` is a preference: an episode that succeeds with reward 1, and one that fails with 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollwright.contracts import Message, Role, Task
from rollwright.store.importers.log_records import (
    Format,
    LoggedEpisode,
    LogRow,
    RowError,
    Step,
    Values,
    listed,
    mapping,
    number,
    split_of,
    strict_json,
    verdict,
    whole_json,
    whole_text,
)
from rollwright.store.importers.tool_text import (
    Call,
    call_text,
    read_call,
    read_calls,
    require_no_nulls,
    result_text,
    tools_text,
)

ROW_KEYS = {"messages", "conversations", "id", "task_id", "split", "success", "reward", "rewards", "tools", "system"}
ROW_KEYS |= {"chosen", "rejected", "prompt"}
MESSAGE_KEYS = {"role", "content", "tool_calls", "function_call", "tool_call_id", "name", "weight", "refusal", "audio"}
MESSAGE_KEYS |= {"reasoning_content"}
# OpenAI renamed "system" to "developer" for its reasoning models; most chat templates know only the first.
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# "function" is the API's older form, with `function_call` in place of `tool_calls`.
RESULTS = ("tool", "function")
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant"}
SHAREGPT |= {"chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "system": "system"}
SHAREGPT |= {"tool": "tool", "observation": "tool", "function_response": "tool"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One message in text; `source` is what an export needs to write it as it was, where the text differs."""

    role: Role
    text: str
    source: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True
    notes: tuple[str, ...] = ()


def read_openai(value: Any) -> Said:
    """A message of the chat completions API.

    Raises:
        RowError: an unknown role, content that is not text (a picture), nothing said at all, a malformed tool call.
    """
    message = mapping(value, "a message")
    role = message.get("role")
    unread = tuple(f"a message's `{key}` is not read" for key, given in message.items() if _is_odd(key, given))
    # The answer then stands outside of `content`, and the rest would be imitated in its place.
    if any(message.get(key) for key in ("refusal", "audio")):
        raise RowError("a message with a refusal or audio in place of text")
    if role in RESULTS:
        content = _content(message.get("content"), empty=True)  # a tool may have nothing to say
        # Kept beside the text alone: an export needs them, the policy never sees them.
        named = {key: message[key] for key in ("tool_call_id", "name") if isinstance(message.get(key), str)}
        return Said(role="user", text=result_text(content), source={"content": content, **named}, notes=unread)
    if not isinstance(role, str) or role not in ROLES:
        raise RowError("an unknown role", repr(role))
    if ROLES[role] == "assistant":
        return _assistant(message, unread)
    return Said(role=ROLES[role], text=_content(message.get("content")), notes=unread)


def _is_odd(key: str, given: Any) -> bool:
    return key not in MESSAGE_KEYS and given is not None


def _assistant(message: Values, notes: tuple[str, ...]) -> Said:
    calls: list[Call] = read_calls(message["tool_calls"]) if message.get("tool_calls") else []
    if message.get("function_call"):
        calls.append(read_call(message["function_call"]))
    weight = message.get("weight")
    # OpenAI's fine-tuning format allows 0 and 1, and nothing in between.
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise RowError("a message's weight is neither 0 nor 1", repr(weight))
    # The API sends null beside calls; without calls null would be an answer of nothing.
    content = "" if calls and message.get("content") is None else _content(message.get("content"), empty=bool(calls))
    thought = message.get("reasoning_content")
    if thought:
        # As reasoning models write it themselves; it is part of the action, and imitated with it.
        content = f"<think>\n{whole_text(thought, 'reasoning_content')}\n</think>\n\n{content}"
    source = {"content": content, "tool_calls": calls} if calls else {}
    return Said(role="assistant", text=call_text(content, calls), source=source, trained=weight != 0, notes=notes)


def _content(value: Any, *, empty: bool = False) -> str:
    """The text of a message's content: a text, or parts that are all text."""
    if isinstance(value, list | tuple):
        parts = [mapping(part, "a part of a message") for part in value]
        # The kinds of text of the chat API, and of the responses API for what goes in and comes out.
        if odd := [part.get("type") for part in parts if part.get("type") not in ("text", "input_text", "output_text")]:
            raise RowError("a message with a part that is not text", repr(odd[0]))
        value = "".join(whole_text(part.get("text"), "a part's text") for part in parts)
    if value is None:
        raise RowError("a message without content")
    text = whole_text(value, "a message's content")
    if not text.strip() and not empty:
        raise RowError("an empty message")
    return text


def read_sharegpt(value: Any) -> Said:
    """A message of ShareGPT: `from` and `value`; `function_call` and `observation` as LLaMA-Factory has them."""
    message = mapping(value, "a message")
    who, text = message.get("from"), message.get("value")
    if who == "function_call":
        calls = strict_call(whole_text(text, "a function call"))
        return Said(role="assistant", text=call_text("", calls), source={"content": "", "tool_calls": calls})
    if not isinstance(who, str) or who not in SHAREGPT:
        raise RowError("an unknown role", repr(who))
    notes = tuple(f"a message's `{k}` is not read" for k, v in message.items() if k not in ("from", "value") and v)
    # One reader for both, so that the same conversation gives the same episode in either format.
    said = read_openai({"role": SHAREGPT[who], "content": text})
    return Said(role=said.role, text=said.text, source=said.source, notes=notes)


def strict_call(text: str) -> list[Call]:
    """The call, or the list of calls, that a function call's text spells as JSON. Raises RowError."""
    try:
        found = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise RowError("a function call that is not JSON", error) from error
    return [read_call(call) for call in (found if isinstance(found, list) else [found])]


def openai_rows(rows: Sequence[LogRow], name: str) -> list[LoggedEpisode]:
    """The episodes of a row with `messages`, or with `chosen` and `rejected`."""
    return _episodes(rows[0], name, "messages", read_openai)


def sharegpt_rows(rows: Sequence[LogRow], name: str) -> list[LoggedEpisode]:
    """The episodes of a row with `conversations`, or with `chosen` and `rejected`."""
    return _episodes(rows[0], name, "conversations", read_sharegpt)


def _episodes(row: LogRow, name: str, key: str, read: Any) -> list[LoggedEpisode]:
    values = row.value
    notes = tuple(f"the column `{k}` is not read" for k, v in values.items() if k not in ROW_KEYS and v is not None)
    if values.get("chosen") is not None or values.get("rejected") is not None:
        # Both sides under one task: `recipes/reward_pairs.py` pairs a task's successes with its failures.
        pairs = [("chosen", 1.0, True), ("rejected", 0.0, False)]
        return [
            episode(row, f"{name}/{side}", _side(values, side, read), task=name, rewards=[paid], won=won, notes=notes)
            for side, paid, won in pairs
        ]
    if values.get(key) is None:
        other = next((k for k in ("messages", "conversations") if values.get(k) is not None), None)
        raise RowError(f"the row has no `{key}`", f"it has `{other}`: is this the other format?" if other else "")
    said = [read(message) for message in _messages(values[key], key)]
    return [episode(row, name, said, task=name, notes=notes)]


def _messages(value: Any, what: str) -> list[Any]:
    """A list of messages; `datasets` may hold one as a map of lists."""
    if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
        length = {len(column) for column in value.values()}
        # Columns of unequal length are no map of lists: `listed` then says that it is no list.
        if len(length) == 1:
            value = [dict(zip(value, entry, strict=True)) for entry in zip(*value.values(), strict=True)]
    return listed(value, f"`{what}`")


def _side(values: Values, side: str, read: Any) -> list[Said]:
    """One side of a preference, with the prompt before it, where that stands apart (a text, or messages)."""
    prompt, answer = values.get("prompt"), values.get(side)
    if isinstance(answer, str):
        # Both spellings, as `read` may be that of either format.
        answer = [{"role": "assistant", "content": answer, "from": "gpt", "value": answer}]
        if prompt is None:
            raise RowError("a preference of two texts without a `prompt`")
    # A map whose values are all lists is a list of messages as `datasets` holds it: see `_messages`.
    elif isinstance(answer, Mapping) and not all(isinstance(column, list) for column in answer.values()):
        answer = [answer]
    if isinstance(prompt, str):  # the whole conversation may hold it as well
        prompt = [{"role": "user", "content": prompt, "from": "human", "value": prompt}]
    said = [read(message) for message in _messages(answer, side)]
    before = [read(message) for message in _messages(prompt, "prompt")] if prompt is not None else []
    # Some data repeat the prompt in both sides, others give the answer alone. Only the latter need it put in front.
    return said if said[: len(before)] == before or said[0].role != "assistant" else [*before, *said]


def episode(
    row: LogRow,
    name: str,
    said: Sequence[Said],
    *,
    task: str,
    rewards: Sequence[float] | None = None,
    won: bool | None = None,
    notes: tuple[str, ...] = (),
) -> LoggedEpisode:
    """One conversation as an episode: each message of the assistant is an action.

    Args:
        rewards: of the actions, the last ones where there are fewer; None = what the row says.

    Raises:
        RowError: it begins with the assistant or never comes to it; its rewards, tools or ids are malformed.
    """
    values = row.value
    said, tools = _with_tools(said, values)
    steps, rest = _steps(said)
    paid = _rewards(values, len(steps)) if rewards is None else [None] * (len(steps) - len(rewards)) + list(rewards)
    steps = [_paid(step, reward) for step, reward in zip(steps, paid, strict=True)]
    # By place in the conversation, tools included, as an export walks it; JSON has no keys but text.
    sources = {str(at): dict(message.source) for at, message in enumerate(said) if message.source}
    params: dict[str, Any] = {"place": row.place} | ({"sources": sources} if sources else {})
    params |= {"tools": tools} if tools else {}
    if rest:
        params["rest"] = [{"role": message.role, "content": message.text} for message in rest]
        notes = (*notes, "it ends without an answer: its last messages are kept in the task's params, not learned from")
    return LoggedEpisode(
        name=name,
        task=Task(id=_name(values.get("task_id")) or task, split=split_of(row, values), params=params),
        steps=tuple(steps),
        success=verdict(values.get("success"), "`success`") if won is None else won,
        # Each once: a note counts episodes, not messages.
        notes=(*notes, *dict.fromkeys(note for message in said for note in message.notes)),
    )


def _paid(step: Step, reward: float | None) -> Step:
    return Step(observed=step.observed, action=step.action, reward=reward, trained=step.trained)


def _with_tools(said: Sequence[Said], values: Values) -> tuple[list[Said], list[Any]]:
    """The conversation with ShareGPT's `system` column before it and the tools in its system text."""
    messages = list(said)
    if system := values.get("system"):
        if messages[0].role == "system":
            raise RowError("both a `system` column and a system message")
        messages.insert(0, Said(role="system", text=_content(system)))
    given = values.get("tools")
    if isinstance(given, str) and given.strip():
        try:
            given = strict_json(given)
        except (ValueError, RecursionError) as error:
            raise RowError("`tools` is not JSON", error) from error
    elif given:
        # Only where they came as objects: in JSON text a null is what somebody wrote.
        require_no_nulls(given, "an object of tools")
    if not given:
        return messages, []
    tools = [dict(mapping(whole_json(tool), "a tool")) for tool in listed(given, "`tools`")]
    own = messages.pop(0) if messages[0].role == "system" else None
    # None tells an export that there was no system message before the tools were put in one.
    source = {"content": own.text if own else None}
    head = Said(role="system", text=tools_text(own.text if own else "", tools), source=source)
    return [head, *messages], tools


def _steps(said: Sequence[Said]) -> tuple[list[Step], list[Said]]:
    """The steps, and the messages after the last of them."""
    # A system text alone gives an answer nothing to answer, and many chat templates refuse it.
    if said[0].role == "assistant" or all(message.role == "system" for message in said[: _first_action(said)]):
        raise RowError("nothing stands before the first answer")
    steps: list[Step] = []
    waiting: list[Said] = []
    for message in said:
        if message.role != "assistant":
            waiting.append(message)
            continue
        observed = tuple(Message(role=m.role, content=m.text) for m in waiting)
        steps.append(Step(observed=observed, action=message.text, trained=message.trained))
        waiting = []
    return steps, waiting


def _first_action(said: Sequence[Said]) -> int:
    at = next((at for at, message in enumerate(said) if message.role == "assistant"), None)
    if at is None:
        raise RowError("no message of the assistant")
    return at


def _rewards(values: Values, count: int) -> list[float | None]:
    several, last = values.get("rewards"), values.get("reward")
    if several is not None and last is not None:
        raise RowError("both `reward` and `rewards`")
    if several is not None:
        found: list[float | None] = [number(value, "a reward") for value in listed(several, "`rewards`")]
        if len(found) != count:
            raise RowError("another number of `rewards` than of answers", f"{len(found)} for {count}")
        return found
    # None and not 0: the row says nothing of the other answers, and a turn without a reward keeps no part.
    return [None] * (count - 1) + [None if last is None else number(last, "`reward`")]


def _name(value: Any) -> str:
    """An id as text: a text or a whole number; "" for none. Raises RowError."""
    if value is None or value == "":
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return whole_text(value, "an id")


OPENAI = Format(says="OpenAI messages: `messages`, tool calls included; `chosen`/`rejected`", convert=openai_rows)
SHAREGPT_FORMAT = Format(says="ShareGPT: `conversations` of `from` and `value`", convert=sharegpt_rows)
