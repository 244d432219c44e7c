"""The port of uiautomator2's helper, `tcp:9008`: HTTP with JSON-RPC, answered by the simulated phone itself.

The client pushes its helper and asks whether it runs; here it always does. Selectors by text, description, id, class
and state are answered; those that walk from one view to another (child, sibling) are refused.
"""

from __future__ import annotations

import base64
import io as bytes_io
import json
import re
from collections.abc import Callable
from typing import Any

from ..screen.tree import to_xml
from ..screen.widgets import HEIGHT, WIDTH, Widget
from .commands import Handset
from .wire import Channel

_KEYS = {"delete": "DEL", "del": "DEL", "recent": "APP_SWITCH", "up": "DPAD_UP", "down": "DPAD_DOWN"}
_KEYS |= {"left": "DPAD_LEFT", "right": "DPAD_RIGHT"}
MAX_BODY = 8 << 20
NOT_FOUND = "androidx.test.uiautomator.UiObjectNotFoundException"


class RpcError(ValueError):
    """The call cannot be answered; the message goes to the caller."""


class Automator:
    """One connection to the helper: requests one after another."""

    def __init__(self, handset: Handset) -> None:
        self._handset = handset
        self._buffer = bytearray()

    def start(self, channel: Channel) -> None:
        """The host speaks first."""

    def received(self, channel: Channel, data: bytes) -> None:
        """Collect requests, and answer each one that is complete."""
        self._buffer += data
        if len(self._buffer) > MAX_BODY:
            self._buffer.clear()
            channel.finish()
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).decode(errors="replace")
            length = re.search(r"(?im)^content-length:\s*(\d{1,9})\s*$", head)
            stop = end + 4 + (int(length.group(1)) if length else 0)
            if stop > MAX_BODY:
                channel.finish()
                return
            if len(self._buffer) < stop:
                return
            body = bytes(self._buffer[end + 4 : stop])
            del self._buffer[:stop]
            channel.write(self._answer(head, body))
            if "connection: close" in head.lower():
                channel.finish()

    def _answer(self, head: str, body: bytes) -> bytes:
        method, _, rest = head.partition(" ")
        path = rest.partition(" ")[0]
        if path == "/ping":
            return _http("200 OK", "text/plain", b"pong")
        if method == "POST" and path.startswith("/jsonrpc"):
            return _http("200 OK", "application/json", json.dumps(self._call(body)).encode())
        return _http("404 Not Found", "text/plain", b"there are /ping and /jsonrpc/0")

    def _call(self, body: bytes) -> dict[str, Any]:
        number: Any = None
        try:
            request = json.loads(body)
            number, method, params = request.get("id"), str(request.get("method")), request.get("params") or []
            call = CALLS.get(method)
            if call is None:
                raise RpcError(f"the simulated phone has no method {method!r}")
            return {"jsonrpc": "2.0", "id": number, "result": call(self._handset, *params)}
        except (RpcError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, re.error) as error:
            shown = {"code": -32001, "message": str(error), "data": ""}
            return {"jsonrpc": "2.0", "id": number, "error": shown}


def _http(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# Methods


def dump(handset: Handset, compressed: bool = False, depth: int = 50, *more: object) -> str:
    """The screen as uiautomator's XML."""
    return to_xml(handset.phone.tree())


def click(handset: Handset, x: float, y: float, ms: float = 0) -> bool:
    """Touch a place; for `ms` milliseconds where a number is given."""
    handset.phone.swipe(x, y, x, y, ms)
    return True


def swipe(handset: Handset, x1: float, y1: float, x2: float, y2: float, steps: float) -> bool:
    """A step takes 5 ms."""
    handset.phone.swipe(x1, y1, x2, y2, 5 * steps)
    return True


def press(handset: Handset, key: str | int, *meta: object) -> bool:
    """Press a key by its number or by uiautomator's name."""
    return handset.phone.key(_KEYS.get(key, key) if isinstance(key, str) else key)


def device_info(handset: Handset) -> dict[str, Any]:
    """Package in the foreground, size of the display, version: what clients ask for first."""
    return {
        "currentPackageName": handset.phone.app.package,
        "displayWidth": WIDTH,
        "displayHeight": HEIGHT,
        "displayRotation": 0,
        "displaySizeDpX": round(WIDTH * 160 / 420),
        "displaySizeDpY": round(HEIGHT * 160 / 420),
        "naturalOrientation": True,
        "productName": "phone",
        "screenOn": True,
        "sdkInt": 30,
    }


def take_screenshot(handset: Handset, scale: float = 1, quality: int = 80) -> str:
    """The display as a JPEG in base64."""
    out = bytes_io.BytesIO()
    handset.phone.screenshot(1.0).save(out, "JPEG", quality=int(quality))
    return base64.b64encode(out.getvalue()).decode()


# Selectors

_ATTRIBUTES: dict[str, Callable[[Widget, str], str]] = {
    "text": lambda view, package: view.text,
    "description": lambda view, package: view.desc,
    "className": lambda view, package: f"android.widget.{view.class_name}",
    "resourceId": lambda view, package: f"{package}:id/{view.resource_id}" if view.resource_id else "",
    "packageName": lambda view, package: package,
}
_TESTS: dict[str, Callable[[str, str], bool]] = {
    "": lambda text, wanted: text == wanted,
    "Contains": lambda text, wanted: wanted.casefold() in text.casefold(),
    "StartsWith": lambda text, wanted: text.casefold().startswith(wanted.casefold()),
    "Matches": lambda text, wanted: re.fullmatch(wanted, text) is not None,
}
_STATES = {"longClickable": "long_clickable"}
_STATES |= {
    name: name for name in ("checkable", "checked", "clickable", "enabled", "focusable", "focused", "scrollable")
}
_STATES["selected"] = "selected"


def _found(handset: Handset, selector: dict[str, Any]) -> list[Widget]:
    root = handset.phone.tree()
    tests = [_test(name, value, root.package) for name, value in selector.items() if name not in _NO_TEST]
    if selector.get("childOrSibling"):
        raise RpcError("the simulated phone knows no child or sibling selectors; use xpath")
    return [view for view in root.walk() if all(test(view) for test in tests)]


_NO_TEST = ("mask", "childOrSibling", "childOrSiblingSelector", "instance")


def _test(name: str, value: Any, package: str) -> Callable[[Widget], bool]:
    if name in _STATES:
        state = _STATES[name]
        return lambda view: bool(getattr(view, state)) == bool(value)
    for attribute, read in _ATTRIBUTES.items():
        test = _TESTS.get(name.removeprefix(attribute)) if name.startswith(attribute) else None
        if test is not None:
            return lambda view: test(read(view, package), str(value))
    raise RpcError(f"the simulated phone knows no selector {name!r}")


def _one(handset: Handset, selector: dict[str, Any]) -> Widget:
    found, number = _found(handset, selector), int(selector.get("instance", 0))
    if number >= len(found):
        raise RpcError(f"{NOT_FOUND}: no view fits {json.dumps(selector)}")
    return found[number]


def _info(view: Widget, package: str) -> dict[str, Any]:
    bounds = dict(zip(("left", "top", "right", "bottom"), view.bounds, strict=True))
    shown: dict[str, Any] = {name: getattr(view, attribute) for name, attribute in _STATES.items()}
    shown |= {"bounds": bounds, "visibleBounds": bounds, "text": view.text, "contentDescription": view.desc}
    shown |= {
        "className": f"android.widget.{view.class_name}",
        "packageName": package,
        "childCount": len(view.children),
    }
    return shown | {"resourceName": _ATTRIBUTES["resourceId"](view, package)}


def object_info(handset: Handset, selector: dict[str, Any]) -> dict[str, Any]:
    """What is known of the view that fits; RpcError where none does."""
    return _info(_one(handset, selector), handset.phone.tree().package)


def all_infos(handset: Handset, selector: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of every view that fits."""
    return [_info(view, handset.phone.tree().package) for view in _found(handset, selector)]


def exists(handset: Handset, selector: dict[str, Any], timeout_ms: int = 0) -> bool:
    """Whether a view fits. Nobody waits: time on the phone is virtual."""
    return len(_found(handset, selector)) > int(selector.get("instance", 0))


def set_text(handset: Handset, selector: dict[str, Any], text: str = "") -> bool:
    """Touch the field, empty it, type."""
    view = _one(handset, selector)
    left, top, right, bottom = view.bounds
    handset.phone.tap((left + right) // 2, (top + bottom) // 2)
    for _ in view.text:
        handset.phone.key("DEL")
    handset.phone.text(text)
    return True


CALLS: dict[str, Callable[..., Any]] = {
    "clearTextField": set_text,
    "click": click,
    "count": lambda handset, selector: len(_found(handset, selector)),
    "deviceInfo": device_info,
    "drag": swipe,
    "dumpWindowHierarchy": dump,
    "exist": exists,
    "getText": lambda handset, selector: _one(handset, selector).text,
    "objInfo": object_info,
    "objInfoOfAllInstances": all_infos,
    "pressKey": press,
    "pressKeyCode": press,
    "setText": set_text,
    "sleep": lambda handset: True,
    "swipe": swipe,
    "takeScreenshot": take_screenshot,
    "waitForExists": exists,
    "waitUntilGone": lambda handset, selector, timeout_ms=0: not exists(handset, selector),
    "wakeUp": lambda handset: True,
}
