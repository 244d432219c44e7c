"""Contacts: a list with search, a card with call and message, a form to add and to edit."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui, confirm
from .dialer import place_call

URI = "content://contacts/people"
SCHEMA = """
CREATE TABLE people (_id INTEGER PRIMARY KEY, name TEXT NOT NULL, phone TEXT NOT NULL DEFAULT '',
  email TEXT NOT NULL DEFAULT '', company TEXT NOT NULL DEFAULT '', starred INTEGER NOT NULL DEFAULT 0);
"""
_FIELDS = ("name", "phone", "email", "company")
_HINTS = ("Name", "Phone", "Email", "Company")


def main(ui: Ui) -> w.Widget:
    """All contacts, or those with a star, narrowed by a search."""
    wanted = f"%{ui.value('search')}%"
    only = " AND starred = 1" if ui.state.get("tab") == "Starred" else ""
    sql = f"SELECT _id, name, company FROM people WHERE name LIKE ?{only} ORDER BY name COLLATE NOCASE, _id"
    people = ui.query(sql, wanted)
    rows = [w.item(name, detail=company, on_tap=_opens(ui, key)) for key, name, company in people]
    return w.screen(
        w.toolbar("Contacts", w.icon("Create contact", lambda: ui.go("edit"), rid="add")),
        w.tabs(["All", "Starred"], ui.state.get("tab", "All"), lambda tab: ui.state.update(tab=tab)),
        ui.field("search", "Search contacts"),
        w.scroll("list", *(rows or [w.label("No contacts", rid="empty")])),
    )


def _opens(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("card", id=key)


def card(ui: Ui) -> w.Widget:
    """One contact."""
    key = ui.args["id"]
    found = ui.one("SELECT name, phone, email, company, starred FROM people WHERE _id = ?", key)
    if found is None:
        return w.screen(w.toolbar("Contact"), w.label("This contact was deleted.", rid="empty"))
    name, phone, email, company, starred = found

    def star() -> None:
        ui.execute("UPDATE people SET starred = 1 - starred WHERE _id = ?", key)

    details = [("Phone", phone), ("Email", email), ("Company", company)]
    return w.screen(
        w.toolbar(
            name,
            w.icon("Remove star" if starred else "Add star", star, rid="star"),
            w.icon("Edit", lambda: ui.go("edit", id=key), rid="edit"),
            w.icon("Delete", lambda: ui.show("delete", id=key), rid="delete"),
        ),
        w.row(
            w.button("Call", lambda: place_call(ui, phone), rid="call", enabled=bool(phone)),
            w.button("Message", lambda: ui.launch("Messages", "chat", number=phone), rid="sms", enabled=bool(phone)),
        ),
        *[w.item(value, detail=title, rid=title.lower()) for title, value in details if value],
    )


def edit(ui: Ui) -> w.Widget:
    """The form of a new contact, or of one that is changed."""
    key = ui.args.get("id")
    if key is not None:
        found = ui.one("SELECT name, phone, email, company FROM people WHERE _id = ?", key)
        ui.fill(**dict(zip(_FIELDS, found or ("",) * 4, strict=True)))

    def save() -> None:
        values = [ui.value(rid).strip() for rid in _FIELDS]
        if not values[0]:
            ui.say("A contact needs a name")
        elif key is None:
            made = ui.execute("INSERT INTO people (name, phone, email, company) VALUES (?, ?, ?, ?)", *values)
            ui.back()
            ui.go("card", id=made)
        else:
            ui.execute("UPDATE people SET name = ?, phone = ?, email = ?, company = ? WHERE _id = ?", *values, key)
            ui.back()

    return w.screen(
        w.toolbar("Create contact" if key is None else "Edit contact", w.button("Save", save, rid="save")),
        *[ui.field(rid, hint) for rid, hint in zip(_FIELDS, _HINTS, strict=True)],
    )


def _delete(ui: Ui) -> None:
    ui.execute("DELETE FROM people WHERE _id = ?", ui.dialog_args["id"])
    ui.back()


APP = App(
    name="Contacts",
    package="org.rollwright.contacts",
    screens={"main": main, "card": card, "edit": edit},
    dialogs={"delete": confirm("Delete this contact?", "Delete", _delete)},
    schema=SCHEMA,
    providers={URI: "people"},
    permission="access your contacts",
    colour="#1a73e8",
)
