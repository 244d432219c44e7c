"""Tasks: things to do, open and done, with a due day and a priority."""

from __future__ import annotations

from datetime import date

from ..screen import widgets as w
from .app import App, Handler, Ui, confirm

URI = "content://tasks/tasks"
SCHEMA = """
CREATE TABLE todo (_id INTEGER PRIMARY KEY, title TEXT NOT NULL, due TEXT NOT NULL DEFAULT '',
  priority TEXT NOT NULL DEFAULT 'Normal', done INTEGER NOT NULL DEFAULT 0);
"""
PRIORITIES = ("Low", "Normal", "High")


def main(ui: Ui) -> w.Widget:
    """What is open, or what is done."""
    tab = ui.state.get("tab", "Open")
    done = int(tab == "Done")
    found = ui.query("SELECT _id, title, due, priority FROM todo WHERE done = ? ORDER BY due = '', due, _id", done)
    rows = []
    for key, title, due, priority in found:
        detail = ", ".join(part for part in (f"due {due}" if due else "", f"{priority} priority") if part)
        tick = w.checkbox("", bool(done), _flips(ui, key), rid="check", desc=f"Done: {title}")
        rows.append(w.item(title, detail=detail, on_tap=_opens(ui, key), extra=[tick]))
    top = [w.button("Clear", lambda: ui.show("clear"), rid="clear")] if done and rows else []
    return w.screen(
        w.toolbar("Tasks", *top, w.icon("New task", lambda: ui.go("edit"), rid="add")),
        w.tabs(["Open", "Done"], tab, lambda name: ui.state.update(tab=name)),
        w.scroll("list", *(rows or [w.label("No tasks", rid="empty")])),
    )


def _flips(ui: Ui, key: int) -> Handler:
    def act() -> None:
        ui.execute("UPDATE todo SET done = 1 - done WHERE _id = ?", key)

    return act


def _opens(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("edit", id=key)


def edit(ui: Ui) -> w.Widget:
    """The form of a new task, or of one that is changed."""
    key = ui.args.get("id")
    found = ui.one("SELECT title, due, priority FROM todo WHERE _id = ?", key) if key is not None else None
    if found is not None:
        ui.fill(title=found[0], due=found[1])
        ui.state.setdefault("priority", found[2])
    priority = ui.state.get("priority", "Normal")

    def save() -> None:
        title, due = ui.value("title").strip(), ui.value("due").strip()
        if not title or (due and not _is_day(due)):
            return ui.say("A task needs a title, and a date as 2026-03-05 or none")
        if key is None:
            ui.execute("INSERT INTO todo (title, due, priority) VALUES (?, ?, ?)", title, due, priority)
        else:
            ui.execute("UPDATE todo SET title = ?, due = ?, priority = ? WHERE _id = ?", title, due, priority, key)
        return ui.back()

    more = [w.icon("Delete", lambda: ui.show("delete", id=key), rid="delete")] if found is not None else []
    return w.screen(
        w.toolbar("New task" if key is None else "Edit task", *more, w.button("Save", save, rid="save")),
        ui.field("title", "Title"),
        ui.field("due", "Due date (2026-03-05)"),
        ui.spinner("priority", "Priority", priority, PRIORITIES, lambda name: ui.state.update(priority=name)),
    )


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _delete(ui: Ui) -> None:
    ui.execute("DELETE FROM todo WHERE _id = ?", ui.dialog_args["id"])
    ui.back()


def _clear(ui: Ui) -> None:
    ui.execute("DELETE FROM todo WHERE done = 1")
    ui.dismiss()


APP = App(
    name="Tasks",
    package="org.rollwright.tasks",
    screens={"main": main, "edit": edit},
    dialogs={
        "delete": confirm("Delete this task?", "Delete", _delete),
        "clear": confirm("Delete all completed tasks?", "Clear", _clear),
    },
    schema=SCHEMA,
    providers={URI: "todo"},
    colour="#4285f4",
)
