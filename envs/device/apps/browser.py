"""Browser: pages of the phone's own small web, by address or by search; bookmarks and history. No network."""

from __future__ import annotations

import json

from ..screen import widgets as w
from .app import App, Handler, Ui

PAGES, BOOKMARKS, HISTORY = "content://browser/pages", "content://browser/bookmarks", "content://browser/history"
SCHEMA = """
CREATE TABLE pages (_id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
  body TEXT NOT NULL DEFAULT '', links TEXT NOT NULL DEFAULT '[]');
CREATE TABLE bookmarks (_id INTEGER PRIMARY KEY, url TEXT NOT NULL, title TEXT NOT NULL);
CREATE TABLE history (_id INTEGER PRIMARY KEY, url TEXT NOT NULL, title TEXT NOT NULL, date_ms INTEGER NOT NULL);
"""


def visit(ui: Ui, url: str) -> None:
    """Open an address, or search for it where no page has it."""
    found = ui.one("SELECT title FROM pages WHERE url = ?", url)
    if found is None:
        ui.go("results", words=url)
        return
    ui.execute("INSERT INTO history (url, title, date_ms) VALUES (?, ?, ?)", url, found[0], ui.phone.now_ms)
    ui.go("page", url=url)


def _bar(ui: Ui) -> list[w.Widget]:
    def go() -> None:
        words = ui.value("address").strip()
        if words:
            visit(ui, words.removeprefix("http://").removeprefix("https://").rstrip("/"))

    return [
        w.row(ui.field("address", "Search or type an address", on_enter=go, weight=3), w.button("Go", go, rid="go"))
    ]


def main(ui: Ui) -> w.Widget:
    """The start page: address bar and sites."""
    pages = ui.query("SELECT url, title FROM pages WHERE url NOT LIKE '%/%' ORDER BY _id LIMIT 12")
    return w.screen(
        w.toolbar(
            "Browser",
            w.icon("Bookmarks", lambda: ui.go("bookmarks"), rid="bookmarks"),
            w.icon("History", lambda: ui.go("history"), rid="history"),
        ),
        *_bar(ui),
        w.scroll("list", *[w.item(title, detail=url, on_tap=_visits(ui, url)) for url, title in pages]),
    )


def _visits(ui: Ui, url: str) -> Handler:
    return lambda: visit(ui, url)


def page(ui: Ui) -> w.Widget:
    """One page with its links."""
    url = ui.args["url"]
    found = ui.one("SELECT title, body, links FROM pages WHERE url = ?", url)
    if found is None:
        return w.screen(w.toolbar("Not found"), w.label("There is no such page.", rid="empty"))
    title, body, links = found
    marked = ui.one("SELECT _id FROM bookmarks WHERE url = ?", url)

    def mark() -> None:
        if marked:
            ui.execute("DELETE FROM bookmarks WHERE url = ?", url)
        else:
            ui.execute("INSERT INTO bookmarks (url, title) VALUES (?, ?)", url, title)

    rows = [w.label(line) for line in body.split("\n") if line]
    rows += [w.button(text, _visits(ui, target), rid="link") for target, text in _links(links)]
    return w.screen(
        w.toolbar(title, w.icon("Remove bookmark" if marked else "Add bookmark", mark, rid="bookmark")),
        *_bar(ui),
        w.scroll("list", *rows),
    )


def _links(text: str) -> list[tuple[str, str]]:
    """Addresses and captions; a page that was inserted with broken links has none."""
    try:
        return [(str(url), str(caption)) for url, caption in json.loads(text)]
    except (ValueError, TypeError):
        return []


def results(ui: Ui) -> w.Widget:
    """What a search found."""
    words = ui.args["words"]
    terms = [f"%{term}%" for term in words.split()[:8]]
    if not terms:
        return w.screen(w.toolbar("Search"), *_bar(ui), w.label("Nothing found", rid="empty"))
    where = " AND ".join("(title LIKE ? OR body LIKE ?)" for _ in terms)
    sql = f"SELECT url, title FROM pages WHERE {where} ORDER BY _id LIMIT 30"
    found = ui.query(sql, *[term for term in terms for _ in range(2)])
    rows = [w.item(title, detail=url, on_tap=_visits(ui, url)) for url, title in found]
    nothing = w.label(f"Nothing found for {words[:60]}", rid="empty")
    return w.screen(w.toolbar("Search"), *_bar(ui), w.scroll("list", *(rows or [nothing])))


def bookmarks(ui: Ui) -> w.Widget:
    """The bookmarks, which can be removed."""

    def removes(key: int) -> w.Widget:
        def act() -> None:
            ui.execute("DELETE FROM bookmarks WHERE _id = ?", key)

        return w.icon("Remove bookmark", act, rid="remove")

    found = ui.query("SELECT _id, url, title FROM bookmarks ORDER BY _id")
    rows = [w.item(t, detail=url, on_tap=_visits(ui, url), extra=[removes(key)]) for key, url, t in found]
    return w.screen(w.toolbar("Bookmarks"), w.scroll("list", *(rows or [w.label("No bookmarks", rid="empty")])))


def history(ui: Ui) -> w.Widget:
    """The pages visited, newest first."""

    def clear() -> None:
        ui.execute("DELETE FROM history")

    found = ui.query("SELECT url, title FROM history ORDER BY date_ms DESC, _id DESC LIMIT 60")
    rows = [w.item(title, detail=url, on_tap=_visits(ui, url)) for url, title in found]
    return w.screen(
        w.toolbar("History", w.button("Clear history", clear, rid="clear", enabled=bool(rows))),
        w.scroll("list", *(rows or [w.label("No history", rid="empty")])),
    )


APP = App(
    name="Browser",
    package="org.rollwright.browser",
    screens={"main": main, "page": page, "results": results, "bookmarks": bookmarks, "history": history},
    schema=SCHEMA,
    providers={PAGES: "pages", BOOKMARKS: "bookmarks", HISTORY: "history"},
    colour="#ea4335",
)
