"""Tasks on the mail site."""

from __future__ import annotations

from ..pages.mail_site import address_of
from ..pages.words import REMARKS
from .aims import Aim, Draw, Step, Template, fill, follow, go, push, say

_PLACES = ("first", "second", "third")
_VERBS = (
    ("Star", "Star", "starred", 1),
    ("Archive", "Archive", "folder", "Archive"),
    ("Delete", "Delete", "folder", "Bin"),
)
_INBOX = "select * from message where folder = 'Inbox'"


def _move(id: int, folder: str) -> tuple[str, tuple[object, ...]]:
    return "update message set folder = ? where id = ?", (folder, id)


def star(draw: Draw) -> Aim:
    """Star a message."""
    m = draw.row(f"{_INBOX} and not starred")
    edit = ("update message set starred = 1 where id = ?", (m["id"],))
    return Aim(goal=f'Star the message "{m["subject"]}".', plan=(follow(m["subject"]), push("Star")), edits=(edit,))


def archive(draw: Draw) -> Aim:
    """Archive a message."""
    m = draw.row(_INBOX)
    plan = (follow(m["subject"]), push("Archive"))
    return Aim(goal=f'Archive the message "{m["subject"]}".', plan=plan, edits=(_move(m["id"], "Archive"),))


def delete(draw: Draw) -> Aim:
    """Delete a message."""
    m = draw.row(_INBOX)
    plan = (follow(m["subject"]), push("Delete"))
    return Aim(goal=f'Delete the message "{m["subject"]}".', plan=plan, edits=(_move(m["id"], "Bin"),))


def by_place(draw: Draw) -> Aim:
    """No subject to look for: the verb and the place say all."""
    place, m = draw.rng.choice(list(zip(_PLACES, draw.all(f"{_INBOX} order by id desc"), strict=False)))
    verb, button, column, value = draw.rng.choice(_VERBS)
    if column == "starred" and m["starred"]:
        raise LookupError("this message has a star already")
    edit = (f"update message set {column} = ? where id = ?", (value, m["id"]))
    plan = (follow(m["subject"]), push(button))
    return Aim(goal=f"{verb} the {place} message of the inbox.", plan=plan, edits=(edit,))


def rescue(draw: Draw) -> Aim:
    """Move a deleted message back to the inbox."""
    m = draw.row(_INBOX)
    draw.db.execute("update message set folder = 'Bin' where id = ?", (m["id"],))
    goal = f'The message "{m["subject"]}" was deleted by mistake. Move it back to the inbox.'
    plan = (follow("Bin"), follow(m["subject"]), push("Move to inbox"))
    return Aim(goal=goal, plan=plan, edits=(_move(m["id"], "Inbox"),))


def compose(draw: Draw) -> Aim:
    """Write to an address."""
    c, text, word = (
        draw.row("select * from contact"),
        draw.rng.choice(REMARKS),
        draw.rng.choice(["Hello", "News", "Today"]),
    )
    goal = f'Write to {c["address"]} with the subject "{word}" and the text "{text}"'
    plan = (follow("Compose"), *_letter(c["address"], word, text))
    return Aim(goal=goal, plan=plan, edits=(_sent(draw, c["address"], word, text),))


def write_by_name(draw: Draw) -> Aim:
    """Write to a contact whose address has to be looked up."""
    c, text = draw.row("select * from contact"), draw.rng.choice(REMARKS)
    goal = f'Write to {c["name"]} with the subject "Question" and the text "{text}"'
    plan = (follow("Contacts"), follow(c["name"]), follow("Write"), *_letter(None, "Question", text))
    return Aim(goal=goal, plan=plan, edits=(_sent(draw, c["address"], "Question", text),))


def reply(draw: Draw) -> Aim:
    """Reply to a message."""
    m, text = draw.row(_INBOX), draw.rng.choice(REMARKS)
    goal = f'Reply to the message "{m["subject"]}" with the text "{text}"'
    plan = (follow(m["subject"]), follow("Reply"), fill("Text", text), push("Send"))
    return Aim(goal=goal, plan=plan, edits=(_sent(draw, m["sender"], f"Re: {m['subject']}", text),))


def forward(draw: Draw) -> Aim:
    """Forward a message to an address."""
    m = draw.row(_INBOX)
    c = draw.row("select * from contact where address != ?", m["sender"])
    goal = f'Forward the message "{m["subject"]}" to {c["address"]}'
    plan = (follow(m["subject"]), follow("Forward"), fill("To", c["address"]), push("Send"))
    return Aim(goal=goal, plan=plan, edits=(_sent(draw, c["address"], f"Fwd: {m['subject']}", m["body"]),))


def phone(draw: Draw) -> Aim:
    """What the phone number of a contact is."""
    c = draw.row("select * from contact")
    plan = (follow("Contacts"), follow(c["name"]), say(c["phone"]))
    return Aim(goal=f"What is the phone number of {c['name']}?", plan=plan, answers=(c["phone"],))


def add_contact(draw: Draw) -> Aim:
    """Add somebody to the contacts."""
    name = f"{draw.rng.choice(['Yara', 'Quinn', 'Zoe'])} {draw.rng.choice(['Ulrich', 'Voss', 'Quist'])}"
    phone = f"{draw.rng.randint(100, 999)} {draw.rng.randint(1000, 9999)}"
    goal = f"Add {name} to the contacts: address {address_of(name)}, phone {phone}."
    entries = (fill("Name", name), fill("Address", address_of(name)), fill("Phone", phone))
    edit = ("insert into contact (name, address, phone) values (?,?,?)", (name, address_of(name), phone))
    return Aim(goal=goal, plan=(follow("Contacts"), *entries, push("Add")), edits=(edit,))


def count_from(draw: Draw) -> Aim:
    """How many messages of a sender are in the inbox."""
    sender = draw.row(_INBOX)["sender"]
    number = len(draw.all(f"{_INBOX} and sender = ?", sender))
    goal = f"How many messages from {sender} are in the inbox? Answer with a number."
    return Aim(goal=goal, plan=(say(str(number)),), answers=(str(number),))


def delete_all_from(draw: Draw) -> Aim:
    """Delete all messages of a sender in the inbox."""
    sender = draw.row(_INBOX)["sender"]
    found = draw.all(f"{_INBOX} and sender = ? order by id desc limit 4", sender)
    for m in draw.all(f"{_INBOX} and sender = ? order by id desc", sender)[4:]:
        draw.db.execute("update message set folder = 'Archive' where id = ?", (m["id"],))
    plan = tuple(step for m in found for step in (go("/folder/Inbox"), follow(m["subject"]), push("Delete")))
    edits = tuple(_move(m["id"], "Bin") for m in found)
    return Aim(goal=f"Delete all messages from {sender} that are in the inbox.", plan=plan, edits=edits)


def clear_stars(draw: Draw) -> Aim:
    """Take the stars of two messages away."""
    found = draw.rng.sample(draw.all(_INBOX), 2)
    draw.db.execute("update message set starred = id in (?, ?)", (found[0]["id"], found[1]["id"]))
    plan = tuple(step for m in found for step in (go("/folder/Inbox"), follow(m["subject"]), push("Remove star")))
    edit = ("update message set starred = 0", ())
    return Aim(goal="Two messages in the inbox have a star. Remove both stars.", plan=plan, edits=(edit,))


def _letter(to: str | None, subject: str, text: str) -> tuple[Step, ...]:
    address = () if to is None else (fill("To", to),)
    return (*address, fill("Subject", subject), fill("Text", text), push("Send"))


def _sent(draw: Draw, to: str, subject: str, text: str) -> tuple[str, tuple[object, ...]]:
    sql = "insert into message (folder, sender, recipient, subject, body, starred, seen) values ('Sent',?,?,?,?,0,1)"
    return sql, (address_of(draw.meta("user")), to, subject, text)


TEMPLATES = (
    Template(id="mail.star", difficulty="easy", split="train", draw=star),
    Template(id="mail.archive", difficulty="easy", split="train", draw=archive),
    Template(id="mail.delete", difficulty="easy", split="validation", draw=delete),
    Template(id="mail.by_place", difficulty="easy", split="train", draw=by_place),
    Template(id="mail.rescue", difficulty="medium", split="test", draw=rescue),
    Template(id="mail.compose", difficulty="medium", split="train", draw=compose),
    Template(id="mail.write_by_name", difficulty="hard", split="test", draw=write_by_name),
    Template(id="mail.reply", difficulty="medium", split="train", draw=reply),
    Template(id="mail.forward", difficulty="medium", split="train", draw=forward),
    Template(id="mail.phone", difficulty="easy", split="train", draw=phone),
    Template(id="mail.add_contact", difficulty="medium", split="validation", draw=add_contact),
    Template(id="mail.count_from", difficulty="medium", split="train", draw=count_from),
    Template(id="mail.delete_all_from", difficulty="hard", split="train", draw=delete_all_from),
    Template(id="mail.clear_stars", difficulty="hard", split="train", draw=clear_stars),
)
