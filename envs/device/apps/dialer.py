"""Phone: keypad, recent calls, blocked numbers. A call is a row of the call log; nobody answers."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui

URI, BLOCKED_URI = "content://call_log/calls", "content://call_log/blocked"
INCOMING, OUTGOING, MISSED = 1, 2, 3
SCHEMA = """
CREATE TABLE calls (_id INTEGER PRIMARY KEY, number TEXT NOT NULL, type INTEGER NOT NULL DEFAULT 1,
  date_ms INTEGER NOT NULL DEFAULT 0, duration_s INTEGER NOT NULL DEFAULT 0);
CREATE TABLE blocked (_id INTEGER PRIMARY KEY, number TEXT NOT NULL);
"""
_KINDS = {INCOMING: "Incoming", OUTGOING: "Outgoing", MISSED: "Missed"}
_KEYS = ("123", "456", "789", "*0#")


def name_of(ui: Ui, number: str) -> str:
    """The contact's name, or the number where nobody is known by it."""
    found = ui.one("SELECT name FROM people WHERE phone = ? ORDER BY _id LIMIT 1", number)
    return str(found[0]) if found else number


def place_call(ui: Ui, number: str) -> None:
    """Log an outgoing call and show it."""
    ui.execute("INSERT INTO calls (number, type, date_ms) VALUES (?, ?, ?)", number, OUTGOING, ui.phone.now_ms)
    ui.launch("Phone", "call", number=number)


def main(ui: Ui) -> w.Widget:
    """The keypad, or the log of calls."""
    tab = ui.state.get("tab", "Keypad")
    bar = w.tabs(["Keypad", "Recents"], tab, lambda name: ui.state.update(tab=name))
    top = w.toolbar("Phone", w.button("Blocked", lambda: ui.go("blocked"), rid="blocked"))
    if tab == "Recents":
        return w.screen(top, bar, _recents(ui))
    return w.screen(top, bar, *_keypad(ui))


def _keypad(ui: Ui) -> list[w.Widget]:
    number = ui.state.get("number", "")

    def press(digit: str) -> Handler:
        return lambda: ui.state.update(number=(number + digit)[:20])

    keys = [w.row(*[w.button(d, press(d), rid=f"key_{d}") for d in line]) for line in _KEYS]

    def call() -> None:
        ui.state["number"] = ""
        place_call(ui, number)

    erase = w.icon("Backspace", lambda: ui.state.update(number=number[:-1]), rid="backspace")
    dial = w.button("Call", call, rid="call", enabled=bool(number))
    return [w.label(number, rid="digits", style="title", height=130), *keys, w.row(dial, erase)]


def _recents(ui: Ui) -> w.Widget:
    calls = ui.query("SELECT _id, number, type, date_ms FROM calls ORDER BY date_ms DESC, _id DESC LIMIT 60")
    rows = []
    for key, number, kind, _ in calls:
        rows.append(w.item(name_of(ui, number), detail=_KINDS.get(kind, ""), rid="call_row", on_tap=_opens(ui, key)))
    return w.scroll("list", *(rows or [w.label("No recent calls", rid="empty")]))


def _opens(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("entry", id=key)


def entry(ui: Ui) -> w.Widget:
    """One call of the log."""
    key = ui.args["id"]
    found = ui.one("SELECT number, type, duration_s FROM calls WHERE _id = ?", key)
    if found is None:
        return w.screen(w.toolbar("Call"), w.label("This call was deleted.", rid="empty"))
    number, kind, seconds = found

    def block() -> None:
        ui.execute("INSERT INTO blocked (number) VALUES (?)", number)
        ui.say(f"{number} is blocked")

    def delete() -> None:
        ui.execute("DELETE FROM calls WHERE _id = ?", key)
        ui.back()

    return w.screen(
        w.toolbar(name_of(ui, number)),
        w.item(number, detail=f"{_KINDS.get(kind, '')}, {seconds} seconds"),
        w.row(
            w.button("Call back", lambda: place_call(ui, number), rid="call_back"),
            w.button("Message", lambda: ui.launch("Messages", "chat", number=number), rid="sms"),
        ),
        w.row(
            w.button("Block number", block, rid="block"),
            w.button("Delete from history", delete, rid="delete"),
        ),
    )


def call(ui: Ui) -> w.Widget:
    """A call under way."""
    number = ui.args["number"]
    return w.screen(
        w.toolbar("Calling"),
        w.label(name_of(ui, number), style="title", rid="callee"),
        w.label(number, rid="number"),
        w.button("End call", ui.back, rid="end_call"),
    )


def blocked(ui: Ui) -> w.Widget:
    """The blocked numbers."""

    def add() -> None:
        number = ui.value("block_number").strip()
        if number:
            ui.execute("INSERT INTO blocked (number) VALUES (?)", number)
            ui.frame.fields["block_number"] = ""

    rows = [
        w.item(name_of(ui, number), extra=[w.button("Unblock", _removes(ui, key), rid="unblock", weight=2)])
        for key, number in ui.query("SELECT _id, number FROM blocked ORDER BY _id")
    ]
    return w.screen(
        w.toolbar("Blocked numbers"),
        w.row(ui.field("block_number", "Number to block", on_enter=add, weight=3), w.button("Block", add, rid="add")),
        w.scroll("list", *(rows or [w.label("No blocked numbers", rid="empty")])),
    )


def _removes(ui: Ui, key: int) -> Handler:
    def act() -> None:
        ui.execute("DELETE FROM blocked WHERE _id = ?", key)

    return act


APP = App(
    name="Phone",
    package="org.rollwright.dialer",
    screens={"main": main, "entry": entry, "call": call, "blocked": blocked},
    schema=SCHEMA,
    providers={URI: "calls", BLOCKED_URI: "blocked"},
    permission="make and manage phone calls",
    colour="#188038",
)
