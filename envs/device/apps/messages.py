"""Messages: conversations by number, a chat, a new message to a number or to a contact's name."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui, confirm
from .dialer import name_of

URI = "content://sms"
RECEIVED, SENT = 1, 2
SCHEMA = """
CREATE TABLE sms (_id INTEGER PRIMARY KEY, address TEXT NOT NULL, body TEXT NOT NULL DEFAULT '',
  type INTEGER NOT NULL DEFAULT 1, date_ms INTEGER NOT NULL DEFAULT 0, read INTEGER NOT NULL DEFAULT 1);
"""
_THREADS = """
SELECT s.address, s.body, (SELECT count(*) FROM sms u WHERE u.address = s.address AND u.read = 0)
FROM sms s WHERE s._id = (SELECT t._id FROM sms t WHERE t.address = s.address ORDER BY t.date_ms DESC, t._id DESC)
ORDER BY s.date_ms DESC, s._id DESC LIMIT 60
"""


def send(ui: Ui, number: str, body: str) -> None:
    """Put a message into the store as sent."""
    sql = "INSERT INTO sms (address, body, type, date_ms) VALUES (?, ?, ?, ?)"
    ui.execute(sql, number, body, SENT, ui.phone.now_ms)


def main(ui: Ui) -> w.Widget:
    """One line for each conversation, newest first."""
    rows = []
    for number, body, unread in ui.query(_THREADS):
        title = name_of(ui, number) + (f" ({unread} new)" if unread else "")
        rows.append(w.item(title, detail=body[:60], rid="thread", on_tap=_opens(ui, number)))
    return w.screen(
        w.toolbar("Messages", w.icon("New message", lambda: ui.go("new"), rid="add")),
        w.scroll("list", *(rows or [w.label("No conversations", rid="empty")])),
    )


def _opens(ui: Ui, number: str) -> Handler:
    def act() -> None:
        ui.execute("UPDATE sms SET read = 1 WHERE address = ?", number)
        ui.go("chat", number=number)

    return act


def chat(ui: Ui) -> w.Widget:
    """One conversation with a field for the answer."""
    number = ui.args["number"]

    def submit() -> None:
        body = ui.value("body").strip()
        if body:
            send(ui, number, body)
            ui.frame.fields["body"] = ""

    lines = ui.query("SELECT _id, body, type FROM sms WHERE address = ? ORDER BY date_ms DESC, _id DESC", number)
    rows = [
        w.item(body, detail="You" if kind == SENT else "Received", rid="message", on_long_press=_asks(ui, key))
        for key, body, kind in lines
    ]
    return w.screen(
        w.toolbar(
            name_of(ui, number),
            w.icon("Call", lambda: ui.launch("Phone", "call", number=number), rid="call"),
            w.icon("Delete conversation", lambda: ui.show("delete_thread", number=number), rid="delete"),
        ),
        w.row(ui.field("body", "Text message", weight=3), w.button("Send", submit, rid="send")),
        w.scroll("list", *(rows or [w.label("No messages yet", rid="empty")])),
    )


def _asks(ui: Ui, key: int) -> Handler:
    return lambda: ui.show("message_menu", id=key)


def new(ui: Ui) -> w.Widget:
    """The form of a message to a name or a number."""

    def submit() -> None:
        to, body = ui.value("to").strip(), ui.value("body").strip()
        found = ui.one("SELECT phone FROM people WHERE name = ? COLLATE NOCASE AND phone != '' ORDER BY _id", to)
        number = str(found[0]) if found else to
        if not number.lstrip("+").replace("-", "").replace(" ", "").isdecimal():
            ui.say("No contact has that name")
        elif not body:
            ui.say("Write a message first")
        else:
            send(ui, number, body)
            ui.back()
            ui.go("chat", number=number)

    return w.screen(
        w.toolbar("New message"),
        ui.field("to", "To: name or number"),
        ui.field("body", "Text message"),
        w.button("Send", submit, rid="send"),
    )


def message_menu(ui: Ui) -> w.Widget:
    """What can be done with a message."""
    key = ui.dialog_args["id"]

    def delete() -> None:
        ui.execute("DELETE FROM sms WHERE _id = ?", key)
        ui.dismiss()

    def forward() -> None:
        found = ui.one("SELECT body FROM sms WHERE _id = ?", key)
        ui.dismiss()
        ui.go("new")
        ui.phone.frame.fields["body"] = str(found[0]) if found else ""

    return w.dialog(
        "Message",
        w.button("Forward", forward, rid="forward"),
        w.button("Delete", delete, rid="delete"),
        w.button("Cancel", ui.dismiss, rid="button2"),
    )


def _delete_thread(ui: Ui) -> None:
    ui.execute("DELETE FROM sms WHERE address = ?", ui.dialog_args["number"])
    ui.back()


APP = App(
    name="Messages",
    package="org.rollwright.messages",
    screens={"main": main, "chat": chat, "new": new},
    dialogs={
        "message_menu": message_menu,
        "delete_thread": confirm("Delete this conversation?", "Delete", _delete_thread),
    },
    schema=SCHEMA,
    providers={URI: "sms"},
    permission="read your messages",
    colour="#0b57d0",
)
