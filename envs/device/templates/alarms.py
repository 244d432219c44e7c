"""Task templates of Clock: alarms, the timer, the stopwatch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

from rollwright.contracts import Split

from ..apps import clock
from ..backend import DeviceState
from ..handset.contents import Data, some_words
from ..handset.setup import START_MS
from .template import Difficulty, Hands, Params, Template, count, matching


class AddAlarm(Template):
    """Set an alarm."""

    name, complexity = "clock_alarm_add", 1.4
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "easy"
    goal = "Set an alarm for {hour:02}:{minute:02}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Delete all alarms, and draw a time."""
        data.clear(clock.ALARMS)
        return {"hour": rng.randrange(24), "minute": rng.randrange(60)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """An alarm at that time is on."""
        return bool(matching(state, clock.ALARMS, hour=p["hour"], minute=p["minute"], enabled=1))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in hour and minute, and save."""
        yield from hands.open("Clock")
        yield from hands.tap("Add alarm")
        yield from hands.type("Hour", f"{p['hour']:02}")
        yield from hands.type("Minute", f"{p['minute']:02}")
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """The same time in the other half of the day."""
        return {**p, "hour": (p["hour"] + 12) % 24}


class AddWeeklyAlarm(AddAlarm):
    """Set an alarm with a label for some days of the week."""

    name, split, difficulty, complexity = "clock_alarm_weekly", "test", "hard", 2.6
    goal = "Set an alarm for {hour:02}:{minute:02} with the label {label} on {days}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw label and days too."""
        days = [day for day in clock.DAYS if rng.random() < 0.4] or ["Mon"]
        return {**super().prepare(rng, data), "label": some_words(rng, 1), "days": ", ".join(days)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """An alarm at that time with that label and just those days is on."""
        wanted = {"hour": p["hour"], "minute": p["minute"], "label": p["label"]}
        return bool(matching(state, clock.ALARMS, **wanted, days=p["days"].replace(",", ""), enabled=1))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in the form and tick the days."""
        yield from hands.open("Clock")
        yield from hands.tap("Add alarm")
        yield from hands.type("Hour", f"{p['hour']:02}")
        yield from hands.type("Minute", f"{p['minute']:02}")
        yield from hands.type("Label", p["label"])
        for day in p["days"].split(", "):
            yield from hands.set(day, True)
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """Other days."""
        return {**p, "days": "Sun" if p["days"] != "Sun" else "Mon"}


class _OneAlarm(Template):
    """A task about one of three alarms; the near miss is the same done to another one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        data.clear(clock.ALARMS)
        # Different hours, so that no two alarms are at one time; the new times of `MoveAlarm` are earlier.
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
    """Delete one of three alarms."""

    name, split, difficulty, complexity = "clock_alarm_delete", "train", "medium", 1.0
    goal = "Delete the alarm at {time}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That alarm is gone, and two are left."""
        return not matching(state, clock.ALARMS, hour=p["hour"], minute=p["minute"]) and count(state, clock.ALARMS) == 2

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the alarm and delete it."""
        yield from hands.open("Clock")
        yield from hands.tap(p["time"], role="button")
        yield from hands.tap("Delete alarm")


class AlarmOff(_OneAlarm):
    """Turn one of three alarms off and keep it."""

    name, split, difficulty, complexity = "clock_alarm_off", "train", "easy", 1.0
    goal = "Turn off the alarm at {time}, without deleting it."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That alarm is off, and it is the only one."""
        off = matching(state, clock.ALARMS, enabled=0)
        return [(row["hour"], row["minute"]) for row in off] == [(str(p["hour"]), str(p["minute"]))]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Use the switch beside the alarm."""
        yield from hands.open("Clock")
        yield from hands.set(f"{p['time']} alarm", False)


class MoveAlarm(_OneAlarm):
    """Give an alarm another time."""

    name, split, difficulty, complexity = "clock_alarm_move", "validation", "medium", 1.4
    goal = "Move the alarm at {time} to {new_hour:02}:{new_minute:02}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a new time that no alarm has."""
        return {**super().prepare(rng, data), "new_hour": rng.randrange(5), "new_minute": rng.randrange(60)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """An alarm has the new time, none the old one, and there are still three."""
        moved = matching(state, clock.ALARMS, hour=p["new_hour"], minute=p["new_minute"], enabled=1)
        old = matching(state, clock.ALARMS, hour=p["hour"], minute=p["minute"])
        return bool(moved) and not old and count(state, clock.ALARMS) == 3

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the alarm, change hour and minute, and save."""
        yield from hands.open("Clock")
        yield from hands.tap(p["time"], role="button")
        yield from hands.type("Hour", f"{p['new_hour']:02}")
        yield from hands.type("Minute", f"{p['new_minute']:02}")
        yield from hands.tap("Save")


class StartTimer(Template):
    """Start a timer."""

    name, split, difficulty, complexity = "clock_timer", "train", "easy", 1.4
    goal = "Start a timer of {minutes} minutes and {seconds} seconds."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw minutes and seconds."""
        return {"minutes": rng.randint(1, 90), "seconds": rng.randint(1, 59)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """A timer of that length runs."""
        return bool(matching(state, clock.TIMERS, duration_s=60 * p["minutes"] + p["seconds"], running=1))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in both fields and start."""
        yield from hands.open("Clock")
        yield from hands.tap("Timer", rid="tab")
        yield from hands.type("Minutes", str(p["minutes"]))
        yield from hands.type("Seconds", str(p["seconds"]))
        yield from hands.tap("Start")

    def near(self, p: Params) -> Params:
        """One minute more."""
        return {"minutes": p["minutes"] + 1, "seconds": p["seconds"]}


class StartStopwatch(Template):
    """Leave the stopwatch running, or stopped."""

    name, split, difficulty, complexity = "clock_stopwatch", "validation", "easy", 1.0
    goal = "Leave the stopwatch {way}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw which, and put the stopwatch into the other state."""
        running = rng.randint(0, 1)
        data.add(clock.STOPWATCH, running=1 - running, start_ms=START_MS, elapsed_ms=0)
        return {"way": "running" if running else "stopped", "running": running}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The stopwatch is in the state that the goal names."""
        return bool(matching(state, clock.STOPWATCH, running=p["running"]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Press the button unless it is in that state already."""
        yield from hands.open("Clock")
        yield from hands.tap("Stopwatch", rid="tab")
        wanted = "Start" if p["running"] else "Stop"
        if hands.find(wanted, rid="start_stop"):
            yield from hands.tap(wanted, rid="start_stop")

    def near(self, p: Params) -> Params:
        """The other state."""
        return {**p, "running": 1 - p["running"]}


class TakeLaps(Template):
    """Run the stopwatch for a number of laps."""

    name, split, difficulty, complexity = "clock_laps", "train", "medium", 2.0
    goal = "Start the stopwatch, take {laps} laps, and stop it."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the number."""
        return {"laps": rng.randint(2, 5)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """There are that many laps, and the stopwatch is stopped."""
        return count(state, clock.LAPS) == p["laps"] and bool(matching(state, clock.STOPWATCH, running=0))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Start, press for each lap, and stop."""
        yield from hands.open("Clock")
        yield from hands.tap("Stopwatch", rid="tab")
        yield from hands.tap("Start", rid="start_stop")
        for _ in range(p["laps"]):
            yield from hands.tap("Lap", rid="lap")
        yield from hands.tap("Stop", rid="start_stop")

    def near(self, p: Params) -> Params:
        """One lap fewer."""
        return {"laps": p["laps"] - 1}


TEMPLATES: tuple[Template, ...] = (
    AddAlarm(),
    AddWeeklyAlarm(),
    DeleteAlarm(),
    AlarmOff(),
    MoveAlarm(),
    StartTimer(),
    StartStopwatch(),
    TakeLaps(),
)
