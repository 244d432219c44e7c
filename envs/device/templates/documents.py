"""Task templates of Notes and Tasks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

from rollwright.contracts import Split

from ..apps import notes, tasks
from ..backend import DeviceState
from ..handset.contents import Data, next_day, some_words
from .template import Difficulty, Hands, Params, Template, count, matching, same_answer


class AddNote(Template):
    """Write a note."""

    name, complexity = "notes_add", 1.4
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "easy"
    goal = "Write a note with the title {title} and the text {body}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw title and text."""
        return {"title": some_words(rng).capitalize(), "body": some_words(rng, 4)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """A note has that title and that text."""
        return bool(matching(state, notes.URI, title=p["title"], body=p["body"]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in the note and save."""
        yield from hands.open("Notes")
        yield from hands.tap("New note")
        yield from hands.type("Title", p["title"])
        yield from hands.type("Note", p["body"])
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """A text with a word more."""
        return {**p, "body": p["body"] + " more"}


class AddNoteToFolder(AddNote):
    """Write a note in a folder."""

    name, split, difficulty, complexity = "notes_add_to_folder", "train", "medium", 1.8
    goal = "Write a note with the title {title} and the text {body} in the folder {folder}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the folder too."""
        return {**super().prepare(rng, data), "folder": rng.choice(("Work", "Ideas"))}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """A note in that folder has that title and that text."""
        return bool(matching(state, notes.URI, title=p["title"], body=p["body"], folder=p["folder"]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in the note, pick the folder, and save."""
        yield from hands.open("Notes")
        yield from hands.tap("New note")
        yield from hands.type("Title", p["title"])
        yield from hands.pick("Folder", p["folder"])
        yield from hands.type("Note", p["body"])
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """Another folder."""
        return {**p, "folder": "Personal"}


class _OneNote(Template):
    """A task about one of the notes; the near miss is the same done to another one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        one, other = rng.sample(data.all(notes.URI), 2)
        p = {"title": one["title"], "body": one["body"], "other": [other["title"], other["body"]]}
        return {**p, "count": len(data.all(notes.URI))}

    def near(self, p: Params) -> Params:
        return {**p, "title": p["other"][0], "body": p["other"][1]}

    def open_note(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Notes")
        yield from hands.tap(p["title"], role="button")


class AppendToNote(_OneNote):
    """Add words at the end of a note."""

    name, split, difficulty, complexity = "notes_append", "validation", "medium", 1.4
    goal = "Add the words {words} at the end of the note {title}, after one blank."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the words too."""
        return {**super().prepare(rng, data), "words": some_words(rng)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The note's text is the old one, a blank and the words."""
        return bool(matching(state, notes.URI, title=p["title"], body=f"{p['body']} {p['words']}"))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Type the whole new text and save."""
        yield from self.open_note(hands, p)
        yield from hands.type("Note", f"{p['body']} {p['words']}")
        yield from hands.tap("Save")


class DeleteNote(_OneNote):
    """Delete one note and no other."""

    name, split, difficulty, complexity = "notes_delete", "train", "medium", 1.4
    goal = "Delete the note {title}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The note is gone, and only one is missing."""
        return not matching(state, notes.URI, title=p["title"]) and count(state, notes.URI) == p["count"] - 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the note, delete, and agree."""
        yield from self.open_note(hands, p)
        yield from hands.tap("Delete")
        yield from hands.tap("Delete", rid="button1")


class PinNote(_OneNote):
    """Pin one note."""

    name, split, difficulty, complexity = "notes_pin", "train", "easy", 1.0
    goal = "Pin the note {title}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That note is pinned, and no other."""
        return [row["title"] for row in matching(state, notes.URI, pinned=1)] == [p["title"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the note and pin it."""
        yield from self.open_note(hands, p)
        yield from hands.tap("Pin")


class AskNote(_OneNote):
    """Answer with one of the codes in a note."""

    name, split, difficulty, complexity, question = "notes_ask_code", "test", "medium", 1.2, True
    goal = "Which code for {place} is written in the note Codes?"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Write a note with three places and their codes."""
        places = rng.sample(("the garage", "the cellar", "the office", "the gate"), 3)
        codes = [str(code) for code in rng.sample(range(1000, 10_000), 3)]
        data.add(notes.URI, title="Codes", body="; ".join(f"{a} {b}" for a, b in zip(places, codes, strict=True)))
        return {"place": places[0], "code": codes[0], "other": places[1]}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the code of the place."""
        return same_answer(answer, p["code"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the note and read the code after the place."""
        yield from self.open_note(hands, {"title": "Codes"})
        found = hands.find("Note", role="input")
        parts = found.name.split("; ") if found else []
        codes = [part.split()[-1] for part in parts if part.startswith(p["place"])]
        yield from hands.answer(codes[0] if codes else "unknown")

    def near(self, p: Params) -> Params:
        """The code of another place."""
        return {**p, "place": p["other"]}


class AddTask(Template):
    """Add a thing to do."""

    name, complexity = "tasks_add", 1.0
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "easy"
    goal = "Add the task {title}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a title of two words."""
        return {"title": some_words(rng).capitalize()}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """An open task has that title."""
        return bool(matching(state, tasks.URI, title=p["title"], done=0))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in the title and save."""
        yield from hands.open("Tasks")
        yield from hands.tap("New task")
        yield from hands.type("Title", p["title"])
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """A title of the first word alone."""
        return {"title": p["title"].split()[0]}


class AddUrgentTask(AddTask):
    """Add a thing to do with priority and due date."""

    name, split, difficulty, complexity = "tasks_add_urgent", "test", "hard", 2.0
    goal = "Add the task {title} with high priority, due on {day}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the day too."""
        return {**super().prepare(rng, data), "day": next_day(rng), "priority": "High"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """An open task has that title, day and priority."""
        return bool(matching(state, tasks.URI, title=p["title"], due=p["day"], priority=p["priority"], done=0))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in the form, pick the priority, and save."""
        yield from hands.open("Tasks")
        yield from hands.tap("New task")
        yield from hands.type("Title", p["title"])
        yield from hands.type("Due date (2026-03-05)", p["day"])
        yield from hands.pick("Priority", p["priority"])
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """A low priority."""
        return {**p, "priority": "Low"}


class _OneTask(Template):
    """A task about one of the open things to do; the near miss is the same done to another one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        rows = data.all(tasks.URI)
        for row in rows:
            row["done"] = 0
        one, other = rng.sample(rows, 2)
        return {"title": one["title"], "other": other["title"], "count": len(rows)}

    def near(self, p: Params) -> Params:
        return {**p, "title": p["other"]}


class FinishTask(_OneTask):
    """Mark one task as done."""

    name, split, difficulty, complexity = "tasks_finish", "train", "easy", 1.0
    goal = "Mark the task {title} as done."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That task is done, and no other."""
        return [row["title"] for row in matching(state, tasks.URI, done=1)] == [p["title"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Tick the box beside the title."""
        yield from hands.open("Tasks")
        yield from hands.set(f"Done: {p['title']}", True)
        yield from hands.ready()


class PostponeTask(_OneTask):
    """Give a task another due date."""

    name, split, difficulty, complexity = "tasks_postpone", "validation", "medium", 1.2
    goal = "Set the due date of the task {title} to {day}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a day in a month that no other task is due in."""
        return {**super().prepare(rng, data), "day": f"2026-04-{rng.randint(1, 28):02}"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That task is due on the day, and no other."""
        return [row["title"] for row in matching(state, tasks.URI, due=p["day"])] == [p["title"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the task, change the date, and save."""
        yield from hands.open("Tasks")
        yield from hands.tap(p["title"], role="button")
        yield from hands.type("Due date (2026-03-05)", p["day"])
        yield from hands.tap("Save")


class ClearTasks(Template):
    """Delete what is done and keep what is open."""

    name, split, difficulty, complexity = "tasks_clear_done", "train", "medium", 1.2
    goal = "Delete all tasks that are done, and no other."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Mark every second task as done."""
        rows = data.all(tasks.URI)
        for number, row in enumerate(rows):
            row["done"] = int(number % 2 == 0)
        return {"open": sum(row["done"] == 0 for row in rows), "tab": "Done"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """No task is done, and all open ones are still there."""
        return not matching(state, tasks.URI, done=1) and count(state, tasks.URI) == p["open"]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Clear the list of what is done, and agree."""
        yield from hands.open("Tasks")
        yield from hands.tap(p["tab"], rid="tab")
        yield from hands.tap("Clear")
        yield from hands.tap("Clear", rid="button1")

    def near(self, p: Params) -> Params:
        """The wrong list cleared."""
        return {**p, "tab": "Open"}


class CountTasks(Template):
    """Answer with the number of tasks of a priority."""

    name, split, difficulty, complexity, question = "tasks_count", "test", "medium", 1.0, True
    goal = "How many tasks in the list {tab} are of {priority} priority?"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Replace all tasks by six with drawn priorities."""
        data.clear(tasks.URI)
        for title in rng.sample(("Sweep", "Paint", "Sort", "Iron", "Mow", "Knit", "Bake"), 6):
            data.add(tasks.URI, title=title, priority=rng.choice(("Low", "High")), done=0)
        priority = rng.choice(("Low", "High"))
        number = sum(row["priority"] == priority for row in data.all(tasks.URI))
        return {"priority": priority, "tab": "Open", "number": number}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the number."""
        return same_answer(answer, [p["number"]])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Count the lines that end with the priority."""
        yield from hands.open("Tasks")
        found = [e for e in hands.elements for text in e.texts[1:] if text.endswith(f"{p['priority']} priority")]
        yield from hands.answer(str(len(found)))

    def near(self, p: Params) -> Params:
        """A priority of which there is another number."""
        # No task has the priority `Normal`; where the right answer is 0, the other priority has all six.
        return (
            {**p, "priority": "Normal"}
            if p["number"]
            else {**p, "priority": "Low" if p["priority"] == "High" else "High"}
        )


TEMPLATES: tuple[Template, ...] = (
    AddNote(),
    AddNoteToFolder(),
    AppendToNote(),
    DeleteNote(),
    PinNote(),
    AskNote(),
    AddTask(),
    AddUrgentTask(),
    FinishTask(),
    PostponeTask(),
    ClearTasks(),
    CountTasks(),
)
