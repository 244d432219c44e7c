"""From a tree of widgets to text, and back: uiautomator's XML, and the numbered elements a policy reads.

Everything here uses only what a dump of the screen shows, so a tree that was read from XML gives the same elements.

Sources: element rules and HTML of AutoDroid, arXiv:2308.15272; XML as Android's `uiautomator dump` writes it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from .widgets import Box, Widget

Role = Literal["input", "checkbox", "button", "p"]
MAX_BODY_CHARS = 50
"""Texts inside one clickable element are cut at this length each, as AutoDroid does."""
GO_BACK = "go back"

_FLAGS = ("checkable", "checked", "clickable", "enabled", "focusable", "focused", "scrollable")
_MORE_FLAGS = ("long_clickable", "password", "selected")
_BOUNDS = re.compile(r"\[(-?\d+),(-?\d+)\]\[(-?\d+),(-?\d+)\]")
_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("\n"): "&#10;"}


# XML


def to_xml(root: Widget) -> str:
    """The tree as `uiautomator dump` writes it: one line, resource ids and classes with their package."""
    parts = ['<?xml version="1.0" encoding="UTF-8" standalone="yes" ?><hierarchy rotation="0">']
    _write(root, 0, root.package, parts)
    parts.append("</hierarchy>")
    return "".join(parts)


def _write(widget: Widget, index: int, package: str, parts: list[str]) -> None:
    left, top, right, bottom = widget.bounds
    resource = f"{package}:id/{widget.resource_id}" if widget.resource_id else ""
    parts.append(
        f'<node index="{index}" text="{widget.text.translate(_ESCAPES)}" resource-id="{resource}"'
        f' class="android.widget.{widget.class_name}" package="{package}"'
        f' content-desc="{widget.desc.translate(_ESCAPES)}"'
    )
    for name in (*_FLAGS, *_MORE_FLAGS):
        parts.append(f' {name.replace("_", "-")}="{"true" if getattr(widget, name) else "false"}"')
    hint = f' hint="{widget.hint.translate(_ESCAPES)}"' if widget.hint else ""
    parts.append(f'{hint} bounds="[{left},{top}][{right},{bottom}]"')
    if not widget.children:
        parts.append(" />")
        return
    parts.append(">")
    for number, child in enumerate(widget.children):
        _write(child, number, package, parts)
    parts.append("</node>")


def from_xml(text: str) -> Widget:
    """The tree of a dump, also of a real phone's: several windows become children of one root.

    Raises:
        ValueError: this is not a dump.
    """
    start = text.find("<hierarchy")
    end = text.rfind("</hierarchy>")
    if start < 0 or end < 0:
        raise ValueError(f"this is not the XML of a screen: {text[:80]!r}")
    try:
        hierarchy = ElementTree.fromstring(text[start : end + len("</hierarchy>")])
    except ElementTree.ParseError as error:
        raise ValueError(f"the XML of the screen cannot be read: {error}") from error
    windows = [_read(node) for node in hierarchy if node.tag == "node"]
    if len(windows) == 1:
        return windows[0]
    package = windows[0].package if windows else ""
    return Widget("FrameLayout", package=package, children=windows)


def _read(node: ElementTree.Element) -> Widget:
    get = node.attrib.get
    widget = Widget(
        get("class", "").rpartition(".")[2],
        text=get("text", ""),
        desc=get("content-desc", ""),
        resource_id=get("resource-id", "").rpartition("/")[2],
        hint=get("hint", ""),
        package=get("package", ""),
        bounds=_box(get("bounds", "")),
    )
    for name in (*_FLAGS, *_MORE_FLAGS):
        setattr(widget, name, get(name.replace("_", "-"), "false") == "true")
    widget.children = [_read(child) for child in node if child.tag == "node"]
    return widget


def _box(text: str) -> Box:
    found = _BOUNDS.fullmatch(text)
    if found is None:
        return (0, 0, 0, 0)
    left, top, right, bottom = map(int, found.groups())
    return (left, top, right, bottom)


# Elements


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One numbered thing on the screen. `texts` are its own and its parts' visible texts, in reading order."""

    id: int
    role: Role
    texts: tuple[str, ...]
    desc: str = ""
    resource_id: str = ""
    class_name: str = ""
    hint: str = ""
    checked: bool = False
    selected: bool = False
    focused: bool = False
    enabled: bool = True
    bounds: Box = (0, 0, 0, 0)

    @property
    def centre(self) -> tuple[int, int]:
        """Where a tap on it lands."""
        left, top, right, bottom = self.bounds
        return ((left + right) // 2, (top + bottom) // 2)

    @property
    def name(self) -> str:
        """What it is called: its first text, else its description, else its hint."""
        return next((text for text in (*self.texts, self.desc, self.hint) if text), "")


def elements(root: Widget) -> tuple[Element, ...]:
    """The elements of a screen by AutoDroid's rules, numbered from 0; the last one is the button `go back`.

    Editable views are inputs, checkable ones checkboxes, clickable ones buttons with the texts of all their parts,
    other texts paragraphs. Views of no area or with nothing to say are left out, and so is a clickable view with
    clickable parts: its parts stand for it.
    """
    found: list[Element] = []
    _collect(root, found)
    found.append(Element(id=len(found), role="button", texts=(GO_BACK,), resource_id="back"))
    return tuple(found)


def _collect(widget: Widget, found: list[Element]) -> None:
    left, top, right, bottom = widget.bounds
    if right <= left or bottom <= top:
        return
    if widget.class_name == "EditText":
        _add(widget, "input", (widget.text,), found)
    elif widget.checkable:
        _add(widget, "checkbox", _texts(widget), found)
    elif (widget.clickable or widget.long_clickable) and not _has_clickable_part(widget):
        texts = _texts(widget)
        if texts or widget.desc:
            _add(widget, "button", texts, found)
    else:
        if widget.text or widget.desc:
            _add(widget, "p", (widget.text,) if widget.text else (), found)
        for child in widget.children:
            _collect(child, found)


def _add(widget: Widget, role: Role, texts: Sequence[str], found: list[Element]) -> None:
    found.append(
        Element(
            id=len(found),
            role=role,
            texts=tuple(texts),
            desc=widget.desc,
            resource_id=widget.resource_id,
            class_name=widget.class_name,
            hint=widget.hint,
            checked=widget.checked,
            selected=widget.selected,
            focused=widget.focused,
            enabled=widget.enabled,
            bounds=widget.bounds,
        )
    )


def _has_clickable_part(widget: Widget) -> bool:
    return any(c.clickable or c.checkable or c.editable or _has_clickable_part(c) for c in widget.children)


def _texts(widget: Widget) -> tuple[str, ...]:
    if not widget.children:
        return (widget.text[:MAX_BODY_CHARS],) if widget.text else ()
    return tuple(text for view in widget.walk() for text in (view.text[:MAX_BODY_CHARS],) if text)


def to_html(found: Sequence[Element]) -> str:
    """AutoDroid's rendering, one element a line: `<button id=3 text='Add'>Contact</button>`."""
    return "\n".join(_tag(element) for element in found)


def _tag(element: Element) -> str:
    words = [element.role, f"id={element.id}"]
    if element.desc or (element.role == "input" and element.hint):
        words.append(f"text='{escape(element.desc or element.hint, quote=True)}'")
    if element.role == "checkbox":
        words.append(f"checked={'true' if element.checked else 'false'}")
    if element.selected:
        words.append("selected=true")
    if element.focused:
        words.append("focused=true")
    if not element.enabled:
        words.append("disabled=true")
    body = "<br>".join(escape(text, quote=False).replace("\n", "<br>") for text in element.texts)
    return f"<{' '.join(words)}>{body}</{element.role}>"


def to_lines(found: Sequence[Element]) -> str:
    """A shorter rendering for small models: `3 button Add`, `4 input Name = Ann`, `5 checkbox Wi-Fi (on)`."""
    return "\n".join(_line(element) for element in found)


def _line(element: Element) -> str:
    body = " / ".join(text.replace("\n", " ") for text in element.texts if text)
    words = [str(element.id)]
    if element.role != "p":
        words.append(element.role)
    if element.role == "input":
        words.append(element.desc or element.hint)
        words += ["=", body] if body else []
    else:
        words += [text for text in (element.desc, body) if text]
    states = ["on" if element.checked else "off"] if element.role == "checkbox" else []
    states += ["selected"] if element.selected else []
    states += ["focused"] if element.focused else []
    states += [] if element.enabled else ["disabled"]
    if states:
        words.append(f"({', '.join(states)})")
    return " ".join(word for word in words if word)
