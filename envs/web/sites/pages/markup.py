"""HTML by small functions. What is not `Html` already is escaped, so no text of a visitor becomes markup.

The pages keep to a plain subset that `dom.py` reads: lower-case tags, double-quoted attributes, labels beside their
fields, no script. Each control has a name by which a policy can tell it from the others.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Literal

STYLE = (
    "body{font:15px/1.5 sans-serif;margin:0;color:#223;background:#f3f4f8;overflow-wrap:anywhere}"
    "header{background:#27406b;color:#fff;padding:10px 18px}header b{font-size:19px;margin-right:18px}"
    "header a{color:#cfe0ff;margin-right:12px}"
    "main{background:#fff;margin:16px;padding:8px 20px 18px;border:1px solid #d6d9e2;border-radius:6px}"
    ".note{background:#e3f4e1;margin:16px 16px 0;padding:8px 20px;border:1px solid #b5d9b0}"
    "h1{font-size:21px}h2{font-size:17px}table{border-collapse:collapse}td,th{padding:4px 14px 4px 0;text-align:left;"
    "border-bottom:1px solid #e4e6ee}a{color:#1c55b8}button{padding:4px 12px;margin:4px 6px 4px 0}"
    "input,select,textarea{padding:4px;margin:4px 10px 4px 6px;font:inherit}textarea{width:80%;height:90px}"
)


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def esc(text: str | int) -> Html:
    """Text made harmless; markup stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def join(*pieces: str | int) -> Html:
    """Pieces one after another."""
    return Html("".join(map(esc, pieces)))


def tag(name: str, /, *inside: str | int, **attributes: str | int | None) -> Html:
    """An element; attributes that are None are left out, `cls` and `for_` stand for reserved words."""
    names = {"cls": "class", "for_": "for"}
    shown = "".join(f' {names.get(k, k)}="{esc(v)}"' for k, v in attributes.items() if v is not None)
    return Html(f"<{name}{shown}>{join(*inside)}</{name}>")


def p(*inside: str | int) -> Html:
    """A paragraph."""
    return tag("p", *inside)


def h2(text: str) -> Html:
    """A heading below the page's own."""
    return tag("h2", text)


def link(text: str, to: str) -> Html:
    """A link."""
    return tag("a", text, href=to)


def items(lines: Iterable[str]) -> Html:
    """A list, one line each."""
    return tag("ul", *(tag("li", line) for line in lines))


def table(rows: Iterable[Sequence[str | int]]) -> Html:
    """Rows of cells."""
    return tag("table", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))


def form(
    to: str,
    /,
    *controls: str,
    submit: str,
    method: Literal["get", "post"] = "post",
    other: str | None = None,
    **hidden: str | int,
) -> Html:
    """A form with its fields, its hidden values and its button; the `other` button sends `other=yes` besides."""
    extra = [Html(f'<input type="hidden" name="{esc(name)}" value="{esc(value)}">') for name, value in hidden.items()]
    buttons = [tag("button", submit, type="submit")]
    if other:
        buttons.append(tag("button", other, type="submit", name="other", value="yes"))
    return tag("form", *extra, *controls, *buttons, action=to, method=method)


def field(label: str, name: str, value: str = "") -> Html:
    """A field of one line."""
    return join(
        tag("label", label, for_=f"f-{name}"),
        Html(f'<input type="text" id="f-{esc(name)}" name="{esc(name)}" value="{esc(value)}" autocomplete="off">'),
        Html("<br>"),
    )


def area(label: str, name: str, value: str = "") -> Html:
    """A field of several lines."""
    control = tag("textarea", value, id=f"f-{name}", name=name, autocomplete="off")
    return join(tag("label", label, for_=f"f-{name}"), Html("<br>"), control, Html("<br>"))


def choose(label: str, name: str, options: Sequence[str], chosen: str = "") -> Html:
    """A list to choose one option from; the option's text is its value."""
    inside = [Html(f'<option value="{esc(o)}"{" selected" if o == chosen else ""}>{esc(o)}</option>') for o in options]
    control = tag("select", *inside, id=f"f-{name}", name=name, autocomplete="off")
    return join(tag("label", label, for_=f"f-{name}"), control, Html("<br>"))


def tick(label: str, name: str, on: bool = False) -> Html:
    """A box to tick; sends `yes` when ticked."""
    box = f'<input type="checkbox" id="f-{esc(name)}" name="{esc(name)}" value="yes"{" checked" if on else ""}>'
    return join(Html(box), tag("label", label, for_=f"f-{name}"), Html("<br>"))


def document(site: str, menu: Sequence[tuple[str, str]], title: str, body: Html, note: str) -> str:
    """The whole page."""
    links = [link(text, to) for text, to in menu]
    return join(
        Html('<!doctype html><html><head><meta charset="utf-8">'),
        tag("title", f"{title} - {site}"),
        Html(f"<style>{STYLE}</style></head><body>"),
        tag("header", tag("b", site), *links),
        tag("div", note, cls="note") if note else Html(""),
        tag("main", tag("h1", title), body),
        Html("</body></html>"),
    )
