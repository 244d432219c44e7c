"""What a policy may do with a phone: AndroidWorld's action JSON, a short text form, and how both reach a backend.

    tap 3                    {"action_type": "click", "index": 3}          or x, y in pixels: `tap 540 1200`
    hold 3                   {"action_type": "long_press", "index": 3}
    double 3                 {"action_type": "double_tap", "index": 3}
    type 5 hello world       {"action_type": "input_text", "index": 5, "text": "hello world", "clear_text": true}
    scroll down              {"action_type": "scroll", "direction": "down"}     what lies below comes into view
    swipe up                 {"action_type": "swipe", "direction": "up"}        the finger moves up
    open Settings            {"action_type": "open_app", "app_name": "Settings"}
    back, home, enter, wait  navigate_back, navigate_home, keyboard_enter, wait
    answer 14:30             {"action_type": "answer", "text": "14:30"}
    done, infeasible         {"action_type": "status", "goal_status": "complete"} or "infeasible"

The short `type` replaces what stands in the field and does not press Enter. The JSON follows AndroidWorld: it appends
unless `clear_text`, and presses Enter at the end.

Source: action types and fields of AndroidWorld, arXiv:2405.14573.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .backend import Backend, CannotType
from .screen.tree import Element

ActionType = Literal[
    "click",
    "double_tap",
    "long_press",
    "input_text",
    "keyboard_enter",
    "keyboard_key",
    "scroll",
    "swipe",
    "open_app",
    "navigate_home",
    "navigate_back",
    "wait",
    "answer",
    "status",
]
Direction = Literal["up", "down", "left", "right"]
GRAMMAR = (
    "tap N, hold N, double N, type N text, scroll up|down|left|right, swipe up|down|left|right, open App, back, home, "
    "enter, wait, answer text, done, infeasible"
)
WAIT_MS = 2000
MAX_TEXT = 1000

_POINTED = {"tap": "click", "click": "click", "hold": "long_press", "long_press": "long_press", "double": "double_tap"}
_PLAIN: dict[str, dict[str, Any]] = {
    "back": {"action_type": "navigate_back"},
    "home": {"action_type": "navigate_home"},
    "enter": {"action_type": "keyboard_enter"},
    "wait": {"action_type": "wait"},
    "done": {"action_type": "status", "goal_status": "complete"},
    "infeasible": {"action_type": "status", "goal_status": "infeasible"},
}
_GOAL_STATUS = {"complete": "complete", "successful": "complete", "infeasible": "infeasible"}
_FIELDS = ("action_type", "index", "x", "y", "text", "direction", "app_name", "goal_status", "keycode", "clear_text")


class ActionError(ValueError):
    """The action cannot be read or does not fit the screen; the message is the observation's error line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAction:
    """One action. Where it points: `index` of an element on the screen, or a pixel `x`, `y`, never both."""

    action_type: ActionType
    index: int | None = None
    x: float | None = None
    y: float | None = None
    text: str = ""
    direction: Direction = "down"
    app_name: str = ""
    goal_status: Literal["complete", "infeasible"] = "complete"
    keycode: str = ""
    clear_text: bool = False
    press_enter: bool = False

    def as_json(self) -> dict[str, Any]:
        """AndroidWorld's form, without the fields that do not apply."""
        shown: dict[str, Any] = {"action_type": self.action_type}
        optional = {"index": self.index, "x": self.x, "y": self.y, "keycode": self.keycode or None}
        shown |= {name: value for name, value in optional.items() if value is not None}
        if self.action_type in ("scroll", "swipe"):
            shown["direction"] = self.direction
        if self.action_type in ("input_text", "answer"):
            shown["text"] = self.text
        if self.action_type == "input_text" and self.clear_text:
            shown["clear_text"] = True
        if self.action_type == "open_app":
            shown["app_name"] = self.app_name
        if self.action_type == "status":
            shown["goal_status"] = self.goal_status
        return shown


def parse_action(text: str) -> DeviceAction:
    """Read an action in either form; of several lines the first that is not empty counts.

    Raises:
        ActionError: what is wrong and what was expected.
    """
    stripped = text.strip()
    if stripped.startswith("{"):
        return from_json(stripped)
    line = stripped.split("\n")[0].strip()
    if not line:
        raise ActionError(f"the action is empty; expected one of: {GRAMMAR}")
    word, _, rest = line.partition(" ")
    word, rest = word.lower(), rest.strip()
    if word in _PLAIN:
        if rest:
            raise ActionError(f"{word} stands alone, without {_shown(rest)}")
        return _made(_PLAIN[word])
    if word in _POINTED:
        return _made({"action_type": _POINTED[word], **_place(word, rest)})
    if word in ("scroll", "swipe"):
        return _made({"action_type": word, "direction": rest.lower()})
    if word == "open":
        return _made({"action_type": "open_app", "app_name": rest})
    if word == "answer":
        return _made({"action_type": "answer", "text": rest})
    if word == "type":
        number, _, typed = rest.partition(" ")
        index = _index(number, "type needs the number of a field: type 5 hello")
        return DeviceAction(action_type="input_text", index=index, text=typed[:MAX_TEXT], clear_text=True)
    raise ActionError(f"unknown action {_shown(line)}; expected one of: {GRAMMAR}")


def from_json(text: str) -> DeviceAction:
    """Read AndroidWorld's JSON. Raises ActionError."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ActionError(f"the action starts with a brace but is no JSON: {_shown(text)}") from error
    if not isinstance(fields, dict):
        raise ActionError(f"an action is a JSON object with action_type, got {_shown(text)}")
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        raise ActionError(f"an action has no field {_shown(str(unknown[0]))}; fields: {', '.join(_FIELDS)}")
    fields = {name: value for name, value in fields.items() if value is not None}
    action = _made(fields)
    if action.action_type != "input_text":
        return action
    pressing = {name: getattr(action, name) for name in ("index", "x", "y", "text", "clear_text")}
    return DeviceAction(action_type="input_text", press_enter=True, **pressing)


def _made(fields: dict[str, Any]) -> DeviceAction:
    """A checked action."""
    kind = fields.get("action_type")
    if kind not in get_args(ActionType):
        raise ActionError(
            f"unknown action_type {_shown(str(kind))}; expected one of: {', '.join(get_args(ActionType))}"
        )
    checked: dict[str, Any] = {"action_type": kind}
    checked |= _checked_place(fields, needed=kind in ("click", "double_tap", "long_press"))
    if kind in ("scroll", "swipe"):
        checked["direction"] = _one_of(fields, "direction", get_args(Direction))
    if kind in ("input_text", "answer"):
        checked["text"] = _text(fields, "text", may_be_empty=kind == "input_text")
    if kind == "open_app":
        checked["app_name"] = _text(fields, "app_name")
    if kind == "keyboard_key":
        checked["keycode"] = _text(fields, "keycode")
    if kind == "status":
        checked["goal_status"] = _GOAL_STATUS[_one_of(fields, "goal_status", tuple(_GOAL_STATUS))]
    if "clear_text" in fields:
        checked["clear_text"] = fields["clear_text"] is True
    return DeviceAction(**checked)


def _checked_place(fields: dict[str, Any], *, needed: bool) -> dict[str, Any]:
    has_index, has_point = "index" in fields, "x" in fields or "y" in fields
    if has_index and has_point:
        raise ActionError("an action points with index or with x and y, not with both")
    if has_index:
        index = fields["index"]
        if isinstance(index, str):
            index = _index(index, "index is the number of an element")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 10_000:
            raise ActionError(f"{_shown(str(index))} is no index; use the number at the start of an element")
        return {"index": index}
    if has_point:
        x, y = fields.get("x"), fields.get("y")
        for value in (x, y):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ActionError(f"x and y must both be pixels, got {_shown(str(x))} and {_shown(str(y))}")
        return {"x": x, "y": y}
    if needed:
        raise ActionError(f"{fields['action_type']} needs the number of an element, such as: tap 3")
    return {}


def _place(word: str, rest: str) -> dict[str, Any]:
    """`3`, or `540 1200`."""
    words = rest.replace(",", " ").split()
    if len(words) == 2 and all(w.isascii() and w.isdecimal() and len(w) < 6 for w in words):
        return {"x": int(words[0]), "y": int(words[1])}
    return {"index": _index(rest, f"{word} needs the number of an element: {word} 3")}


def _index(text: str, problem: str) -> int:
    clean = text.strip()
    if not (clean.isascii() and clean.isdecimal() and len(clean) < 5):
        raise ActionError(f"{problem}; got {_shown(text)}")
    return int(clean)


def _one_of(fields: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = fields.get(name, "")
    if value not in allowed:
        raise ActionError(f"{name} must be one of {', '.join(allowed)}, got {_shown(str(value))}")
    return str(value)


def _text(fields: dict[str, Any], name: str, *, may_be_empty: bool = False) -> str:
    value = fields.get(name, "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise ActionError(f"{fields['action_type']} needs {name}, got {_shown(str(value))}")
    return value[:MAX_TEXT]


def _shown(text: str) -> str:
    short = text if len(text) <= 60 else text[:60] + "..."
    # Printable only, so that an answer to rubbish cannot garble a terminal or a log.
    return ascii(short)


# Carrying out


def carry_out(action: DeviceAction, backend: Backend, elements: Sequence[Element]) -> None:
    """Turn one action into the backend's touches and keys. `answer` and `status` touch nothing.

    Args:
        elements: those of the screen that the policy saw; an index means one of them.

    Raises:
        ActionError: there is no such element, field or app, or the phone does not take the text.
    """
    match action.action_type:
        case "click" | "long_press" | "double_tap":
            _touch(action, backend, elements)
        case "input_text":
            _type(action, backend, elements)
        case "scroll" | "swipe":
            _drag(action, backend, elements)
        case "open_app":
            if not backend.open_app(action.app_name):
                raise ActionError(f"there is no app {_shown(action.app_name)}")
        case "navigate_back":
            backend.key("KEYCODE_BACK")
        case "navigate_home":
            backend.key("KEYCODE_HOME")
        case "keyboard_enter":
            backend.key("KEYCODE_ENTER")
        case "keyboard_key":
            if not backend.key(action.keycode):
                raise ActionError(f"there is no key {_shown(action.keycode)}; names are such as KEYCODE_ENTER")
        case "wait":
            backend.wait(WAIT_MS)


def _touch(action: DeviceAction, backend: Backend, elements: Sequence[Element]) -> None:
    element = _element(action, elements)
    if element is not None and element.resource_id == "back" and element is elements[-1]:
        backend.key("KEYCODE_BACK")
        return
    x, y = _point(action, backend, element)
    if action.action_type == "long_press":
        backend.long_press(x, y)
        return
    backend.tap(x, y)
    if action.action_type == "double_tap":
        backend.tap(x, y)


def _element(action: DeviceAction, elements: Sequence[Element]) -> Element | None:
    if action.index is None:
        return None
    if action.index >= len(elements):
        raise ActionError(f"there is no element {action.index} on this screen; the last one is {len(elements) - 1}")
    return elements[action.index]


def _point(action: DeviceAction, backend: Backend, element: Element | None) -> tuple[int, int]:
    if element is not None:
        return element.centre
    x, y = int(action.x or 0), int(action.y or 0)
    width, height = backend.size
    if not (0 <= x < width and 0 <= y < height):
        raise ActionError(f"({x}, {y}) lies outside of the screen of {width} x {height} pixels")
    return x, y


def _type(action: DeviceAction, backend: Backend, elements: Sequence[Element]) -> None:
    element = _element(action, elements)
    if element is not None and element.role != "input":
        raise ActionError(f"element {action.index} is no text field; fields are marked as input")
    old = element.texts[0] if element is not None else ""
    if element is not None or action.x is not None:
        backend.tap(*_point(action, backend, element))
    if action.clear_text and old:
        backend.key("KEYCODE_MOVE_END")
        backend.erase(len(old))
    if action.text:
        try:
            backend.text(action.text)
        except CannotType as error:
            raise ActionError(str(error)) from error
    if action.press_enter:
        backend.key("KEYCODE_ENTER")


def _drag(action: DeviceAction, backend: Backend, elements: Sequence[Element]) -> None:
    """A scroll shows what lies in that direction, so the finger moves the other way."""
    width, height = backend.size
    element = _element(action, elements)
    x, y = element.centre if element is not None else (width // 2, height // 2)
    away = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}[action.direction]
    sign = -1 if action.action_type == "scroll" else 1
    reach_x, reach_y = width * 2 // 5, height * 3 // 10
    to_x, to_y = x + sign * away[0] * reach_x, y + sign * away[1] * reach_y
    backend.swipe(x, y, min(max(to_x, 0), width - 1), min(max(to_y, 0), height - 1))
