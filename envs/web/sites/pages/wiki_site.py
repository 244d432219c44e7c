"""The wiki: articles with links, categories, editing, revisions that can be restored, a watch list, search."""

from __future__ import annotations

import random
import sqlite3

from .engine import Call, Page, Redirect, Site, get, post, url
from .markup import Html, area, field, form, h2, items, join, link, p
from .words import FIRST_NAMES, RIVERS, TOWNS, TRADES

_SCHEMA = """
create table article (title text primary key, category text, body text, founded integer, population integer,
                      trade text);
create table near (title text, other text);
create table revision (id integer primary key, title text, author text, summary text, body text);
create table watch (title text primary key);
"""
_HILLS = ("Upper", "Lower", "Old", "New", "Great", "Little")


def fill(db: sqlite3.Connection, rng: random.Random, size: int) -> None:
    """`size` articles on towns, each on one of a few rivers, with facts of their own."""
    db.execute("insert into meta values ('user', ?)", (rng.choice(FIRST_NAMES),))
    names = [*TOWNS, *(f"{hill} {town}" for hill in _HILLS for town in TOWNS)]
    titles = rng.sample(names if size > len(TOWNS) else TOWNS, size)
    rivers = rng.sample(RIVERS, min(len(RIVERS), 2 + size // 10))
    populations = rng.sample(range(20, 990), size)
    for title, people in zip(titles, populations, strict=True):
        river, founded, trade = rng.choice(rivers), rng.randint(1100, 1899), rng.choice(TRADES)
        body = describe(title, river, founded, trade, people * 100)
        row = (title, f"Towns on the {river}", body, founded, people * 100, trade)
        db.execute("insert into article values (?, ?, ?, ?, ?, ?)", row)
        revision = (title, rng.choice(FIRST_NAMES), "First version", body)
        db.execute("insert into revision (title, author, summary, body) values (?, ?, ?, ?)", revision)
    for title in titles:
        others = rng.sample([other for other in titles if other != title], min(2, size - 1))
        db.executemany("insert into near values (?, ?)", [(title, other) for other in others])


def describe(title: str, river: str, founded: int, trade: str, people: int) -> str:
    """The text of an article."""
    return (
        f"{title} is a town on the {river}. It was founded in {founded}. It is known for its {trade}. "
        f"The town has {people} people."
    )


def home(call: Call) -> Page:
    """The search and the categories."""
    rows = call.all("select category, count(*) as number from article group by category order by category")
    links = [join(link(row["category"], url(f"/category/{row['category']}")), f" ({row['number']})") for row in rows]
    find = form("/search", field("Search the wiki", "q"), submit="Find", method="get")
    return Page(title="Main page", body=join(find, h2("Categories"), items(links)))


def _links(rows: list[sqlite3.Row]) -> Html:
    return items(link(row["title"], url(f"/wiki/{row['title']}")) for row in rows)


def category(call: Call) -> Page:
    """The articles of a category."""
    rows = call.all("select title from article where category = ? order by title", call.parts["name"])
    return Page(title=f"Category: {call.parts['name']}", body=_links(rows) if rows else p("Nothing here."))


def search(call: Call) -> Page:
    """The articles that have the words."""
    words = f"%{call.text('q')}%"
    rows = call.all("select title from article where title like ? or body like ? order by title", words, words)
    return Page(title="Search results", body=join(p(f"{len(rows)} articles"), _links(rows)))


def _article(call: Call) -> sqlite3.Row:
    return call.one("select * from article where title = ?", call.parts["title"])


def article(call: Call) -> Page:
    """One article with its neighbours."""
    a = _article(call)
    watched = call.all("select 1 from watch where title = ?", a["title"])
    near = call.all("select other as title from near where title = ? order by other", a["title"])
    body = join(
        p(a["body"]),
        h2("Nearby"),
        _links(near),
        p("Category: ", link(a["category"], url(f"/category/{a['category']}"))),
        p(link("Official page", "http://towns.example/")),
        p(link("Edit", url(f"/edit/{a['title']}")), " ", link("History", url(f"/history/{a['title']}"))),
        form(url(f"/wiki/{a['title']}/watch"), submit="Unwatch" if watched else "Watch"),
    )
    return Page(title=a["title"], body=body)


def watch(call: Call) -> Redirect:
    """Watch an article, or stop watching."""
    a = _article(call)
    if call.all("select 1 from watch where title = ?", a["title"]):
        call.write("delete from watch where title = ?", a["title"])
    else:
        call.write("insert into watch values (?)", a["title"])
    return Redirect(to=url(f"/wiki/{a['title']}"))


def watched(call: Call) -> Page:
    """The articles that are watched."""
    return Page(title="Watch list", body=_links(call.all("select title from watch order by title")))


def edit(call: Call) -> Page:
    """The form of an article."""
    a = _article(call)
    controls = (
        area("Text", "body", a["body"]),
        field("Category", "category", a["category"]),
        field("Summary", "summary"),
    )
    return Page(title=f"Editing {a['title']}", body=form(url(f"/edit/{a['title']}"), *controls, submit="Save"))


def save(call: Call) -> Redirect:
    """Change an article, which adds a revision."""
    a = _article(call)
    body, name = call.text("body"), call.text("category")
    if not body or not any(letter.isalnum() for letter in name) or "/" in name:
        return Redirect(to=url(f"/edit/{a['title']}"), note="An article needs a text and a category.")
    call.write("update article set body = ?, category = ? where title = ?", body, name, a["title"])
    sql = "insert into revision (title, author, summary, body) values (?, ?, ?, ?)"
    call.write(sql, a["title"], call.meta("user"), call.text("summary"), body)
    return Redirect(to=url(f"/wiki/{a['title']}"), note="Saved.")


def history(call: Call) -> Page:
    """The revisions of an article."""
    a = _article(call)
    rows = call.all("select * from revision where title = ? order by id", a["title"])
    shown = [
        join(
            p(f"Version {number} by {row['author']}: {row['summary']}"),
            p(row["body"]),
            form(f"/restore/{row['id']}", submit=f"Restore version {number}"),
        )
        for number, row in enumerate(rows, start=1)
    ]
    return Page(title=f"History of {a['title']}", body=join(*shown))


def restore(call: Call) -> Redirect:
    """Take an old text back, which adds a revision."""
    row = call.one("select * from revision where id = ?", call.number("id"))
    call.write("update article set body = ? where title = ?", row["body"], row["title"])
    sql = "insert into revision (title, author, summary, body) values (?, ?, 'Restored', ?)"
    call.write(sql, row["title"], call.meta("user"), row["body"])
    return Redirect(to=url(f"/wiki/{row['title']}"), note="Restored.")


def new(call: Call) -> Page:
    """The form of a new article."""
    controls = (field("Title", "title"), field("Category", "category"), area("Text", "body"))
    return Page(title="New article", body=form("/new", *controls, submit="Create"))


def create(call: Call) -> Redirect:
    """Make a new article, or say what is wrong with it."""
    title, name, body = call.text("title"), call.text("category"), call.text("body")
    plain = all(any(letter.isalnum() for letter in text) and "/" not in text for text in (title, name))
    if not plain or not body or call.all("select 1 from article where title = ?", title):
        return Redirect(to="/new", note="A new article needs a title that is free, a category and a text.")
    call.write("insert into article values (?, ?, ?, 0, 0, '')", title, name, body)
    sql = "insert into revision (title, author, summary, body) values (?, ?, 'First version', ?)"
    call.write(sql, title, call.meta("user"), body)
    return Redirect(to=url(f"/wiki/{title}"), note="Created.")


SITE = Site(
    name="wiki",
    title="Wiki",
    schema=_SCHEMA,
    fill=fill,
    routes=(
        get("/", home),
        get("/category/<name>", category),
        get("/search", search),
        get("/wiki/<title>", article),
        post("/wiki/<title>/watch", watch),
        get("/watched", watched),
        get("/edit/<title>", edit),
        post("/edit/<title>", save),
        get("/history/<title>", history),
        post("/restore/<id>", restore),
        get("/new", new),
        post("/new", create),
    ),
    menu=(("Main page", "/"), ("Watch list", "/watched"), ("New article", "/new")),
    watched=("select title, category, body from article", "select title from watch"),
    sizes={"tiny": 4, "small": 12, "medium": 40, "large": 100},
)
