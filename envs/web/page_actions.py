"""The action grammar: BrowserGym's action names, in a terse form and in the form of a call.

    click 3                 click('3')
    fill 5 hello world      fill('5', "hello world")
    select_option 4 Blue    select_option('4', ['Blue'])
    press 5 Control+a       press('5', 'Control+a')

One answer is one action: the first line that is not empty. Nothing is ever evaluated as code. What cannot be read
raises `ActionError`, which the environment turns into an error line for the policy.

Source of the names: BrowserGym, arXiv:2412.05467.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MAX_ACTION_CHARS = 2000
"""Longer answers are refused: no task needs them, and they would be typed into the page letter by letter."""

_SHOWN_CHARS = 60
_MAX_PIXELS = 10_000

Kind = Literal["id", "text", "options", "number", "key"]

SIGNATURES: dict[str, tuple[Kind, ...]] = {
    "click": ("id",),
    "dblclick": ("id",),
    "fill": ("id", "text"),
    "clear": ("id",),
    "select_option": ("id", "options"),
    "check": ("id",),
    "uncheck": ("id",),
    "hover": ("id",),
    "focus": ("id",),
    "press": ("id", "key"),
    "drag_and_drop": ("id", "id"),
    "scroll": ("number", "number"),
    "mouse_click": ("number", "number"),
    "mouse_dblclick": ("number", "number"),
    "mouse_move": ("number", "number"),
    "mouse_down": ("number", "number"),
    "mouse_up": ("number", "number"),
    "mouse_drag_and_drop": ("number", "number", "number", "number"),
    "keyboard_press": ("key",),
    "keyboard_type": ("text",),
    "noop": (),
}

IN_PAGE = frozenset(
    [
        "click",
        "dblclick",
        "mouse_click",
        "mouse_dblclick",
        "fill",
        "clear",
        "select_option",
        "check",
        "uncheck",
        "focus",
        "scroll",
        "noop",
    ]
)
"""Done by the page's own script in one call; the others need the browser's mouse or keyboard."""

POINTER = frozenset(["hover", "drag_and_drop", "mouse_move", "mouse_down", "mouse_up", "mouse_drag_and_drop"])
"""Done by the browser's own mouse in pages that are drawn, by the page's script in the others."""

_MODIFIERS = frozenset(["Control", "Shift", "Alt", "Meta", "ControlOrMeta"])
_NAMED_KEYS = frozenset(
    [
        "Enter",
        "Tab",
        "Backspace",
        "Delete",
        "Escape",
        "Space",
        "Insert",
        "Home",
        "End",
        "PageUp",
        "PageDown",
        "ArrowLeft",
        "ArrowRight",
        "ArrowUp",
        "ArrowDown",
        *(f"F{number}" for number in range(1, 13)),
    ]
)
_HALVES = re.compile("[\ud800-\udfff]")  # of letters: no text that a page takes may hold them
_CALL = re.compile(r"([a-z_]+)\s*\((.*)\)\s*;?", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}

Value = str | list[str]


class ActionError(ValueError):
    """The answer is no action of the grammar; the message is written for the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One action: element ids as the observation shows them, coordinates in CSS pixels of the page."""

    name: str
    ids: tuple[int, ...] = ()
    numbers: tuple[float, ...] = ()
    text: str = ""
    options: tuple[str, ...] = ()

    def payload(self) -> dict[str, object]:
        """What the page's script needs to carry it out."""
        x, y, to_x, to_y = (*self.numbers, 0, 0, 0, 0)[:4]
        return {
            "name": self.name,
            "id": self.ids[0] if self.ids else 0,
            "to": self.ids[-1] if self.ids else 0,
            "text": self.text,
            "options": list(self.options),
            "x": x,
            "y": y,
            "to_x": to_x,
            "to_y": to_y,
        }


def parse_action(answer: str, signatures: Mapping[str, tuple[Kind, ...]] = SIGNATURES) -> Action:
    """Read one action.

    Args:
        signatures: the names that are known here, with the kinds of their arguments.

    Raises:
        ActionError: too long, an unknown name, or arguments that do not fit the name.
    """
    answer = _HALVES.sub("\ufffd", answer)
    if len(answer) > MAX_ACTION_CHARS:
        raise ActionError(f"the action has {len(answer)} characters, at most {MAX_ACTION_CHARS} are allowed")
    line = next((line.strip().strip("`").strip() for line in re.split(r"[\r\n]", answer) if line.strip()), "")
    if not line:
        raise ActionError("no action given")
    call = _CALL.fullmatch(line)
    if call and call[1] in signatures:
        return _build(call[1], signatures[call[1]], _call_arguments(call[2]), line)
    name, _, rest = line.partition(" ")
    if name not in signatures:
        raise ActionError(f"unknown action {_shown(name)}, expected for example: click 3")
    return _build(name, signatures[name], _terse_arguments(rest.strip(), signatures[name]), line)


def _terse_arguments(rest: str, kinds: tuple[Kind, ...]) -> list[Value]:
    """Split at blanks; a text, key or option at the end keeps its blanks."""
    if not rest:
        return []
    free_end = bool(kinds) and kinds[-1] in ("text", "options", "key")
    return list(rest.split(None, len(kinds) - 1) if free_end else rest.split())


def _call_arguments(source: str) -> list[Value]:
    """The arguments of a call: quoted strings with backslash escapes, bare numbers, lists of those."""
    values: list[Value] = []
    position = 0
    while position < len(source.rstrip()):
        value, position = _value_at(source, _skip(source, position))
        values.append(value)
        position = _skip(source, position)
        if position < len(source):
            if source[position] != ",":
                raise ActionError(f"expected a comma at {_shown(source[position:])}")
            position = _skip(source, position + 1)
    return values


def _value_at(source: str, position: int) -> tuple[Value, int]:
    if position >= len(source):
        raise ActionError("an argument is missing after the last comma")
    if source[position] in "'\"":
        return _string_at(source, position)
    if source[position] == "[":
        return _list_at(source, position)
    bare = re.compile(r"-?\w+(\.\d+)?").match(source, position)
    if bare is None:
        raise ActionError(f"cannot read the argument {_shown(source[position:])}; put text in quotes")
    return bare[0], bare.end()


def _string_at(source: str, position: int) -> tuple[str, int]:
    quote, letters, at = source[position], [], position + 1
    while at < len(source):
        if source[at] == "\\" and at + 1 < len(source):
            letters.append(_ESCAPES.get(source[at + 1], source[at + 1]))
            at += 2
        elif source[at] == quote:
            return "".join(letters), at + 1
        else:
            letters.append(source[at])
            at += 1
    raise ActionError(f"the quote {quote} is never closed")


def _list_at(source: str, position: int) -> tuple[list[str], int]:
    items: list[str] = []
    at = _skip(source, position + 1)
    while at < len(source) and source[at] != "]":
        value, at = _value_at(source, at)
        if isinstance(value, list):
            raise ActionError("a list must not hold a list")
        items.append(value)
        at = _skip(source, at)
        if at < len(source) and source[at] == ",":
            at = _skip(source, at + 1)
        elif at < len(source) and source[at] != "]":
            raise ActionError(f"expected a comma or ] at {_shown(source[at:])}")
    if at >= len(source):
        raise ActionError("the list is never closed")
    return items, at + 1


def _skip(source: str, position: int) -> int:
    while position < len(source) and source[position].isspace():
        position += 1
    return position


def _build(name: str, kinds: tuple[Kind, ...], values: list[Value], line: str) -> Action:
    if kinds and kinds[-1] == "text" and len(values) == len(kinds) - 1:
        values = [*values, ""]  # `fill 5` empties the field
    if len(values) != len(kinds):
        expected = " ".join((name, *(f"<{kind}>" for kind in kinds)))
        raise ActionError(f"{_shown(line)} has {len(values)} arguments, expected: {expected}")
    ids: list[int] = []
    numbers: list[float] = []
    text = ""
    options: tuple[str, ...] = ()
    for kind, value in zip(kinds, values, strict=True):
        if kind == "options":
            options = tuple(value if isinstance(value, list) else _choices(value))
        elif isinstance(value, list):
            raise ActionError(f"a list does not fit {name}; only select_option takes one")
        elif kind == "id":
            ids.append(_element_id(value))
        elif kind == "number":
            numbers.append(_number(value))
        else:
            text = _key(value) if kind == "key" else value
    return Action(name=name, ids=tuple(ids), numbers=tuple(numbers), text=text, options=options)


def _choices(value: str) -> list[str]:
    """Several options of one list are separated by a bar: `select_option 4 Red | Blue`."""
    return [choice.strip() for choice in value.split("|")]


def _element_id(value: str) -> int:
    digits = value.strip("[]")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 6):
        raise ActionError(f"{_shown(value)} is no element id; use the number at the start of a line")
    return int(digits)


def _number(value: str) -> float:
    if not re.fullmatch(r"-?\d{1,5}(\.\d+)?", value, re.ASCII) or abs(float(value)) > _MAX_PIXELS:
        raise ActionError(f"{_shown(value)} is no coordinate; use pixels between -{_MAX_PIXELS} and {_MAX_PIXELS}")
    return float(value)


def _key(value: str) -> str:
    """A key, or keys held together with +, by the names of the DOM's KeyboardEvent."""
    if value == "+" or _is_letter_key(value):
        return value
    *held, last = value.split("+") if not value.endswith("++") else [*value[:-2].split("+"), "+"]
    known = last in _NAMED_KEYS or last in _MODIFIERS or _is_letter_key(last)
    if not known or any(key not in _MODIFIERS for key in held):
        hint = "; other letters are typed with keyboard_type or fill" if len(last) == 1 and last.isprintable() else ""
        raise ActionError(f"unknown key {_shown(value)}; examples: Enter, Tab, ArrowDown, a, Control+a{hint}")
    return value


def _is_letter_key(value: str) -> bool:
    """Whether the browser's keyboard, an American one, has a key for it."""
    return len(value) == 1 and value.isascii() and value.isprintable()


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")
