"""The widget kit: what an app's screen is made of, and how it is laid out on the display.

A screen is a tree of `Widget`s, built anew from the state whenever that changed. The functions below make widgets;
`lay_out` gives every one its rectangle. Containers stack their children downwards, or side by side; one scrolling
list takes the height that is left over, and what lies outside of it is not part of the tree, as on a real phone.
All lengths are physical pixels of the display.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 1080, 2400
STATUS_BAR, NAVIGATION_BAR = 96, 126
"""The system's bars above and below; apps draw between them."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two exclusive."""
Handler = Callable[[], None]

_LINE, _TEXT_PADDING, _CHAR_WIDTH = 56, 40, 24
_ROW_HEIGHT, _BUTTON_HEIGHT, _TOOLBAR_HEIGHT = 176, 132, 168
_DIALOG_LEFT, _DIALOG_WIDTH = 80, 920


@dataclass(slots=True, eq=False)
class Widget:
    """One view. The first block is what a dump of the screen shows; the second is how it lies and reacts.

    `bounds` is filled by `lay_out`. `weight` is the share of a row's width; `height` 0 means as high as its content.
    """

    class_name: str
    text: str = ""
    desc: str = ""
    resource_id: str = ""
    hint: str = ""
    package: str = ""
    clickable: bool = False
    long_clickable: bool = False
    checkable: bool = False
    checked: bool = False
    enabled: bool = True
    focusable: bool = False
    focused: bool = False
    scrollable: bool = False
    selected: bool = False
    password: bool = False
    bounds: Box = (0, 0, 0, 0)
    children: list[Widget] = field(default_factory=list)

    on_tap: Handler | None = None
    on_long_press: Handler | None = None
    sideways: bool = False
    height: int = 0
    weight: int = 1
    offset: int = 0
    content_height: int = 0
    style: str = ""

    @property
    def editable(self) -> bool:
        """Whether text can be typed into it."""
        return self.class_name == "EditText"

    def walk(self) -> list[Widget]:
        """This widget and all below it, parents first, in reading order."""
        found: list[Widget] = []
        stack = [self]
        while stack:
            widget = stack.pop()
            found.append(widget)
            stack.extend(reversed(widget.children))
        return found


def label(text: str, *, rid: str = "", style: str = "body", height: int = 0, weight: int = 1) -> Widget:
    """Plain text. Styles: body, title, small, big."""
    return Widget("TextView", text=text, resource_id=rid, style=style, height=height, weight=weight)


def button(text: str, on_tap: Handler, *, rid: str = "", enabled: bool = True, weight: int = 1) -> Widget:
    """A button with a caption."""
    return Widget(
        "Button",
        text=text,
        resource_id=rid,
        clickable=True,
        focusable=True,
        enabled=enabled,
        on_tap=on_tap,
        height=_BUTTON_HEIGHT,
        weight=weight,
    )


def icon(desc: str, on_tap: Handler, *, rid: str = "", weight: int = 1) -> Widget:
    """A button without a caption: only its description says what it does."""
    return Widget(
        "ImageButton",
        desc=desc,
        resource_id=rid,
        clickable=True,
        focusable=True,
        on_tap=on_tap,
        height=_BUTTON_HEIGHT,
        weight=weight,
    )


def item(
    title: str,
    *,
    detail: str = "",
    desc: str = "",
    rid: str = "",
    on_tap: Handler | None = None,
    on_long_press: Handler | None = None,
    extra: Sequence[Widget] = (),
) -> Widget:
    """A row of a list: a title, a smaller line below it, widgets of its own at the right."""
    texts = [Widget("TextView", text=title, resource_id="title", style="body", height=80)]
    if detail:
        texts.append(Widget("TextView", text=detail, resource_id="summary", style="small", height=64))
    line = Widget(
        "LinearLayout",
        desc=desc,
        resource_id=rid,
        clickable=on_tap is not None,
        long_clickable=on_long_press is not None,
        focusable=on_tap is not None,
        on_tap=on_tap,
        on_long_press=on_long_press,
        children=texts,
        height=_ROW_HEIGHT,
        weight=4,
    )
    # What stands beside the texts is touched by itself, so the row around both reacts to nothing.
    return row(line, *extra) if extra else line


def switch(title: str, on: bool, on_tap: Handler, *, rid: str = "", enabled: bool = True) -> Widget:
    """A line with an on/off switch."""
    return _checkable("Switch", title, on, on_tap, rid, enabled)


def checkbox(title: str, on: bool, on_tap: Handler, *, rid: str = "", desc: str = "", weight: int = 1) -> Widget:
    """A box to tick."""
    made = _checkable("CheckBox", title, on, on_tap, rid, True)
    made.desc, made.weight = desc, weight
    return made


def radio(title: str, on: bool, on_tap: Handler, *, rid: str = "") -> Widget:
    """One of several choices."""
    return _checkable("RadioButton", title, on, on_tap, rid, True)


def _checkable(class_name: str, title: str, on: bool, on_tap: Handler, rid: str, enabled: bool) -> Widget:
    return Widget(
        class_name,
        text=title,
        resource_id=rid,
        clickable=True,
        focusable=True,
        checkable=True,
        checked=on,
        enabled=enabled,
        on_tap=on_tap,
        height=_BUTTON_HEIGHT,
    )


def tabs(names: Sequence[str], current: str, pick: Callable[[str], None]) -> Widget:
    """A bar of tabs; the current one is selected."""
    made = []
    for name in names:
        tab = button(name, lambda name=name: pick(name), rid="tab")  # type: ignore[misc]
        tab.selected = name == current
        made.append(tab)
    return row(*made, rid="tabs")


def row(*children: Widget, rid: str = "", height: int = 0) -> Widget:
    """Children side by side, in shares of the width."""
    return Widget("LinearLayout", resource_id=rid, children=list(children), sideways=True, height=height)


def column(*children: Widget, rid: str = "", weight: int = 1) -> Widget:
    """Children below one another."""
    return Widget("LinearLayout", resource_id=rid, children=list(children), weight=weight)


def toolbar(title: str, *actions: Widget) -> Widget:
    """The bar at the top of a screen: its title and its buttons."""
    name = Widget("TextView", text=title, resource_id="toolbar_title", style="title", weight=3)
    return Widget(
        "LinearLayout",
        resource_id="toolbar",
        children=[name, *actions],
        sideways=True,
        height=_TOOLBAR_HEIGHT,
        style="toolbar",
    )


def scroll(rid: str, *children: Widget) -> Widget:
    """A list that scrolls. A screen holds one at most; it takes the height that the rest leaves."""
    return Widget("ScrollView", resource_id=rid, children=list(children))


def screen(*children: Widget) -> Widget:
    """The content of an app between the system's bars."""
    return Widget("FrameLayout", resource_id="content", children=list(children))


def dialog(title: str, *children: Widget, rid: str = "dialog") -> Widget:
    """A box above the screen. While it is shown, nothing below it can be reached."""
    heading = Widget("TextView", text=title, resource_id="alertTitle", style="title", height=_TOOLBAR_HEIGHT)
    return Widget("FrameLayout", resource_id=rid, children=[heading, *children], style="dialog")


def lay_out(root: Widget, offsets: dict[str, int] | None = None) -> Widget:
    """Give every widget its bounds, in place; drop what is scrolled out of sight.

    Args:
        root: a `screen` or a `dialog`.
        offsets: how far each scrolling list is scrolled, by resource id; put right where beyond the end.
    """
    if root.style == "dialog":
        height = min(_measure(root, _DIALOG_WIDTH), HEIGHT - STATUS_BAR - NAVIGATION_BAR)
        top = (HEIGHT - height) // 2
        box = (_DIALOG_LEFT, top, _DIALOG_LEFT + _DIALOG_WIDTH, top + height)
    else:
        box = (0, STATUS_BAR, WIDTH, HEIGHT - NAVIGATION_BAR)
    _place(root, box, offsets if offsets is not None else {})
    return root


def _measure(widget: Widget, width: int) -> int:
    """The height that the widget wants at that width."""
    if widget.height:
        return widget.height
    if widget.class_name == "ScrollView":
        widget.content_height = sum(_measure(child, width) for child in widget.children)
        return widget.content_height
    if widget.children:
        if widget.sideways:
            total = sum(child.weight for child in widget.children)
            return max(_measure(child, width * child.weight // total) for child in widget.children)
        return sum(_measure(child, width) for child in widget.children)
    lines = sum(1 + len(line) * _CHAR_WIDTH // max(width - 80, 1) for line in widget.text.split("\n"))
    return lines * _LINE + _TEXT_PADDING


def _place(widget: Widget, box: Box, offsets: dict[str, int]) -> None:
    widget.bounds = box
    if not widget.children:
        return
    if widget.class_name == "ScrollView":
        _place_scrolled(widget, box, offsets)
    elif widget.sideways:
        _place_sideways(widget, box, offsets)
    else:
        _place_down(widget, box, offsets)


def _place_sideways(widget: Widget, box: Box, offsets: dict[str, int]) -> None:
    left, top, right, bottom = box
    total = sum(child.weight for child in widget.children)
    used = 0
    for child in widget.children:
        start = left + (right - left) * used // total
        used += child.weight
        _place(child, (start, top, left + (right - left) * used // total, bottom), offsets)


def _place_down(widget: Widget, box: Box, offsets: dict[str, int]) -> None:
    left, top, right, bottom = box
    width = right - left
    heights = [0 if c.class_name == "ScrollView" else _measure(c, width) for c in widget.children]
    spare = max(bottom - top - sum(heights), 0)
    kept = []
    for child, height in zip(widget.children, heights, strict=True):
        if child.class_name == "ScrollView":
            wanted = _measure(child, width)
            height = min(wanted, spare) if widget.style == "dialog" else spare
        end = min(top + height, bottom)
        if end > top:
            _place(child, (left, top, right, end), offsets)
            kept.append(child)
        top = end
    widget.children = kept


def _place_scrolled(widget: Widget, box: Box, offsets: dict[str, int]) -> None:
    left, top, right, bottom = box
    width = right - left
    heights = [_measure(child, width) for child in widget.children]
    widget.content_height = sum(heights)
    furthest = max(widget.content_height - (bottom - top), 0)
    widget.offset = min(max(offsets.get(widget.resource_id, 0), 0), furthest)
    if offsets.get(widget.resource_id, 0) != widget.offset:
        offsets[widget.resource_id] = widget.offset
    widget.scrollable = furthest > 0
    at = top - widget.offset
    kept = []
    for child, height in zip(widget.children, heights, strict=True):
        # A sliver of a row cannot be read or hit: it counts as out of sight.
        if at + height > top + height // 3 and at + height // 3 < bottom:
            _place(child, (left, max(at, top), right, min(at + height, bottom)), offsets)
            kept.append(child)
        at += height
    widget.children = kept


def widget_at(root: Widget, x: int, y: int) -> Widget | None:
    """The innermost widget at that point which reacts to touch; a later sibling lies above an earlier one."""
    hit: Widget | None = None
    for widget in root.walk():
        left, top, right, bottom = widget.bounds
        reacts = widget.clickable or widget.long_clickable or widget.editable
        if reacts and left <= x < right and top <= y < bottom:
            hit = widget
    return hit
