"""Task templates of Calendar."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

from rollwright.contracts import Split

from ..apps import calendar
from ..backend import DeviceState
from ..handset.contents import PLACES, Data, next_day, some_words
from ..handset.setup import START_MS
from .template import Difficulty, Hands, Params, Template, count, matching, same_answer


class AddEvent(Template):
    """Create an event."""

    name, complexity = "calendar_add", 1.8
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "medium"
    goal = "Create the event {title} on {day} from {start} to {end}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw title, day and times."""
        hour = rng.randint(7, 19)
        p = {
            "title": some_words(rng).capitalize(),
            "day": next_day(rng),
            "start": f"{hour:02}:{rng.choice((0, 30)):02}",
        }
        return {**p, "end": f"{hour + rng.randint(1, 3):02}:45"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """An event has that title and those times."""
        times = {"dtstart": calendar.at(p["day"], p["start"]), "dtend": calendar.at(p["day"], p["end"])}
        return bool(matching(state, calendar.URI, title=p["title"], **times))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in the form and save."""
        yield from hands.open("Calendar")
        yield from hands.tap("New event")
        yield from self.fill(hands, p)
        yield from hands.tap("Save")

    def fill(self, hands: Hands, p: Params) -> Iterator[str]:
        """Type into the fields of the form."""
        yield from hands.type("Title", p["title"])
        yield from hands.type("Date (2026-03-05)", p["day"])
        yield from hands.type("Start (14:30)", p["start"])
        yield from hands.type("End (15:30)", p["end"])

    def near(self, p: Params) -> Params:
        """The same event today."""
        return {**p, "day": calendar.day_of(START_MS)}


class AddFullEvent(AddEvent):
    """Create an event with a place and a reminder."""

    name, split, difficulty, complexity = "calendar_add_full", "test", "hard", 2.6
    goal = "Create the event {title} on {day} from {start} to {end} at {place}, with a reminder {reminder} before."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw place and reminder too."""
        reminder = rng.choice([name for name in calendar.REMINDERS if name != "No reminder"])
        return {**super().prepare(rng, data), "place": rng.choice(PLACES), "reminder": reminder}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """An event has that title, those times, the place and the reminder."""
        times = {"dtstart": calendar.at(p["day"], p["start"]), "dtend": calendar.at(p["day"], p["end"])}
        more = {"location": p["place"], "reminder_min": calendar.REMINDERS[p["reminder"]]}
        return bool(matching(state, calendar.URI, title=p["title"], **times, **more))

    def fill(self, hands: Hands, p: Params) -> Iterator[str]:
        """Type into the fields, and pick the reminder."""
        yield from super().fill(hands, p)
        yield from hands.type("Location", p["place"])
        yield from hands.pick("Reminder", p["reminder"])

    def near(self, p: Params) -> Params:
        """Another reminder."""
        return {**p, "reminder": next(n for n in calendar.REMINDERS if n not in ("No reminder", p["reminder"]))}


class _OneEvent(Template):
    """A task about one of two events that are still to come; the near miss is the same done to the other one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        p: Params = {"count": len(data.all(calendar.URI)) + 2}
        titles = rng.sample(("Choir", "Swimming", "Chess", "Hike"), 2)
        for prefix, title, minute in zip(("", "other_"), titles, (20, 40), strict=True):
            day, hour, place = next_day(rng), rng.randint(8, 20), rng.choice(PLACES)
            start = calendar.at(day, f"{hour:02}:{minute}") or 0
            data.add(calendar.URI, title=title, dtstart=start, dtend=start + 5_400_000, location=place)
            drawn = {"title": title, "day": day, "start": f"{hour:02}:{minute}", "place": place}
            p |= {prefix + key: value for key, value in drawn.items()}
        return p

    def near(self, p: Params) -> Params:
        return {**p, **{key.removeprefix("other_"): value for key, value in p.items() if key.startswith("other_")}}

    def open_event(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Calendar")
        yield from hands.tap("Agenda", rid="tab")
        yield from hands.tap(p["title"], role="button")


class DeleteEvent(_OneEvent):
    """Delete one event and no other."""

    name, split, difficulty, complexity = "calendar_delete", "train", "medium", 1.6
    goal = "Delete the event {title} on {day}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The event is gone, and only one is missing."""
        return not matching(state, calendar.URI, title=p["title"]) and count(state, calendar.URI) == p["count"] - 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the event, delete, and agree."""
        yield from self.open_event(hands, p)
        yield from hands.tap("Delete")
        yield from hands.tap("Delete", rid="button1")


class MoveEvent(_OneEvent):
    """Give an event another time on the same day."""

    name, split, difficulty, complexity = "calendar_move", "validation", "hard", 2.2
    goal = "Move the event {title} to {new_start} until {new_end} on the same day."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the new times too."""
        hour = rng.randint(6, 20)
        return {**super().prepare(rng, data), "new_start": f"{hour:02}:05", "new_end": f"{hour + 1:02}:55"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The event has the new times, and there are as many events as before."""
        times = {"dtstart": calendar.at(p["day"], p["new_start"]), "dtend": calendar.at(p["day"], p["new_end"])}
        return (
            bool(matching(state, calendar.URI, title=p["title"], **times)) and count(state, calendar.URI) == p["count"]
        )

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Edit the event and save."""
        yield from self.open_event(hands, p)
        yield from hands.tap("Edit")
        yield from hands.type("Start (14:30)", p["new_start"])
        yield from hands.type("End (15:30)", p["new_end"])
        yield from hands.tap("Save")


class AskStart(_OneEvent):
    """Answer with the day and the time at which an event starts."""

    name, split, difficulty, complexity, question = "calendar_ask_start", "train", "medium", 1.2, True
    goal = "On which day and at what time does {title} start? Answer as 2026-03-05, 14:30."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is day and time in this order and form."""
        parts = [part.strip() for part in answer.split(",")]
        return parts == [p["day"], p["start"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the event and read both."""
        yield from self.open_event(hands, p)
        when = hands.read("2026-").split()
        yield from hands.answer(", ".join(when[:2]))


class AskPlace(_OneEvent):
    """Answer with the place of an event."""

    name, split, difficulty, complexity, question = "calendar_ask_place", "test", "easy", 1.2, True
    goal = "Where does {title} take place?"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw two events, and see that their places differ."""
        p = super().prepare(rng, data)
        # At one place for both, the near miss would be right.
        if p["place"] == p["other_place"]:
            p["other_place"] = next(place for place in PLACES if place != p["place"])
            data.all(calendar.URI)[-1]["location"] = p["other_place"]
        return p

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the place."""
        return same_answer(answer, p["place"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the event and read the place."""
        yield from self.open_event(hands, p)
        yield from hands.answer(hands.beside("Where", -1))


TEMPLATES: tuple[Template, ...] = (
    AddEvent(),
    AddFullEvent(),
    DeleteEvent(),
    MoveEvent(),
    AskStart(),
    AskPlace(),
)
