"""The calendar: days, events with guests, invitations, creating, editing, deleting, search. Its today is a row."""

from __future__ import annotations

import random
import re
import sqlite3
from datetime import date, timedelta

from .engine import Call, NotFound, Page, Redirect, Site, get, post, url
from .markup import Html, choose, field, form, h2, items, join, link, p
from .words import FIRST_NAMES, PLACES, SUBJECTS

HOURS = tuple(f"{hour:02d}:00" for hour in range(8, 20))
STATES = ("accepted", "invited", "declined")
_SCHEMA = """
create table event (id integer primary key, title text, day text, start text, end text, place text, state text);
create table guest (event_id integer, name text);
create table person (name text primary key);
"""
_KINDS = ("meeting", "lunch", "review", "walk")


def fill(db: sqlite3.Connection, rng: random.Random, size: int) -> None:
    """`size` events with titles of their own within the ten days from today, no two at one hour of a day."""
    today = date(2026, 1, 1) + timedelta(days=rng.randint(0, 364))
    db.execute("insert into meta values ('today', ?)", (today.isoformat(),))
    names = rng.sample(FIRST_NAMES, 6)
    db.executemany("insert into person values (?)", [(name,) for name in sorted(names)])
    titles = rng.sample([f"{subject.capitalize()} {kind}" for subject in SUBJECTS for kind in _KINDS], size)
    slots = rng.sample([(offset, hour) for offset in range(10) for hour in range(len(HOURS) - 1)], size)
    for number, (title, (offset, hour)) in enumerate(zip(titles, sorted(slots), strict=True), start=1):
        day = (today + timedelta(days=offset)).isoformat()
        state = "invited" if rng.random() < 0.3 else "accepted"
        row = (number, title, day, HOURS[hour], HOURS[hour + 1], rng.choice(PLACES), state)
        db.execute("insert into event values (?, ?, ?, ?, ?, ?, ?)", row)
        guests = rng.sample(names, rng.randint(0, 2))
        db.executemany("insert into guest values (?, ?)", [(number, name) for name in guests])


def home(call: Call) -> Page:
    """What is to come, by day."""
    today = call.meta("today")
    rows = call.all("select * from event where day >= ? order by day, start, id", today)
    days = list(dict.fromkeys(row["day"] for row in rows))
    shown = [
        join(h2(day), p(link(f"Day {day}", f"/day/{day}")), _events([r for r in rows if r["day"] == day]))
        for day in days
    ]
    find = form("/search", field("Search events", "q"), submit="Find", method="get")
    return Page(title=f"Today is {today}", body=join(find, *shown))


def _events(rows: list[sqlite3.Row]) -> Html:
    return items(
        join(
            f"{row['start']} ",
            link(row["title"], f"/event/{row['id']}"),
            "" if row["state"] == STATES[0] else f" ({row['state']})",
        )
        for row in rows
    )


def day(call: Call) -> Page:
    """The events of one day."""
    wanted = call.parts["day"]
    if not is_day(wanted):
        raise NotFound
    rows = call.all("select * from event where day = ? order by start, id", wanted)
    new = link("New event on this day", url("/new", day=wanted))
    return Page(title=wanted, body=join(p(f"{len(rows)} events"), _events(rows), p(new)))


def search(call: Call) -> Page:
    """The events whose title has the words."""
    rows = call.all("select * from event where title like ? order by day, start, id", f"%{call.text('q')}%")
    return Page(title="Search results", body=_events(rows) if rows else p("No event has this title."))


def _event(call: Call) -> sqlite3.Row:
    return call.one("select * from event where id = ?", call.number("id"))


def event(call: Call) -> Page:
    """One event with its guests."""
    e = _event(call)
    guests = [row["name"] for row in call.all("select name from guest where event_id = ? order by name", e["id"])]
    people = [row["name"] for row in call.all("select name from person order by name")]
    at = f"/event/{e['id']}"
    answers = [form(f"{at}/answer", submit=text, state=state) for text, state in _answers(e["state"])]
    body = join(
        p(f"Day: {e['day']}"),
        p(f"Time: {e['start']} to {e['end']}"),
        p(f"Place: {e['place']}"),
        p(f"Guests: {', '.join(guests) or 'none'}"),
        p(f"State: {e['state']}"),
        *answers,
        p(link("Edit", f"{at}/edit")),
        form(f"{at}/delete", submit="Delete"),
        form(f"{at}/invite", choose("Guest", "name", people), submit="Invite"),
    )
    return Page(title=e["title"], body=body)


def _answers(state: str) -> list[tuple[str, str]]:
    return [(text, new) for text, new in (("Accept", "accepted"), ("Decline", "declined")) if new != state]


def answer(call: Call) -> Redirect:
    """Accept or decline an invitation."""
    e, state = _event(call), call.text("state")
    if state not in STATES:
        raise NotFound
    call.write("update event set state = ? where id = ?", state, e["id"])
    return Redirect(to=f"/event/{e['id']}")


def invite(call: Call) -> Redirect:
    """Add a guest."""
    e = _event(call)
    name = call.one("select name from person where name = ?", call.text("name"))["name"]
    if call.all("select 1 from guest where event_id = ? and name = ?", e["id"], name):
        return Redirect(to=f"/event/{e['id']}", note=f"{name} is invited already.")
    call.write("insert into guest values (?, ?)", e["id"], name)
    return Redirect(to=f"/event/{e['id']}", note=f"{name} is invited.")


def delete(call: Call) -> Redirect:
    """Delete an event with its guests."""
    e = _event(call)
    call.write("delete from guest where event_id = ?", e["id"])
    call.write("delete from event where id = ?", e["id"])
    return Redirect(to="/", note="Deleted.")


def new(call: Call) -> Page:
    """The form of a new event."""
    values = {"title": "", "day": call.text("day"), "start": HOURS[0], "end": HOURS[1], "place": ""}
    return Page(title="New event", body=_form("/new", values))


def edit(call: Call) -> Page:
    """The form of an event that is changed."""
    e = _event(call)
    return Page(title=f"Editing {e['title']}", body=_form(f"/event/{e['id']}/edit", dict(e)))


def _form(to: str, values: dict[str, str]) -> Html:
    controls = (
        field("Title", "title", values["title"]),
        field("Day", "day", values["day"]),
        choose("Start", "start", HOURS, values["start"]),
        choose("End", "end", HOURS, values["end"]),
        field("Place", "place", values["place"]),
    )
    return form(to, *controls, submit="Save")


def create(call: Call) -> Redirect:
    """Make a new event, or say what is wrong with it."""
    if problem := _problem(call):
        return Redirect(to="/new", note=problem)
    sql = "insert into event (title, day, start, end, place, state) values (?, ?, ?, ?, ?, 'accepted')"
    number = call.write(sql, *_values(call))
    return Redirect(to=f"/event/{number}", note="Event created.")


def save(call: Call) -> Redirect:
    """Change an event, or say what is wrong with it."""
    e = _event(call)
    if problem := _problem(call):
        return Redirect(to=f"/event/{e['id']}/edit", note=problem)
    sql = "update event set title = ?, day = ?, start = ?, end = ?, place = ? where id = ?"
    call.write(sql, *_values(call), e["id"])
    return Redirect(to=f"/event/{e['id']}", note="Saved.")


def _values(call: Call) -> list[str]:
    return [call.text(name) for name in ("title", "day", "start", "end", "place")]


def _problem(call: Call) -> str:
    title, on, start, end, _place = _values(call)
    if not any(letter.isalnum() for letter in title):
        return "An event needs a title."
    if not is_day(on):
        return "The day must be written like 2026-03-25."
    if start not in HOURS or end not in HOURS or start >= end:
        return "The end must be later than the start."
    return ""


def is_day(text: str) -> bool:
    """Whether a text names a day as `2026-03-25`."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


SITE = Site(
    name="calendar",
    title="Calendar",
    schema=_SCHEMA,
    fill=fill,
    routes=(
        get("/", home),
        get("/day/<day>", day),
        get("/search", search),
        get("/event/<id>", event),
        post("/event/<id>/answer", answer),
        post("/event/<id>/invite", invite),
        post("/event/<id>/delete", delete),
        get("/event/<id>/edit", edit),
        post("/event/<id>/edit", save),
        get("/new", new),
        post("/new", create),
    ),
    menu=(("Agenda", "/"), ("New event", "/new")),
    watched=(
        "select title, day, start, end, place, state from event",
        "select title, name from guest join event on event.id = event_id",
    ),
    sizes={"tiny": 3, "small": 8, "medium": 20, "large": 60},
)
