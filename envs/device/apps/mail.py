"""Mail: folders, search, reading, writing, replying, forwarding. What is sent lands in the folder Sent."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui

URI = "content://mail/messages"
ME = "me@rollwright.example"
SCHEMA = """
CREATE TABLE mails (_id INTEGER PRIMARY KEY, folder TEXT NOT NULL DEFAULT 'Inbox', sender TEXT NOT NULL DEFAULT '',
  recipient TEXT NOT NULL DEFAULT '', subject TEXT NOT NULL DEFAULT '', body TEXT NOT NULL DEFAULT '',
  read INTEGER NOT NULL DEFAULT 0, starred INTEGER NOT NULL DEFAULT 0, date_ms INTEGER NOT NULL DEFAULT 0);
"""
FOLDERS = ("Inbox", "Starred", "Sent", "Archive", "Bin")


def main(ui: Ui) -> w.Widget:
    """The mails of a folder, narrowed by a search."""
    place = ui.state.get("folder", "Inbox")
    wanted = f"%{ui.value('search')}%"
    where = "starred = 1 AND folder != 'Bin'" if place == "Starred" else "folder = ?"
    args = [] if place == "Starred" else [place]
    sql = f"SELECT _id, sender, recipient, subject, read FROM mails WHERE {where} AND (subject LIKE ? OR sender LIKE ?)"
    rows = []
    for key, sender, recipient, subject, read in ui.query(
        f"{sql} ORDER BY date_ms DESC, _id DESC", *args, wanted, wanted
    ):
        person = f"To {recipient}" if place == "Sent" else sender
        rows.append(w.item(subject + ("" if read else " (new)"), detail=person, on_tap=_opens(ui, key)))
    return w.screen(
        w.toolbar(
            "Mail",
            ui.spinner("folder", "Folder", place, FOLDERS, lambda name: ui.state.update(folder=name)),
            w.icon("Compose", lambda: ui.go("compose"), rid="compose"),
        ),
        ui.field("search", "Search mail"),
        w.scroll("list", *(rows or [w.label("No mail", rid="empty")])),
    )


def _opens(ui: Ui, key: int) -> Handler:
    def act() -> None:
        ui.execute("UPDATE mails SET read = 1 WHERE _id = ?", key)
        ui.go("mail", id=key)

    return act


def mail(ui: Ui) -> w.Widget:
    """One mail."""
    key = ui.args["id"]
    found = ui.one("SELECT sender, recipient, subject, body, starred FROM mails WHERE _id = ?", key)
    if found is None:
        return w.screen(w.toolbar("Mail"), w.label("This mail was deleted.", rid="empty"))
    sender, recipient, subject, body, starred = found

    def star() -> None:
        ui.execute("UPDATE mails SET starred = 1 - starred WHERE _id = ?", key)

    def unread() -> None:
        ui.execute("UPDATE mails SET read = 0 WHERE _id = ?", key)
        ui.back()

    def to(folder: str) -> Handler:
        def act() -> None:
            ui.execute("UPDATE mails SET folder = ? WHERE _id = ?", folder, key)
            ui.back()

        return act

    def write(to_whom: str, prefix: str, text: str) -> Handler:
        def act() -> None:
            ui.go("compose")
            title = subject if subject.startswith(prefix) else f"{prefix} {subject}"
            ui.phone.frame.fields.update(to=to_whom, subject=title, body=text)

        return act

    return w.screen(
        w.toolbar(
            subject,
            w.icon("Remove star" if starred else "Add star", star, rid="star"),
            w.icon("Archive", to("Archive"), rid="archive"),
            w.icon("Delete", to("Bin"), rid="delete"),
        ),
        w.item(f"From {sender}", detail=f"To {recipient}"),
        w.row(
            w.button("Reply", write(sender, "Re:", ""), rid="reply"),
            w.button("Forward", write("", "Fwd:", body), rid="forward"),
            w.button("Mark unread", unread, rid="unread"),
        ),
        w.scroll("list", *[w.label(line) for line in body.split("\n")]),
    )


def compose(ui: Ui) -> w.Widget:
    """The form of a mail: a new one, a reply, or one that is forwarded."""

    def send() -> None:
        to = ui.value("to").strip()
        if "@" not in to:
            return ui.say("Write an address with an @ into To")
        sql = "INSERT INTO mails (folder, sender, recipient, subject, body, read, date_ms) VALUES (?, ?, ?, ?, ?, 1, ?)"
        ui.execute(sql, "Sent", ME, to, ui.value("subject").strip(), ui.value("body").strip(), ui.phone.now_ms)
        ui.back()
        return ui.say("Sent")

    return w.screen(
        w.toolbar("Compose", w.button("Send", send, rid="send")),
        ui.field("to", "To"),
        ui.field("subject", "Subject"),
        ui.field("body", "Message", multiline=True),
    )


APP = App(
    name="Mail",
    package="org.rollwright.mail",
    screens={"main": main, "mail": mail, "compose": compose},
    schema=SCHEMA,
    providers={URI: "mails"},
    colour="#c5221f",
)
