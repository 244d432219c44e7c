"""The forum: boards, threads, replies, votes, bookmarks, people to follow, search."""

from __future__ import annotations

import random
import sqlite3

from .engine import Call, NotFound, Page, Redirect, Site, get, post, url
from .markup import Html, area, field, form, h2, items, join, link, p
from .words import BOARDS, FIRST_NAMES, LAST_NAMES, REMARKS, SUBJECTS

_SCHEMA = """
create table board (id integer primary key, name text);
create table person (name text primary key, joined integer);
create table thread (id integer primary key, board_id integer, title text, author text);
create table post (id integer primary key, thread_id integer, author text, text text, votes integer);
create table bookmark (thread_id integer primary key);
create table followed (name text primary key);
"""
_QUESTIONS = (
    "How do you start with the {}?",
    "Which {} is the best?",
    "My new {}",
    "Looking for a {}",
    "The {} is broken",
)


def fill(db: sqlite3.Connection, rng: random.Random, size: int) -> None:
    """`size` threads with titles of their own, on some boards, with one to six posts each."""
    names = [f"{first}{rng.choice(LAST_NAMES)}" for first in rng.sample(FIRST_NAMES, min(12, 4 + size))]
    db.execute("insert into meta values ('user', ?)", (names[0],))
    db.executemany("insert into person values (?, ?)", [(name, rng.randint(2005, 2025)) for name in names])
    boards = rng.sample(BOARDS, min(len(BOARDS), 2 + size // 6))
    db.executemany("insert into board (name) values (?)", [(name,) for name in sorted(boards)])
    titles = [question.format(subject) for subject in SUBJECTS for question in _QUESTIONS]
    for number, title in enumerate(rng.sample(titles, size), start=1):
        sql = "insert into thread values (?, ?, ?, ?)"
        db.execute(sql, (number, rng.randint(1, len(boards)), title, rng.choice(names)))
        author = db.execute("select author from thread where id = ?", (number,)).fetchone()[0]
        votes = rng.sample(range(30), 6)
        for place in range(rng.randint(1, 6)):
            row = (number, author if place == 0 else rng.choice(names), rng.choice(REMARKS), votes[place])
            db.execute("insert into post (thread_id, author, text, votes) values (?, ?, ?, ?)", row)


def home(call: Call) -> Page:
    """All boards."""
    boards = call.all("select * from board order by id")
    find = form("/search", field("Search threads", "q"), submit="Find", method="get")
    return Page(title="Boards", body=join(find, items(link(b["name"], f"/board/{b['id']}") for b in boards)))


def _threads(rows: list[sqlite3.Row]) -> Html:
    return items(join(link(t["title"], f"/thread/{t['id']}"), f" by {t['author']}") for t in rows)


def board(call: Call) -> Page:
    """The threads of a board."""
    b = call.one("select * from board where id = ?", call.number("id"))
    rows = call.all("select * from thread where board_id = ? order by id desc", b["id"])
    return Page(title=b["name"], body=join(p(link("New thread", url("/new", board=b["id"]))), _threads(rows)))


def search(call: Call) -> Page:
    """The threads whose title has the words."""
    rows = call.all("select * from thread where title like ? order by id desc", f"%{call.text('q')}%")
    return Page(title="Search results", body=join(p(f"{len(rows)} threads"), _threads(rows)))


def thread(call: Call) -> Page:
    """One thread with its posts."""
    t = call.one("select * from thread where id = ?", call.number("id"))
    user, marked = call.meta("user"), call.all("select 1 from bookmark where thread_id = ?", t["id"])
    posts = call.all("select * from post where thread_id = ? order by id", t["id"])
    shown = [_post(number, row, user) for number, row in enumerate(posts, start=1)]
    body = join(
        form(f"/thread/{t['id']}/bookmark", submit="Remove bookmark" if marked else "Bookmark"),
        *shown,
        h2("Your reply"),
        form(f"/thread/{t['id']}/reply", area("Text", "text"), submit="Reply"),
    )
    return Page(title=t["title"], body=body)


def _post(number: int, row: sqlite3.Row, user: str) -> Html:
    own = row["author"] == user
    controls = [form(f"/post/{row['id']}/vote", submit=f"Upvote #{number}")]
    if own:
        controls = [
            link(f"Edit #{number}", f"/post/{row['id']}/edit"),
            form(f"/post/{row['id']}/delete", submit=f"Delete #{number}"),
        ]
    author = link(row["author"], url(f"/user/{row['author']}"))
    return join(p(f"#{number} ", author, f" ({row['votes']} votes)"), p(row["text"]), *controls)


def reply(call: Call) -> Redirect:
    """Add a post."""
    t = call.one("select id from thread where id = ?", call.number("id"))
    to = f"/thread/{t['id']}"
    if not call.text("text"):
        return Redirect(to=to, note="A reply needs a text.")
    sql = "insert into post (thread_id, author, text, votes) values (?, ?, ?, 0)"
    call.write(sql, t["id"], call.meta("user"), call.text("text"))
    return Redirect(to=to, note="Reply added.")


def bookmark(call: Call) -> Redirect:
    """Bookmark a thread, or take the bookmark away."""
    t = call.one("select id from thread where id = ?", call.number("id"))
    if call.all("select 1 from bookmark where thread_id = ?", t["id"]):
        call.write("delete from bookmark where thread_id = ?", t["id"])
    else:
        call.write("insert into bookmark values (?)", t["id"])
    return Redirect(to=f"/thread/{t['id']}")


def bookmarks(call: Call) -> Page:
    """The threads with a bookmark."""
    rows = call.all("select thread.* from bookmark join thread on thread.id = thread_id order by thread.id")
    return Page(title="Bookmarks", body=_threads(rows))


def new(call: Call) -> Page:
    """The form of a new thread."""
    b = call.one("select * from board where id = ?", call.number("board"))
    controls = (field("Title", "title"), area("Text", "text"))
    return Page(title=f"New thread in {b['name']}", body=form("/new", *controls, submit="Post", board=b["id"]))


def add_thread(call: Call) -> Redirect:
    """Open a thread with its first post."""
    b = call.one("select id from board where id = ?", call.number("board"))
    title, text, user = call.text("title"), call.text("text"), call.meta("user")
    if not any(letter.isalnum() for letter in title) or not text:
        return Redirect(to=url("/new", board=b["id"]), note="A thread needs a title and a text.")
    number = call.write("insert into thread (board_id, title, author) values (?, ?, ?)", b["id"], title, user)
    call.write("insert into post (thread_id, author, text, votes) values (?, ?, ?, 0)", number, user, text)
    return Redirect(to=f"/thread/{number}", note="Thread opened.")


def vote(call: Call) -> Redirect:
    """Vote for a post."""
    row = call.one("select * from post where id = ?", call.number("id"))
    call.write("update post set votes = votes + 1 where id = ?", row["id"])
    return Redirect(to=f"/thread/{row['thread_id']}")


def _own(call: Call) -> sqlite3.Row:
    """A post of the visitor's own; others' are not theirs to change."""
    return call.one("select * from post where id = ? and author = ?", call.number("id"), call.meta("user"))


def edit(call: Call) -> Page:
    """The form of one's own post."""
    row = _own(call)
    return Page(
        title="Edit post", body=form(f"/post/{row['id']}/edit", area("Text", "text", row["text"]), submit="Save")
    )


def save(call: Call) -> Redirect:
    """Change one's own post."""
    row = _own(call)
    if not call.text("text"):
        return Redirect(to=f"/post/{row['id']}/edit", note="A post needs a text.")
    call.write("update post set text = ? where id = ?", call.text("text"), row["id"])
    return Redirect(to=f"/thread/{row['thread_id']}", note="Saved.")


def delete(call: Call) -> Redirect:
    """Delete one's own post."""
    row = _own(call)
    call.write("delete from post where id = ?", row["id"])
    return Redirect(to=f"/thread/{row['thread_id']}", note="Deleted.")


def user(call: Call) -> Page:
    """One person with the threads that they opened."""
    person = call.one("select * from person where name = ?", call.parts["name"])
    followed = call.all("select 1 from followed where name = ?", person["name"])
    threads = call.all("select * from thread where author = ? order by id desc", person["name"])
    button = form(url(f"/user/{person['name']}/follow"), submit="Unfollow" if followed else "Follow")
    return Page(
        title=person["name"], body=join(p(f"Member since {person['joined']}"), button, h2("Threads"), _threads(threads))
    )


def follow(call: Call) -> Redirect:
    """Follow a person, or stop following."""
    name = call.parts["name"]
    if not call.all("select 1 from person where name = ?", name):
        raise NotFound
    if call.all("select 1 from followed where name = ?", name):
        call.write("delete from followed where name = ?", name)
    else:
        call.write("insert into followed values (?)", name)
    return Redirect(to=url(f"/user/{name}"))


SITE = Site(
    name="forum",
    title="Forum",
    schema=_SCHEMA,
    fill=fill,
    routes=(
        get("/", home),
        get("/board/<id>", board),
        get("/search", search),
        get("/thread/<id>", thread),
        post("/thread/<id>/reply", reply),
        post("/thread/<id>/bookmark", bookmark),
        get("/bookmarks", bookmarks),
        get("/new", new),
        post("/new", add_thread),
        post("/post/<id>/vote", vote),
        get("/post/<id>/edit", edit),
        post("/post/<id>/edit", save),
        post("/post/<id>/delete", delete),
        get("/user/<name>", user),
        post("/user/<name>/follow", follow),
    ),
    menu=(("Boards", "/"), ("Bookmarks", "/bookmarks")),
    # A post is told by its thread and its text: its number depends on what was made before it.
    watched=(
        "select board_id, title, author from thread",
        "select title, post.author, text, votes from post join thread on thread.id = thread_id",
        "select thread_id from bookmark",
        "select name from followed",
    ),
    sizes={"tiny": 3, "small": 12, "medium": 36, "large": 100},
)
