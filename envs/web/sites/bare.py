"""A page without a browser: the same controls, the same slips, the same requests as `act.js` in a real one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from ..observe import Element
from ..page_actions import Action, ActionError
from .dom import Node, Walk, controls, labels, parse, squeeze
from .pages.engine import Server, canonical

_TEXT_KINDS = frozenset(["text", "textarea"])
LEAVES = "this link leaves the site; it is not followed"


class BarePage:
    """The page that `server` answered last, and what the visitor has put into it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.blocked = 0
        self.focused: Node | None = None
        self._values: dict[Node, str] = {}
        self._ticks: dict[Node, bool] = {}
        self._choices: dict[Node, Node] = {}
        self._read(server.html)

    def visit(self, address: str) -> None:
        """Go to a page of the site."""
        self._read(self.server.open("GET", address))

    def elements(self) -> tuple[Element, ...]:
        """The lines of the page as it stands."""
        return tuple(Walk(self._root, self, self._names).elements)

    def act(self, action: Action) -> str:
        """Carry out one action on a control; returns what went wrong, if anything."""
        try:
            _WAYS[action.name](self, self._need(action.ids[0]), action)
        except ActionError as slip:
            return str(slip)
        return ""

    # What the controls hold

    def value(self, node: Node) -> str:
        """The text of a field."""
        default = node.text() if node.tag == "textarea" else node.attributes.get("value", "")
        return self._values.get(node, default)

    def ticked(self, node: Node) -> bool:
        """Whether a box is ticked."""
        return self._ticks.get(node, "checked" in node.attributes)

    def chosen(self, node: Node) -> Node | None:
        """The option that a list shows."""
        options = node.options()
        default = next((o for o in options if "selected" in o.attributes), options[0] if options else None)
        return self._choices.get(node, default)

    def filled(self) -> dict[str, Any]:
        """What the visitor has changed, by the numbers of the controls: JSON, for a copy of this page."""
        number = {node: i + 1 for i, node in enumerate(self._controls)}
        changed: dict[str, Any] = {str(number[node]): text for node, text in self._values.items()}
        changed |= {str(number[node]): on for node, on in self._ticks.items()}
        changed |= {str(number[node]): squeeze(option.text()) for node, option in self._choices.items()}
        return {"fields": changed, "focused": number.get(self.focused, 0) if self.focused else 0}

    def put(self, filled: dict[str, Any]) -> None:
        """Fill in what `filled` told of another copy of this page."""
        for number, value in filled["fields"].items():
            node = self._need(int(number))
            if isinstance(value, bool):
                self._ticks[node] = value
            elif node.tag == "select":
                self._choices[node] = next(o for o in node.options() if squeeze(o.text()) == value)
            else:
                self._values[node] = value
        self.focused = self._need(filled["focused"]) if filled["focused"] else None

    # What the hand does

    def _read(self, page: str) -> None:
        nodes = parse(page)
        self._root = nodes[0]
        self._controls = controls(nodes)
        self._names = labels(nodes)
        self.focused = None
        self._values, self._ticks, self._choices = {}, {}, {}

    def _need(self, number: int) -> Node:
        if not 1 <= number <= len(self._controls):
            raise ActionError(f"no element {number} on this page")
        return self._controls[number - 1]

    def _click(self, node: Node, _action: Action) -> None:
        self.focused = node
        if node.tag == "a":
            self._follow(node.attributes.get("href", ""))
        elif node.tag == "button":
            self._submit(node)
        elif node.kind == "checkbox":
            self._ticks[node] = not self.ticked(node)

    def _fill(self, node: Node, action: Action) -> None:
        if node.kind not in _TEXT_KINDS:
            raise ActionError("the element takes no text")
        self.focused = node
        self._values[node] = action.text if action.name == "fill" else ""

    def _select(self, node: Node, action: Action) -> None:
        if node.tag != "select":
            raise ActionError("the element is no list")
        options = node.options()
        found = [self._option(options, wanted) for wanted in action.options]
        self.focused = node
        # Each option is set in turn, as in a browser: the last one in the list stays, and none leaves the first.
        self._choices[node] = next((o for o in reversed(options) if o in found), options[0])

    def _option(self, options: list[Node], wanted: str) -> Node:
        for option in options:
            text = squeeze(option.text())
            if text.lower() == wanted.strip().lower() or option.attributes.get("value", text) == wanted:
                return option
        raise ActionError(f"no option {wanted}")

    def _check(self, node: Node, action: Action) -> None:
        if node.tag != "input":
            raise ActionError("the element is no checkbox")
        on = node.kind == "checkbox" and self.ticked(node)
        if on != (action.name == "check"):
            self._click(node, action)

    def _focus(self, node: Node, _action: Action) -> None:
        self.focused = node

    def _press(self, node: Node, action: Action) -> None:
        self.focused = node
        if node.tag in ("a", "button"):
            self._click(node, action)
        elif node.tag == "input" and (form := node.form()):
            self._submit(next(child for child in form.inside() if child.tag == "button"))
        else:
            raise ActionError("Enter does nothing here")

    def _hover(self, _node: Node, _action: Action) -> None:
        """No page of the sites reacts to the pointer alone."""

    def _follow(self, href: str) -> None:
        address = canonical(href, self.server.site.host)
        if address is None:
            self.blocked += 1
            raise ActionError(LEAVES)
        self.visit(address)

    def _submit(self, button: Node) -> None:
        form = button.form()
        if form is None:
            return
        pairs = [pair for node in form.inside() if (pair := self._pair(node))]
        if "name" in button.attributes:
            pairs.append((button.attributes["name"], button.attributes.get("value", "")))
        query, target = urlencode(pairs), form.attributes["action"]
        if form.attributes.get("method") == "post":
            self._read(self.server.open("POST", target, query))
        else:
            self._read(self.server.open("GET", f"{target}?{query}"))

    def _pair(self, node: Node) -> tuple[str, str] | None:
        name = node.attributes.get("name")
        if name is None or node.tag == "button":
            return None
        if node.tag == "select":
            chosen = self.chosen(node)
            return (name, chosen.attributes.get("value", squeeze(chosen.text()))) if chosen else None
        if node.kind == "checkbox":
            return (name, node.attributes.get("value", "on")) if self.ticked(node) else None
        return name, self.value(node)


_WAYS = {
    "click": BarePage._click,
    "fill": BarePage._fill,
    "clear": BarePage._fill,
    "select_option": BarePage._select,
    "check": BarePage._check,
    "uncheck": BarePage._check,
    "focus": BarePage._focus,
    "press": BarePage._press,
    "hover": BarePage._hover,
}
