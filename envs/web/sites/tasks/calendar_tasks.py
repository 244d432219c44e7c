"""Tasks in the calendar."""

from __future__ import annotations

import sqlite3
from datetime import date, timedelta

from ..pages.calendar_site import HOURS
from ..pages.words import PLACES
from .aims import Aim, Draw, Step, Template, fill, follow, go, pick, push, say

_MOST_CLEARED = 4
_COLUMNS = "insert into event (title, day, start, end, place, state) values (?, ?, ?, ?, ?, 'accepted')"


def _event(draw: Draw) -> sqlite3.Row:
    return draw.row("select * from event")


def _set(column: str, value: object, event: int) -> tuple[str, tuple[object, ...]]:
    return f"update event set {column} = ? where id = ?", (value, event)


def when(draw: Draw) -> Aim:
    """At what time an event starts."""
    e = _event(draw)
    goal = f'At what time does the event "{e["title"]}" start?'
    return Aim(goal=goal, plan=(follow(e["title"]), say(e["start"])), answers=(e["start"],))


def where(draw: Draw) -> Aim:
    """At which place an event is."""
    e = _event(draw)
    goal = f'At which place is the event "{e["title"]}"?'
    return Aim(goal=goal, plan=(follow(e["title"]), say(e["place"])), answers=(e["place"],))


def count_day(draw: Draw) -> Aim:
    """How many events there are on a day."""
    on = _event(draw)["day"]
    answer = str(len(draw.all("select 1 from event where day = ?", on)))
    goal = f"How many events are there on {on}? Answer with a number."
    return Aim(goal=goal, plan=(follow(f"Day {on}"), say(answer)), answers=(answer,))


def accept(draw: Draw) -> Aim:
    """Accept an invitation."""
    e = draw.row("select * from event where state = 'invited'")
    plan = (follow(e["title"]), push("Accept"))
    return Aim(goal=f'Accept the invitation to "{e["title"]}".', plan=plan, edits=(_set("state", "accepted", e["id"]),))


def decline(draw: Draw) -> Aim:
    """Decline an invitation."""
    e = draw.row("select * from event where state = 'invited'")
    plan = (follow(e["title"]), push("Decline"))
    return Aim(
        goal=f'Decline the invitation to "{e["title"]}".', plan=plan, edits=(_set("state", "declined", e["id"]),)
    )


def delete(draw: Draw) -> Aim:
    """Delete an event."""
    e = _event(draw)
    edits = (("delete from guest where event_id = ?", (e["id"],)), ("delete from event where id = ?", (e["id"],)))
    return Aim(goal=f'Delete the event "{e["title"]}".', plan=(follow(e["title"]), push("Delete")), edits=edits)


def rename(draw: Draw) -> Aim:
    """Give an event another title."""
    e, title = _event(draw), draw.rng.choice(["Team breakfast", "Quiet hour", "Open house", "Trial run"])
    plan = (follow(e["title"]), follow("Edit"), fill("Title", title), push("Save"))
    return Aim(goal=f'Rename the event "{e["title"]}" to "{title}".', plan=plan, edits=(_set("title", title, e["id"]),))


def change_place(draw: Draw) -> Aim:
    """Give an event another place."""
    e = _event(draw)
    place = draw.rng.choice([place for place in PLACES if place != e["place"]])
    goal = f'Change the place of the event "{e["title"]}" to {place}.'
    plan = (follow(e["title"]), follow("Edit"), fill("Place", place), push("Save"))
    return Aim(goal=goal, plan=plan, edits=(_set("place", place, e["id"]),))


def invite(draw: Draw) -> Aim:
    """Invite somebody who is no guest yet."""
    e = _event(draw)
    sql = "select name from person where name not in (select name from guest where event_id = ?)"
    name = draw.row(sql, e["id"])["name"]
    plan = (follow(e["title"]), pick("Guest", name), push("Invite"))
    edit = ("insert into guest values (?, ?)", (e["id"], name))
    return Aim(goal=f'Invite {name} to the event "{e["title"]}".', plan=plan, edits=(edit,))


def _entries(title: str, on: str, start: str, end: str, place: str) -> tuple[Step, ...]:
    written = (fill("Title", title), fill("Day", on), pick("Start", start), pick("End", end), fill("Place", place))
    return (*written, push("Save"))


def create(draw: Draw) -> Aim:
    """Make an event on a day to come."""
    on = (date.fromisoformat(draw.meta("today")) + timedelta(days=draw.rng.randint(1, 20))).isoformat()
    hour, title = (
        draw.rng.randrange(len(HOURS) - 1),
        draw.rng.choice(["Dentist", "Piano lesson", "Car wash", "Call home"]),
    )
    values = (title, on, HOURS[hour], HOURS[hour + 1], draw.rng.choice(PLACES))
    goal = f'Create the event "{title}" on {on} from {values[2]} to {values[3]} at the place {values[4]}.'
    return Aim(goal=goal, plan=(follow("New event"), *_entries(*values)), edits=((_COLUMNS, values),))


def postpone(draw: Draw) -> Aim:
    """Move an event some days later."""
    e, days = _event(draw), draw.rng.randint(1, 5)
    on = (date.fromisoformat(e["day"]) + timedelta(days=days)).isoformat()
    goal = f'Move the event "{e["title"]}" {days} days later, at the same time.'
    plan = (follow(e["title"]), follow("Edit"), fill("Day", on), push("Save"))
    return Aim(goal=goal, plan=plan, edits=(_set("day", on, e["id"]),))


def clear_day(draw: Draw) -> Aim:
    """Delete all events of a day."""
    on = draw.row("select day from event group by day having count(*) > 1")["day"]
    events = draw.all("select * from event where day = ? order by start", on)
    for e in events[_MOST_CLEARED:]:
        draw.db.execute("update event set day = '2027-06-01' where id = ?", (e["id"],))
    events = events[:_MOST_CLEARED]
    plan = tuple(step for e in events for step in (go(f"/day/{on}"), follow(e["title"]), push("Delete")))
    edits = (
        ("delete from guest where event_id in (select id from event where day = ?)", (on,)),
        ("delete from event where day = ?", (on,)),
    )
    return Aim(goal=f"Delete all events on {on}.", plan=plan, edits=edits)


TEMPLATES = (
    Template(id="calendar.when", difficulty="easy", split="train", draw=when),
    Template(id="calendar.where", difficulty="easy", split="train", draw=where),
    Template(id="calendar.count_day", difficulty="easy", split="validation", draw=count_day),
    Template(id="calendar.accept", difficulty="easy", split="train", draw=accept),
    Template(id="calendar.decline", difficulty="easy", split="test", draw=decline),
    Template(id="calendar.delete", difficulty="easy", split="train", draw=delete),
    Template(id="calendar.rename", difficulty="medium", split="validation", draw=rename),
    Template(id="calendar.change_place", difficulty="medium", split="train", draw=change_place),
    Template(id="calendar.invite", difficulty="medium", split="train", draw=invite),
    Template(id="calendar.create", difficulty="hard", split="train", draw=create),
    Template(id="calendar.postpone", difficulty="medium", split="test", draw=postpone),
    Template(id="calendar.clear_day", difficulty="hard", split="train", draw=clear_day),
)
