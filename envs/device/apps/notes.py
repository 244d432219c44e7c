"""Notes: a list with search, pinned ones first; an editor."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui, confirm

URI = "content://notes/notes"
SCHEMA = """
CREATE TABLE notes (_id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL DEFAULT '',
  folder TEXT NOT NULL DEFAULT 'Personal', pinned INTEGER NOT NULL DEFAULT 0, modified_ms INTEGER NOT NULL DEFAULT 0);
"""
FOLDERS = ("Personal", "Work", "Ideas")


def main(ui: Ui) -> w.Widget:
    """The notes, pinned ones first, narrowed by a search."""
    wanted = f"%{ui.value('search')}%"
    sql = "SELECT _id, title, body, pinned, folder FROM notes WHERE title LIKE ? OR body LIKE ?"
    found = ui.query(f"{sql} ORDER BY pinned DESC, title COLLATE NOCASE, _id", wanted, wanted)
    rows = []
    for key, title, body, pinned, folder in found:
        first = body.split("\n")[0][:40]
        rows.append(w.item(("Pinned: " if pinned else "") + title, detail=f"{folder}: {first}", on_tap=_opens(ui, key)))
    return w.screen(
        w.toolbar("Notes", w.icon("New note", lambda: ui.go("edit"), rid="add")),
        ui.field("search", "Search notes"),
        w.scroll("list", *(rows or [w.label("No notes", rid="empty")])),
    )


def _opens(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("edit", id=key)


def edit(ui: Ui) -> w.Widget:
    """One note in its fields."""
    key = ui.args.get("id")
    sql = "SELECT title, body, folder, pinned FROM notes WHERE _id = ?"
    found = ui.one(sql, key) if key is not None else None
    if found is not None:
        ui.fill(title=found[0], body=found[1])
        ui.state.setdefault("folder", found[2])
    folder = ui.state.get("folder", FOLDERS[0])

    def save() -> None:
        title = ui.value("title").strip()
        if not title:
            return ui.say("A note needs a title")
        values = (title, ui.value("body"), folder, ui.phone.now_ms)
        if key is None:
            ui.execute("INSERT INTO notes (title, body, folder, modified_ms) VALUES (?, ?, ?, ?)", *values)
        else:
            ui.execute("UPDATE notes SET title = ?, body = ?, folder = ?, modified_ms = ? WHERE _id = ?", *values, key)
        return ui.back()

    def pin() -> None:
        ui.execute("UPDATE notes SET pinned = 1 - pinned WHERE _id = ?", key)

    more = []
    if found is not None:
        more = [
            w.icon("Unpin" if found[3] else "Pin", pin, rid="pin"),
            w.icon("Delete", lambda: ui.show("delete", id=key), rid="delete"),
        ]
    return w.screen(
        w.toolbar("New note" if key is None else "Edit note", *more, w.button("Save", save, rid="save")),
        ui.field("title", "Title"),
        ui.spinner("folder", "Folder", folder, FOLDERS, lambda name: ui.state.update(folder=name)),
        ui.field("body", "Note", multiline=True),
    )


def _delete(ui: Ui) -> None:
    ui.execute("DELETE FROM notes WHERE _id = ?", ui.dialog_args["id"])
    ui.back()


APP = App(
    name="Notes",
    package="org.rollwright.notes",
    screens={"main": main, "edit": edit},
    dialogs={"delete": confirm("Delete this note?", "Delete", _delete)},
    schema=SCHEMA,
    providers={URI: "notes"},
    colour="#f9ab00",
)
