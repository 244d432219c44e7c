"""Task templates of Clock and Calendar."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

from rollwright.contracts import Split

from ..apps import calendar, clock
from ..backend import DeviceState
from ..handset.contents import PLACES, Data, next_day, some_words
from ..handset.setup import START_MS
from .template import Difficulty, Hands, Params, Template, count, matching, same_answer


class AddAlarm(Template):
    name, complexity = "clock_alarm_add", 1.4
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "easy"
    goal = "Set an alarm for {hour:02}:{minute:02}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        data.clear(clock.ALARMS)
        return {"hour": rng.randrange(24), "minute": rng.randrange(60)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return bool(matching(state, clock.ALARMS, hour=p["hour"], minute=p["minute"], enabled=1))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.tap("Add alarm")
        yield from hands.type("Hour", f"{p['hour']:02}")
        yield from hands.type("Minute", f"{p['minute']:02}")
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        return {**p, "hour": (p["hour"] + 12) % 24}


class AddWeeklyAlarm(AddAlarm):
    name, split, difficulty, complexity = "clock_alarm_weekly", "test", "hard", 2.6
    goal = "Set an alarm for {hour:02}:{minute:02} with the label {label} on {days}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        days = [day for day in clock.DAYS if rng.random() < 0.4] or ["Mon"]
        return {**super().prepare(rng, data), "label": some_words(rng, 1), "days": ", ".join(days)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        wanted = {"hour": p["hour"], "minute": p["minute"], "label": p["label"]}
        return bool(matching(state, clock.ALARMS, **wanted, days=p["days"].replace(",", ""), enabled=1))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.tap("Add alarm")
        yield from hands.type("Hour", f"{p['hour']:02}")
        yield from hands.type("Minute", f"{p['minute']:02}")
        yield from hands.type("Label", p["label"])
        for day in p["days"].split(", "):
            yield from hands.set(day, True)
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        return {**p, "days": "Sun" if p["days"] != "Sun" else "Mon"}


class _OneAlarm(Template):
    """A task about one of three alarms; the near miss is the same done to another one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        data.clear(clock.ALARMS)
        hours = rng.sample(range(5, 23), 3)
        minutes = [rng.choice((0, 10, 20, 30, 40, 50)) for _ in hours]
        for hour, minute in zip(hours, minutes, strict=True):
            data.add(clock.ALARMS, hour=hour, minute=minute, enabled=1)
        p = {"hour": hours[0], "minute": minutes[0], "other": [hours[1], minutes[1]]}
        return {**p, "time": f"{hours[0]:02}:{minutes[0]:02}"}

    def near(self, p: Params) -> Params:
        hour, minute = p["other"]
        return {**p, "hour": hour, "minute": minute, "time": f"{hour:02}:{minute:02}"}


class DeleteAlarm(_OneAlarm):
    name, split, difficulty, complexity = "clock_alarm_delete", "train", "medium", 1.0
    goal = "Delete the alarm at {time}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return not matching(state, clock.ALARMS, hour=p["hour"], minute=p["minute"]) and count(state, clock.ALARMS) == 2

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.tap(p["time"], role="button")
        yield from hands.tap("Delete alarm")


class AlarmOff(_OneAlarm):
    name, split, difficulty, complexity = "clock_alarm_off", "train", "easy", 1.0
    goal = "Turn off the alarm at {time}, without deleting it."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        off = matching(state, clock.ALARMS, enabled=0)
        return [(row["hour"], row["minute"]) for row in off] == [(str(p["hour"]), str(p["minute"]))]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.set(f"{p['time']} alarm", False)


class MoveAlarm(_OneAlarm):
    name, split, difficulty, complexity = "clock_alarm_move", "validation", "medium", 1.4
    goal = "Move the alarm at {time} to {new_hour:02}:{new_minute:02}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        return {**super().prepare(rng, data), "new_hour": rng.randrange(5), "new_minute": rng.randrange(60)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        moved = matching(state, clock.ALARMS, hour=p["new_hour"], minute=p["new_minute"], enabled=1)
        old = matching(state, clock.ALARMS, hour=p["hour"], minute=p["minute"])
        return bool(moved) and not old and count(state, clock.ALARMS) == 3

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.tap(p["time"], role="button")
        yield from hands.type("Hour", f"{p['new_hour']:02}")
        yield from hands.type("Minute", f"{p['new_minute']:02}")
        yield from hands.tap("Save")


class StartTimer(Template):
    name, split, difficulty, complexity = "clock_timer", "train", "easy", 1.4
    goal = "Start a timer of {minutes} minutes and {seconds} seconds."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        return {"minutes": rng.randint(1, 90), "seconds": rng.randint(1, 59)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return bool(matching(state, clock.TIMERS, duration_s=60 * p["minutes"] + p["seconds"], running=1))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.tap("Timer", rid="tab")
        yield from hands.type("Minutes", str(p["minutes"]))
        yield from hands.type("Seconds", str(p["seconds"]))
        yield from hands.tap("Start")

    def near(self, p: Params) -> Params:
        return {"minutes": p["minutes"] + 1, "seconds": p["seconds"]}


class StartStopwatch(Template):
    name, split, difficulty, complexity = "clock_stopwatch", "validation", "easy", 1.0
    goal = "Leave the stopwatch {way}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        running = rng.randint(0, 1)
        data.add(clock.STOPWATCH, running=1 - running, start_ms=START_MS, elapsed_ms=0)
        return {"way": "running" if running else "stopped", "running": running}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return bool(matching(state, clock.STOPWATCH, running=p["running"]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.tap("Stopwatch", rid="tab")
        wanted = "Start" if p["running"] else "Stop"
        if hands.find(wanted, rid="start_stop"):
            yield from hands.tap(wanted, rid="start_stop")

    def near(self, p: Params) -> Params:
        return {**p, "running": 1 - p["running"]}


class TakeLaps(Template):
    name, split, difficulty, complexity = "clock_laps", "train", "medium", 2.0
    goal = "Start the stopwatch, take {laps} laps, and stop it."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        return {"laps": rng.randint(2, 5)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return count(state, clock.LAPS) == p["laps"] and bool(matching(state, clock.STOPWATCH, running=0))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Clock")
        yield from hands.tap("Stopwatch", rid="tab")
        yield from hands.tap("Start", rid="start_stop")
        for _ in range(p["laps"]):
            yield from hands.tap("Lap", rid="lap")
        yield from hands.tap("Stop", rid="start_stop")

    def near(self, p: Params) -> Params:
        return {"laps": p["laps"] - 1}


class AddEvent(Template):
    name, complexity = "calendar_add", 1.8
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "medium"
    goal = "Create the event {title} on {day} from {start} to {end}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        hour = rng.randint(7, 19)
        p = {
            "title": some_words(rng).capitalize(),
            "day": next_day(rng),
            "start": f"{hour:02}:{rng.choice((0, 30)):02}",
        }
        return {**p, "end": f"{hour + rng.randint(1, 3):02}:45"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        times = {"dtstart": calendar.at(p["day"], p["start"]), "dtend": calendar.at(p["day"], p["end"])}
        return bool(matching(state, calendar.URI, title=p["title"], **times))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Calendar")
        yield from hands.tap("New event")
        yield from self.fill(hands, p)
        yield from hands.tap("Save")

    def fill(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.type("Title", p["title"])
        yield from hands.type("Date (2026-03-05)", p["day"])
        yield from hands.type("Start (14:30)", p["start"])
        yield from hands.type("End (15:30)", p["end"])

    def near(self, p: Params) -> Params:
        return {**p, "day": calendar.day_of(START_MS)}


class AddFullEvent(AddEvent):
    name, split, difficulty, complexity = "calendar_add_full", "test", "hard", 2.6
    goal = "Create the event {title} on {day} from {start} to {end} at {place}, with a reminder {reminder} before."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        reminder = rng.choice([name for name in calendar.REMINDERS if name != "No reminder"])
        return {**super().prepare(rng, data), "place": rng.choice(PLACES), "reminder": reminder}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        times = {"dtstart": calendar.at(p["day"], p["start"]), "dtend": calendar.at(p["day"], p["end"])}
        more = {"location": p["place"], "reminder_min": calendar.REMINDERS[p["reminder"]]}
        return bool(matching(state, calendar.URI, title=p["title"], **times, **more))

    def fill(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from super().fill(hands, p)
        yield from hands.type("Location", p["place"])
        yield from hands.pick("Reminder", p["reminder"])

    def near(self, p: Params) -> Params:
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
    name, split, difficulty, complexity = "calendar_delete", "train", "medium", 1.6
    goal = "Delete the event {title} on {day}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return not matching(state, calendar.URI, title=p["title"]) and count(state, calendar.URI) == p["count"] - 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_event(hands, p)
        yield from hands.tap("Delete")
        yield from hands.tap("Delete", rid="button1")


class MoveEvent(_OneEvent):
    name, split, difficulty, complexity = "calendar_move", "validation", "hard", 2.2
    goal = "Move the event {title} to {new_start} until {new_end} on the same day."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        hour = rng.randint(6, 20)
        return {**super().prepare(rng, data), "new_start": f"{hour:02}:05", "new_end": f"{hour + 1:02}:55"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        times = {"dtstart": calendar.at(p["day"], p["new_start"]), "dtend": calendar.at(p["day"], p["new_end"])}
        return (
            bool(matching(state, calendar.URI, title=p["title"], **times)) and count(state, calendar.URI) == p["count"]
        )

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_event(hands, p)
        yield from hands.tap("Edit")
        yield from hands.type("Start (14:30)", p["new_start"])
        yield from hands.type("End (15:30)", p["new_end"])
        yield from hands.tap("Save")


class AskStart(_OneEvent):
    name, split, difficulty, complexity, question = "calendar_ask_start", "train", "medium", 1.2, True
    goal = "On which day and at what time does {title} start? Answer as 2026-03-05, 14:30."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        parts = [part.strip() for part in answer.split(",")]
        return parts == [p["day"], p["start"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_event(hands, p)
        when = hands.read("2026-").split()
        yield from hands.answer(", ".join(when[:2]))


class AskPlace(_OneEvent):
    name, split, difficulty, complexity, question = "calendar_ask_place", "test", "easy", 1.2, True
    goal = "Where does {title} take place?"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        p = super().prepare(rng, data)
        if p["place"] == p["other_place"]:
            p["other_place"] = next(place for place in PLACES if place != p["place"])
            data.all(calendar.URI)[-1]["location"] = p["other_place"]
        return p

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return same_answer(answer, p["place"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_event(hands, p)
        yield from hands.answer(hands.beside("Where", -1))


TEMPLATES: tuple[Template, ...] = (
    AddAlarm(),
    AddWeeklyAlarm(),
    DeleteAlarm(),
    AlarmOff(),
    MoveAlarm(),
    StartTimer(),
    StartStopwatch(),
    TakeLaps(),
    AddEvent(),
    AddFullEvent(),
    DeleteEvent(),
    MoveEvent(),
    AskStart(),
    AskPlace(),
)
