"""A small tree of the sites' own pages, and the walk over it: what `walk.js` sees in a browser, without one.

The reader is strict: it takes the subset that `markup.py` writes and refuses the rest, so that no page can be read
here in another way than a browser reads it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..observe import Element

MAX_OPTIONS = 40
MAX_NAME = 120
_TOKEN = re.compile(r'<(/?)([a-z][a-z0-9]*)((?: [a-z-]+(?:="[^"]*")?)*)>|([^<]+)')
_ATTRIBUTE = re.compile(r' ([a-z-]+)(?:="([^"]*)")?')
_HEAD = re.compile(r"<!doctype html><html><head>.*?</head>", re.DOTALL)
# Blank in JavaScript's sense, which is not Python's.
_BLANKS = re.compile("[\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+")
_VOID = frozenset(["input", "br", "hr"])
_BLOCKS = frozenset(["html", "body", "header", "main", "div", "p", "h1", "h2", "ul", "li", "table", "tr", "form", "hr"])
_INLINE = frozenset(["b", "i", "span", "a", "label", "button", "input", "select", "option", "textarea", "br"])
_CELLS = frozenset(["td", "th"])
_CONTROLS = frozenset(["a", "button", "input", "select", "textarea"])


class Node:
    """An element of the page. `kind` is the type of an input, else the tag."""

    __slots__ = ("attributes", "children", "kind", "parent", "tag")

    def __init__(self, tag: str, attributes: dict[str, str], parent: Node | None) -> None:
        self.tag = tag
        self.kind = attributes.get("type", "text") if tag == "input" else tag
        self.attributes = attributes
        self.parent = parent
        self.children: list[Node | str] = []

    def inside(self) -> Iterator[Node]:
        """All elements below, in reading order."""
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.inside()

    def options(self) -> list[Node]:
        """The options of a list."""
        return [child for child in self.children if isinstance(child, Node)]

    def text(self) -> str:
        """All text below."""
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def form(self) -> Node | None:
        """The form around it."""
        node = self.parent
        while node is not None and node.tag != "form":
            node = node.parent
        return node


def squeeze(text: str) -> str:
    """Runs of blanks become one, none at the ends."""
    return _BLANKS.sub(" ", text).strip(" ")


def parse(page: str) -> list[Node]:
    """The elements of a page in reading order; the first one is the root of the tree.

    Raises:
        ValueError: markup outside of the subset.
    """
    head = _HEAD.match(page)
    if head is None:
        raise ValueError("the page does not begin as markup.document writes it")
    root = current = Node("html", {}, None)
    nodes = [root]
    at = head.end()
    while at < len(page):
        token = _TOKEN.match(page, at)
        if token is None:
            raise ValueError(f"markup outside of the subset: {page[at : at + 60]!r}")
        at = token.end()
        closing, name, attributes, text = token.groups()
        if text is not None:
            current.children.append(html.unescape(text) if "&" in text else text)
        elif closing:
            current = _close(current, name, root)
        else:
            nodes.append(_open(current, name, attributes))
            current = current if name in _VOID else nodes[-1]
    return nodes


def _open(current: Node, name: str, attributes: str) -> Node:
    if name not in _BLOCKS and name not in _INLINE and name not in _CELLS:
        raise ValueError(f"the element <{name}> is outside of the subset")
    found = {key: html.unescape(value) for key, value in _ATTRIBUTE.findall(attributes)} if attributes else {}
    node = Node(name, found, current)
    current.children.append(node)
    return node


def _close(current: Node, name: str, root: Node) -> Node:
    if current.tag != name:
        raise ValueError(f"</{name}> closes <{current.tag}>")
    return current.parent or root


class Fields(Protocol):
    """What the visitor has put into the controls of a page."""

    focused: Node | None

    def value(self, node: Node) -> str:
        """What stands in a text field."""
        ...

    def ticked(self, node: Node) -> bool:
        """Whether a box or a radio button is ticked."""
        ...

    def chosen(self, node: Node) -> Node | None:
        """The chosen option of a list; None where there is none."""
        ...


def controls(nodes: Sequence[Node]) -> list[Node]:
    """What can be acted on, in reading order: the first control of a page has the number 1."""
    return [node for node in nodes if node.tag in _CONTROLS and node.kind != "hidden"]


def labels(nodes: Sequence[Node]) -> dict[str, str]:
    """The text of each label by the id of its field."""
    return {node.attributes["for"]: squeeze(node.text()) for node in nodes if node.tag == "label"}


class Walk:
    """One walk over a page; `elements` holds the lines afterwards. The order of things is that of `walk.js`."""

    def __init__(self, root: Node, fields: Fields, names: dict[str, str]) -> None:
        self.elements: list[Element] = []
        self._fields = fields
        self._names = names
        self._words: list[str] = []
        self._number = 0
        self._visit(root)
        self._flush()

    def _flush(self) -> None:
        if not self._words:
            return
        text = squeeze("".join(self._words))
        self._words.clear()
        if text:
            self.elements.append(Element(id=None, role="", name=text))

    def _visit(self, node: Node) -> None:
        if node.tag == "br":
            self._flush()
        elif node.tag in _CONTROLS:
            self._emit(node)
        else:
            self._descend(node)

    def _descend(self, node: Node) -> None:
        block = node.tag in _BLOCKS
        if block:
            self._flush()
        elif node.tag in _CELLS and squeeze("".join(self._words)):
            self._words.append(" | ")
        for child in node.children:
            if isinstance(child, Node):
                self._visit(child)
            elif node.tag != "label":  # a label's text is the name of its field
                self._words.append(child)
        if block:
            self._flush()

    def _emit(self, node: Node) -> None:
        if node.kind == "hidden":
            return
        self._flush()
        self._number += 1
        self.elements.append(_LINES[node.tag](self, node, self._number))

    def _named(self, node: Node) -> str:
        if node.tag in ("a", "button"):
            name = squeeze(node.text())
        else:
            name = self._names.get(node.attributes.get("id", ""), "")
        name = re.sub(r"[\s:|]+$", "", name)
        return name if len(name) <= MAX_NAME else name[:MAX_NAME] + "..."

    def _states(self, node: Node) -> tuple[str, ...]:
        found = ["on"] if node.kind in ("checkbox", "radio") and self._fields.ticked(node) else []
        return tuple([*found, "focused"] if self._fields.focused is node else found)

    def _link(self, node: Node, number: int) -> Element:
        return Element(id=number, role="link", name=self._named(node), clickable=True)

    def _button(self, node: Node, number: int) -> Element:
        return Element(id=number, role="button", name=self._named(node), clickable=True)

    def _field(self, node: Node, number: int) -> Element:
        role = node.kind if node.kind in ("textarea", "checkbox", "radio") else "textbox"
        value = None if role in ("checkbox", "radio") else squeeze(self._fields.value(node))
        states = self._states(node)
        return Element(id=number, role=role, name=self._named(node), value=value, states=states, clickable=True)

    def _select(self, node: Node, number: int) -> Element:
        options = [squeeze(option.text()) for option in node.options()]
        chosen = self._fields.chosen(node)
        return Element(
            id=number,
            role="select",
            name=self._named(node),
            value=squeeze(chosen.text()) if chosen else "",
            states=self._states(node),
            options=tuple(options[:MAX_OPTIONS]),
            more_options=max(0, len(options) - MAX_OPTIONS),
            clickable=True,
        )


_LINES: dict[str, Callable[[Walk, Node, int], Element]] = {
    "a": Walk._link,
    "button": Walk._button,
    "input": Walk._field,
    "textarea": Walk._field,
    "select": Walk._select,
}
