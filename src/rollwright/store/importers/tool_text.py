"""Tool calls as text, the form that a policy writes and reads here, and back.

A call is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` at the end of the assistant's message; a result is
a user's message `<tool_response>...</tool_response>`; what tools there are stands at the end of the system text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rollwright.store.importers.log_records import RowError, listed, mapping, strict_json, whole_json, whole_text

Call = dict[str, Any]  # {"id": str or absent, "name": str, "arguments": {...}}


def read_calls(value: Any) -> list[Call]:
    """`tool_calls` of an OpenAI message: arguments as JSON text, or as the object itself.

    Raises:
        RowError: one of them is no call, or its arguments are no JSON object.
    """
    return [read_call(call) for call in listed(value, "`tool_calls`")]


def read_call(value: Any) -> Call:
    """One call: {"type": "function", "function": {...}}, or the function's own object. Raises RowError."""
    call = mapping(value, "a tool call")
    # A custom tool's call holds free text in place of arguments, which would be lost.
    if call.get("type") not in (None, "function"):
        raise RowError("a tool call of another type than function", repr(call.get("type")))
    # The older `function_call`, and other tools' logs, are the function's object itself.
    function = mapping(call.get("function") or call, "a tool call")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RowError("a tool call without a name", repr(name))
    found: Call = {"name": whole_text(name, "name"), "arguments": _arguments(function.get("arguments"))}
    # An id that is no text is left out: an export numbers the calls then.
    return {"id": call["id"], **found} if isinstance(call.get("id"), str) else found


def require_no_nulls(value: Any, what: str) -> None:
    """Raises RowError: Arrow gives every object the keys of all others, as null; what was meant cannot be told."""
    # A text is no container here: the null in JSON text was written on purpose.
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for entry in inner:
        if entry is None:
            raise RowError(f"{what} with null in it: write it as JSON text")
        require_no_nulls(entry, what)


def _arguments(value: Any) -> dict[str, Any]:
    # Before the text is parsed, so that only Arrow's objects are asked.
    require_no_nulls(value, "an object of arguments")
    if isinstance(value, str):
        try:
            value = strict_json(value)
        except (ValueError, RecursionError) as error:
            raise RowError("the arguments of a tool call are not JSON", error) from error
    # `whole_json`, as the arguments go into task params, which are stored as JSON.
    return dict(whole_json(mapping(value, "the arguments of a tool call")))


def call_text(content: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """The assistant's message with its calls at the end."""
    # Without the id: it is drawn by a server, and a policy could not know it.
    shown = [_dump({"name": call["name"], "arguments": call["arguments"]}) for call in calls]
    return "\n".join([*([content] if content else []), *(f"<tool_call>{call}</tool_call>" for call in shown)])


def result_text(content: str) -> str:
    """What a tool answered, as the user's message."""
    return f"<tool_response>\n{content}\n</tool_response>"


def tools_text(system: str, tools: Sequence[Any]) -> str:
    """The system text with the tools at its end."""
    lines = [system] if system else []
    lines += ["Tools:", *map(_dump, tools), 'Call one by <tool_call>{"name": ..., "arguments": {...}}</tool_call>']
    return "\n".join(lines)


def openai_calls(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The calls as `tool_calls` of an OpenAI message."""
    found = []
    for number, call in enumerate(calls):
        function = {"name": call["name"], "arguments": _dump(call["arguments"])}
        found.append({"id": call.get("id", f"call_{number}"), "type": "function", "function": function})
    return found


def _dump(value: Any) -> str:
    # \u escapes would cost several tokens for each letter beyond ASCII.
    return json.dumps(value, ensure_ascii=False)
