"""Clock: alarms, a timer, a stopwatch with laps. They run on the phone's virtual clock."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui

ALARMS, TIMERS = "content://clock/alarms", "content://clock/timers"
STOPWATCH, LAPS = "content://clock/stopwatch", "content://clock/laps"
SCHEMA = """
CREATE TABLE alarms (_id INTEGER PRIMARY KEY, hour INTEGER NOT NULL, minute INTEGER NOT NULL,
  label TEXT NOT NULL DEFAULT '', days TEXT NOT NULL DEFAULT '', enabled INTEGER NOT NULL DEFAULT 1);
CREATE TABLE timers (_id INTEGER PRIMARY KEY, duration_s INTEGER NOT NULL, end_ms INTEGER NOT NULL DEFAULT 0,
  left_ms INTEGER NOT NULL DEFAULT 0, running INTEGER NOT NULL DEFAULT 1);
CREATE TABLE stopwatch (_id INTEGER PRIMARY KEY, running INTEGER NOT NULL DEFAULT 0,
  start_ms INTEGER NOT NULL DEFAULT 0, elapsed_ms INTEGER NOT NULL DEFAULT 0);
CREATE TABLE laps (_id INTEGER PRIMARY KEY, elapsed_ms INTEGER NOT NULL);
"""
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def main(ui: Ui) -> w.Widget:
    """Alarms, the timer, or the stopwatch."""
    tab = ui.state.get("tab", "Alarm")
    bar = w.tabs(["Alarm", "Timer", "Stopwatch"], tab, lambda name: ui.state.update(tab=name))
    if tab == "Timer":
        return w.screen(w.toolbar("Clock"), bar, *_timer(ui))
    if tab == "Stopwatch":
        return w.screen(w.toolbar("Clock"), bar, *_stopwatch(ui))
    add = w.icon("Add alarm", lambda: ui.go("edit"), rid="add")
    return w.screen(w.toolbar("Clock", add), bar, _alarms(ui))


def _alarms(ui: Ui) -> w.Widget:
    rows = []
    for key, hour, minute, label, days, enabled in ui.query(
        "SELECT _id, hour, minute, label, days, enabled FROM alarms ORDER BY hour, minute, _id"
    ):
        detail = ", ".join(part for part in (label, days.replace(" ", ", ")) if part)
        box = w.switch("", bool(enabled), _flips(ui, key), rid="onoff")
        box.desc = f"{hour:02}:{minute:02} alarm"
        rows.append(w.item(f"{hour:02}:{minute:02}", detail=detail, on_tap=_opens(ui, key), extra=[box]))
    return w.scroll("list", *(rows or [w.label("No alarms", rid="empty")]))


def _flips(ui: Ui, key: int) -> Handler:
    def act() -> None:
        ui.execute("UPDATE alarms SET enabled = 1 - enabled WHERE _id = ?", key)

    return act


def _opens(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("edit", id=key)


def _number(text: str, limit: int) -> int | None:
    """A whole number below the limit, or None."""
    clean = text.strip()
    return int(clean) if clean.isascii() and clean.isdecimal() and len(clean) < 5 and int(clean) < limit else None


def edit(ui: Ui) -> w.Widget:
    """The form of a new alarm, or of one that is changed."""
    key = ui.args.get("id")
    # Read once: from then on the form holds what was changed in it.
    if key is not None and "days" not in ui.state:
        found = ui.one("SELECT hour, minute, label, days FROM alarms WHERE _id = ?", key) or (0, 0, "", "")
        ui.fill(hour=f"{found[0]:02}", minute=f"{found[1]:02}", label=found[2])
        ui.state["days"] = found[3].split()
    chosen = ui.state.setdefault("days", [])

    def save() -> None:
        hour, minute = _number(ui.value("hour"), 24), _number(ui.value("minute"), 60)
        if hour is None or minute is None:
            return ui.say("Hour is 0 to 23, minute 0 to 59")
        values = (hour, minute, ui.value("label").strip(), " ".join(day for day in DAYS if day in chosen))
        if key is None:
            ui.execute("INSERT INTO alarms (hour, minute, label, days) VALUES (?, ?, ?, ?)", *values)
        else:
            # Whoever changes an alarm wants it to ring, so it is switched on.
            sql = "UPDATE alarms SET hour = ?, minute = ?, label = ?, days = ?, enabled = 1 WHERE _id = ?"
            ui.execute(sql, *values, key)
        return ui.back()

    def delete() -> None:
        ui.execute("DELETE FROM alarms WHERE _id = ?", key)
        ui.back()

    ends = [w.icon("Delete alarm", delete, rid="delete")] if key is not None else []
    return w.screen(
        w.toolbar("Add alarm" if key is None else "Edit alarm", *ends, w.button("Save", save, rid="save")),
        w.row(ui.field("hour", "Hour"), ui.field("minute", "Minute")),
        ui.field("label", "Label"),
        *[w.checkbox(day, day in chosen, _picks(chosen, day), rid=f"day_{day.lower()}") for day in DAYS],
    )


def _picks(chosen: list[str], day: str) -> Handler:
    def act() -> None:
        chosen.remove(day) if day in chosen else chosen.append(day)

    return act


def _timer(ui: Ui) -> list[w.Widget]:
    def start() -> None:
        minutes, seconds = _number(ui.value("minutes") or "0", 1000), _number(ui.value("seconds") or "0", 60)
        total = 60 * (minutes or 0) + (seconds or 0)
        if minutes is None or seconds is None or not total:
            return ui.say("Minutes are 0 to 999, seconds 0 to 59")
        ui.execute("INSERT INTO timers (duration_s, end_ms) VALUES (?, ?)", total, ui.phone.now_ms + 1000 * total)
        ui.frame.fields.pop("minutes", None)
        ui.frame.fields.pop("seconds", None)
        return None

    rows = []
    for key, duration, end, left, running in ui.query("SELECT _id, duration_s, end_ms, left_ms, running FROM timers"):
        remaining = max(end - ui.phone.now_ms, 0) if running else left
        shown = _minutes(remaining) if remaining else "Time is up"
        pause = w.button("Pause" if running else "Resume", _pauses(ui, key, remaining, running), rid="pause", weight=2)
        rows.append(w.item(shown, detail=f"Timer of {_minutes(1000 * duration)}", extra=[pause, _remover(ui, key)]))
    return [
        w.row(ui.field("minutes", "Minutes"), ui.field("seconds", "Seconds"), w.button("Start", start, rid="start")),
        w.scroll("list", *(rows or [w.label("No timer", rid="empty")])),
    ]


def _remover(ui: Ui, key: int) -> w.Widget:
    def act() -> None:
        ui.execute("DELETE FROM timers WHERE _id = ?", key)

    return w.icon("Delete timer", act, rid="delete", weight=2)


def _pauses(ui: Ui, key: int, remaining: int, running: int) -> Handler:
    def act() -> None:
        end = ui.phone.now_ms + remaining
        sql = "UPDATE timers SET running = ?, left_ms = ?, end_ms = ? WHERE _id = ?"
        ui.execute(sql, 0 if running else 1, remaining, end, key)

    return act


def _minutes(ms: int) -> str:
    return f"{ms // 60_000:02}:{ms // 1000 % 60:02}"


def _stopwatch(ui: Ui) -> list[w.Widget]:
    found = ui.one("SELECT running, start_ms, elapsed_ms FROM stopwatch")
    running, start, elapsed = found or (0, 0, 0)
    shown = elapsed + (ui.phone.now_ms - start if running else 0)

    def toggle() -> None:
        # One row is the whole stopwatch; the new one takes up the time that has gone by.
        ui.execute("DELETE FROM stopwatch")
        sql = "INSERT INTO stopwatch (running, start_ms, elapsed_ms) VALUES (?, ?, ?)"
        ui.execute(sql, 0 if running else 1, ui.phone.now_ms, shown)

    def reset() -> None:
        ui.execute("DELETE FROM stopwatch")
        ui.execute("DELETE FROM laps")

    def lap() -> None:
        ui.execute("INSERT INTO laps (elapsed_ms) VALUES (?)", shown)

    laps = ui.query("SELECT elapsed_ms FROM laps ORDER BY _id")
    second = w.button("Lap", lap, rid="lap") if running else w.button("Reset", reset, rid="reset")
    return [
        w.label(_minutes(shown), style="big", rid="stopwatch_time", height=220),
        w.row(w.button("Stop" if running else "Start", toggle, rid="start_stop"), second),
        w.scroll("list", *[w.label(f"Lap {i}: {_minutes(ms)}") for i, (ms,) in enumerate(laps, 1)]),
    ]


APP = App(
    name="Clock",
    package="org.rollwright.clock",
    screens={"main": main, "edit": edit},
    schema=SCHEMA,
    providers={ALARMS: "alarms", TIMERS: "timers", STOPWATCH: "stopwatch", LAPS: "laps"},
    colour="#3c4043",
)
