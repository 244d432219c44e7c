"""Calendar: the events of a day, an agenda of all that is to come, a form to add and to edit. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ..screen import widgets as w
from .app import App, Handler, Ui, confirm

URI = "content://com.android.calendar/events"
SCHEMA = """
CREATE TABLE events (_id INTEGER PRIMARY KEY, title TEXT NOT NULL, dtstart INTEGER NOT NULL, dtend INTEGER NOT NULL,
  location TEXT NOT NULL DEFAULT '', description TEXT NOT NULL DEFAULT '', reminder_min INTEGER NOT NULL DEFAULT 0);
"""
REMINDERS = {"No reminder": 0, "5 minutes": 5, "10 minutes": 10, "30 minutes": 30, "1 hour": 60}
_DAY_MS = 86_400_000


def at(day: str, time: str) -> int | None:
    """Milliseconds of `2026-03-05`, `14:30`; None where one of the two is no such thing."""
    try:
        moment = datetime.strptime(f"{day.strip()} {time.strip()}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) * 1000


def day_of(ms: int) -> str:
    """The day of a time in milliseconds, as 2026-03-05, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def time_of(ms: int) -> str:
    """The time of day of a time in milliseconds, as 14:30, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%H:%M")


def main(ui: Ui) -> w.Widget:
    """A day, or the agenda of what is to come."""
    tab = ui.state.get("tab", "Day")
    return w.screen(
        w.toolbar("Calendar", w.icon("New event", lambda: _create(ui), rid="add")),
        w.tabs(["Day", "Agenda"], tab, lambda name: ui.state.update(tab=name)),
        *(_agenda(ui) if tab == "Agenda" else _day(ui)),
    )


def _create(ui: Ui) -> None:
    day = (ui.now + timedelta(days=ui.state.get("day", 0))).strftime("%Y-%m-%d")
    ui.go("edit")
    # `go` has opened the frame of the form, which is no longer the one of this screen.
    ui.phone.frame.fields["date"] = day


def _day(ui: Ui) -> list[w.Widget]:
    shift = ui.state.get("day", 0)
    day = ui.now + timedelta(days=shift)
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    found = ui.query(
        "SELECT _id, title, dtstart, dtend FROM events WHERE dtstart < ? AND dtend > ? ORDER BY dtstart, _id",
        start + _DAY_MS,
        start,
    )
    rows = [w.item(t, detail=f"{time_of(a)} - {time_of(b)}", on_tap=_opens(ui, key)) for key, t, a, b in found]
    return [
        w.row(
            w.icon("Previous day", lambda: ui.state.update(day=max(shift - 1, -1000)), rid="previous"),
            w.label(day.strftime("%A, %Y-%m-%d"), rid="day", weight=3),
            w.icon("Next day", lambda: ui.state.update(day=min(shift + 1, 1000)), rid="next"),
        ),
        w.scroll("list", *(rows or [w.label("No events", rid="empty")])),
    ]


def _agenda(ui: Ui) -> list[w.Widget]:
    sql = "SELECT _id, title, dtstart FROM events WHERE dtend >= ? ORDER BY dtstart, _id LIMIT 60"
    found = ui.query(sql, ui.phone.now_ms)
    rows = [w.item(t, detail=f"{day_of(a)} {time_of(a)}", on_tap=_opens(ui, key)) for key, t, a in found]
    return [w.scroll("list", *(rows or [w.label("Nothing to come", rid="empty")]))]


def _opens(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("event", id=key)


def event(ui: Ui) -> w.Widget:
    """One event."""
    key = ui.args["id"]
    found = ui.one("SELECT title, dtstart, dtend, location, description, reminder_min FROM events WHERE _id = ?", key)
    if found is None:
        return w.screen(w.toolbar("Event"), w.label("This event was deleted.", rid="empty"))
    title, start, end, place, text, reminder = found
    rows = [w.item(f"{day_of(start)} {time_of(start)} - {time_of(end)}", detail="When")]
    rows += [w.item(place, detail="Where")] if place else []
    rows += [w.item(text, detail="Description")] if text else []
    rows += [w.item(f"{reminder} minutes before", detail="Reminder")] if reminder else []
    return w.screen(
        w.toolbar(
            title,
            w.icon("Edit", lambda: ui.go("edit", id=key), rid="edit"),
            w.icon("Delete", lambda: ui.show("delete", id=key), rid="delete"),
        ),
        *rows,
    )


def edit(ui: Ui) -> w.Widget:
    """The form of a new event, or of one that is changed."""
    key = ui.args.get("id")
    sql = "SELECT title, dtstart, dtend, location, description, reminder_min FROM events WHERE _id = ?"
    found = ui.one(sql, key) if key is not None else None
    if found is not None:
        title, a, b, place, text, minutes = found
        ui.fill(title=title, date=day_of(a), start=time_of(a), end=time_of(b), location=place, description=text)
        # The form is built anew after every touch: what was chosen meanwhile stays.
        ui.state.setdefault("reminder", minutes)
    reminder = ui.state.get("reminder", 0)
    shown = next((name for name, value in REMINDERS.items() if value == reminder), "No reminder")

    def save() -> None:
        a, b = at(ui.value("date"), ui.value("start")), at(ui.value("date"), ui.value("end"))
        title = ui.value("title").strip()
        if not title or a is None or b is None or b <= a:
            return ui.say("Needs a title, a date as 2026-03-05, times as 14:30, the end after the start")
        values = (title, a, b, ui.value("location").strip(), ui.value("description").strip(), reminder)
        if key is None:
            marks = "(title, dtstart, dtend, location, description, reminder_min) VALUES (?, ?, ?, ?, ?, ?)"
            ui.execute(f"INSERT INTO events {marks}", *values)
        else:
            sets = "title = ?, dtstart = ?, dtend = ?, location = ?, description = ?, reminder_min = ?"
            ui.execute(f"UPDATE events SET {sets} WHERE _id = ?", *values, key)
        return ui.back()

    return w.screen(
        w.toolbar("New event" if key is None else "Edit event", w.button("Save", save, rid="save")),
        ui.field("title", "Title"),
        ui.field("date", "Date (2026-03-05)"),
        w.row(ui.field("start", "Start (14:30)"), ui.field("end", "End (15:30)")),
        ui.field("location", "Location"),
        ui.field("description", "Description"),
        ui.spinner("reminder", "Reminder", shown, list(REMINDERS), lambda n: ui.state.update(reminder=REMINDERS[n])),
    )


def _delete(ui: Ui) -> None:
    ui.execute("DELETE FROM events WHERE _id = ?", ui.dialog_args["id"])
    ui.back()


APP = App(
    name="Calendar",
    package="org.rollwright.calendar",
    screens={"main": main, "event": event, "edit": edit},
    dialogs={"delete": confirm("Delete this event?", "Delete", _delete)},
    schema=SCHEMA,
    providers={URI: "events"},
    permission="access your calendar",
    colour="#1967d2",
)
