"""The mail site: folders, reading, replying, forwarding, stars, contacts, search."""

from __future__ import annotations

import random
import sqlite3

from .engine import Call, NotFound, Page, Redirect, Site, get, post, url
from .markup import area, field, form, h2, join, link, p, table
from .words import FIRST_NAMES, LAST_NAMES, REMARKS, SUBJECTS

FOLDERS = ("Inbox", "Sent", "Archive", "Bin")
_SCHEMA = """
create table message (id integer primary key, folder text, sender text, recipient text, subject text, body text,
                      starred integer, seen integer);
create table contact (id integer primary key, name text, address text, phone text);
"""


def address_of(name: str) -> str:
    """The address of a person of this world."""
    return f"{name.lower().replace(' ', '.')}@post.test"


def fill(db: sqlite3.Connection, rng: random.Random, size: int) -> None:
    """`size` messages, most of them in the inbox, no two with one subject; and the people who wrote them."""
    names = rng.sample([f"{first} {rng.choice(LAST_NAMES)}" for first in FIRST_NAMES], min(20, 4 + size // 2))
    user, *others = names
    db.execute("insert into meta values ('user', ?)", (user,))
    for name in others:
        phone = f"{rng.randint(100, 999)} {rng.randint(1000, 9999)}"
        db.execute("insert into contact (name, address, phone) values (?, ?, ?)", (name, address_of(name), phone))
    for number, subject in enumerate(rng.sample(_subjects(), size)):
        folder = "Inbox" if number < max(3, size * 2 // 3) else rng.choice(["Sent", "Archive", "Bin"])
        other = rng.choice(others)
        pair = (user, other) if folder == "Sent" else (other, user)
        body = f"About the {subject.lower()}. {' '.join(rng.sample(REMARKS, 2))}"
        db.execute(
            "insert into message (folder, sender, recipient, subject, body, starred, seen) values (?,?,?,?,?,?,?)",
            (folder, *map(address_of, pair), subject, body, int(rng.random() < 0.1), int(rng.random() < 0.5)),
        )


def _subjects() -> list[str]:
    return [
        f"{first.capitalize()} {second}".strip() for first in SUBJECTS for second in ("", "plan", "news", "question")
    ]


def home(call: Call) -> Page:
    """The inbox."""
    return _folder(call, "Inbox")


def folder(call: Call) -> Page:
    """The messages of a folder."""
    return _folder(call, call.parts["name"])


def _folder(call: Call, name: str) -> Page:
    if name not in FOLDERS:
        raise NotFound
    return _listing(name, call.all("select * from message where folder = ? order by id desc", name))


def search(call: Call) -> Page:
    """The messages that have the words."""
    words = f"%{call.text('q')}%"
    sql = "select * from message where subject like ? or sender like ? or body like ? order by id desc"
    return _listing("Search", call.all(sql, words, words, words))


def _listing(title: str, messages: list[sqlite3.Row]) -> Page:
    rows = [
        (link(m["subject"], url(f"/message/{m['id']}")), m["sender"], *(["starred"] if m["starred"] else []))
        for m in messages
    ]
    find = form("/search", field("Search mail", "q"), submit="Find", method="get")
    return Page(title=title, body=join(find, table(rows) if rows else p("No messages.")))


def message(call: Call) -> Page:
    """One message; reading it marks it as seen."""
    m = call.one("select * from message where id = ?", call.number("id"))
    call.write("update message set seen = 1 where id = ?", m["id"])
    to = f"/message/{m['id']}"
    buttons = [
        form(f"{to}/star", submit="Remove star" if m["starred"] else "Star"),
        *(form(f"{to}/move", submit=label, folder=name) for label, name in _moves(m["folder"])),
    ]
    body = join(
        p(f"From: {m['sender']}"),
        p(f"To: {m['recipient']}"),
        p(f"Folder: {m['folder']}"),
        p(m["body"]),
        p(*(join(link(text, url("/compose", **{key: m["id"]})), " ") for text, key in _ANSWERS)),
        *buttons,
    )
    return Page(title=m["subject"], body=body)


_ANSWERS = (("Reply", "reply"), ("Forward", "forward"))


def _moves(folder: str) -> list[tuple[str, str]]:
    places = [("Archive", "Archive"), ("Delete", "Bin"), ("Move to inbox", "Inbox")]
    return [(label, name) for label, name in places if name != folder]


def star(call: Call) -> Redirect:
    """Star a message, or take the star away."""
    number = call.number("id")
    call.one("select id from message where id = ?", number)
    call.write("update message set starred = 1 - starred where id = ?", number)
    return Redirect(to=f"/message/{number}")


def move(call: Call) -> Redirect:
    """Move a message to another folder."""
    number, target = call.number("id"), call.text("folder")
    old = call.one("select folder from message where id = ?", number)["folder"]
    if target not in FOLDERS:
        raise NotFound
    call.write("update message set folder = ? where id = ?", target, number)
    return Redirect(to=url(f"/folder/{old}"), note=f"Moved to {target}.")


def compose(call: Call) -> Page:
    """The form of a message: a new one, a reply, or one that is forwarded."""
    to = subject = body = ""
    if number := call.number("reply"):
        m = call.one("select * from message where id = ?", number)
        to, subject = m["sender"], f"Re: {m['subject']}"
    elif number := call.number("forward"):
        m = call.one("select * from message where id = ?", number)
        subject, body = f"Fwd: {m['subject']}", m["body"]
    elif number := call.number("to"):
        to = call.one("select address from contact where id = ?", number)["address"]
    controls = (field("To", "to", to), field("Subject", "subject", subject), area("Text", "body", body))
    return Page(title="New message", body=form("/send", *controls, submit="Send"))


def send(call: Call) -> Redirect:
    """Send a message, or say what is wrong with it."""
    to, subject = call.text("to"), call.text("subject")
    known = call.db.execute("select 1 from contact where address = ?", (to,)).fetchone()
    if known is None or not any(letter.isalnum() for letter in subject):
        problem = "A subject is needed." if known else "No contact has this address."
        return Redirect(to="/compose", note=f"Not sent. {problem}")
    sender = address_of(call.meta("user"))
    call.write(
        "insert into message (folder, sender, recipient, subject, body, starred, seen) values ('Sent',?,?,?,?,0,1)",
        *(sender, to, subject, call.text("body")),
    )
    return Redirect(to="/folder/Sent", note="Message sent.")


def contacts(call: Call) -> Page:
    """All contacts, and the form of a new one."""
    rows = [
        (link(c["name"], url(f"/contact/{c['id']}")), c["address"])
        for c in call.all("select * from contact order by name")
    ]
    controls = (field("Name", "name"), field("Address", "address"), field("Phone", "phone"))
    return Page(
        title="Contacts", body=join(table(rows), h2("New contact"), form("/contacts/add", *controls, submit="Add"))
    )


def contact(call: Call) -> Page:
    """One contact."""
    c = call.one("select * from contact where id = ?", call.number("id"))
    lines = (p(f"Address: {c['address']}"), p(f"Phone: {c['phone']}"))
    return Page(title=c["name"], body=join(*lines, link("Write", url("/compose", to=c["id"]))))


def add_contact(call: Call) -> Redirect:
    """Add a contact, or say what is wrong with it."""
    name, address = call.text("name"), call.text("address")
    if not any(letter.isalnum() for letter in name) or "@" not in address:
        return Redirect(to="/contacts", note="Not added. A name and an address are needed.")
    call.write("insert into contact (name, address, phone) values (?,?,?)", name, address, call.text("phone"))
    return Redirect(to="/contacts", note="Contact added.")


SITE = Site(
    name="mail",
    title="Mail",
    schema=_SCHEMA,
    fill=fill,
    routes=(
        get("/", home),
        get("/folder/<name>", folder),
        get("/search", search),
        get("/message/<id>", message),
        post("/message/<id>/star", star),
        post("/message/<id>/move", move),
        get("/compose", compose),
        post("/send", send),
        get("/contacts", contacts),
        post("/contacts/add", add_contact),
        get("/contact/<id>", contact),
    ),
    menu=(
        *((name, url(f"/folder/{name}")) for name in FOLDERS),
        ("Contacts", "/contacts"),
        ("Compose", "/compose"),
    ),
    watched=(
        "select folder, sender, recipient, subject, body, starred from message",
        "select name, address, phone from contact",
    ),
    sizes={"tiny": 3, "small": 8, "medium": 20, "large": 60},
)
