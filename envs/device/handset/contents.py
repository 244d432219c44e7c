"""What is on a phone before a task begins: people, messages, events, files, mail, goods. Seeded, all invented."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..apps import browser, calendar, clock, contacts, dialer, mail, messages, notes, shop, tasks
from ..apps.storage import Value
from .setup import START_MS, Distractors, Setup

DAY_MS = 86_400_000
FIRST_NAMES = (
    "Anna", "Ben", "Carla", "David", "Elena", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Karin", "Liam", "Maria",
    "Nora", "Oscar", "Paula", "Quentin", "Rosa", "Samir", "Tara", "Umar", "Vera", "Walter", "Yara",
)  # fmt: skip
LAST_NAMES = (
    "Abel", "Berg", "Costa", "Dorn", "Evans", "Fischer", "Garcia", "Hall", "Ito", "Jensen", "Keller", "Lopez",
    "Moreau", "Novak", "Okafor", "Park",
)  # fmt: skip
COMPANIES = ("Acme", "Bluebird", "Cobalt", "Delta Works", "Eastgate")
MESSAGES = (
    "See you tomorrow", "Can you call me back?", "The keys are with the neighbour", "Thanks for the help",
    "Running ten minutes late", "Happy birthday!", "The meeting moved to room 4", "Lunch on Friday?",
)  # fmt: skip
EVENTS = (
    "Team meeting", "Dentist", "Yoga class", "Project review", "Piano lesson", "Car service", "Parents evening",
    "Book club", "Lunch with Sam", "Budget talk",
)  # fmt: skip
PLACES = ("Room 4", "Town hall", "Main street 12", "Cafe Luna", "Office", "Library")
NOTES = (
    ("Packing list", "passport, charger, rain jacket"), ("Gift ideas", "a kite for Leo, tea for Mia"),
    ("Wine tasting", "the red one from the south"), ("Door codes", "garage 4471"), ("Recipe", "two eggs, flour, milk"),
    ("Garden plan", "beans next to the fence"), ("Films", "the one about the lighthouse"),
    ("Running log", "5 km on Sunday"),
)  # fmt: skip
ERRANDS = (
    "Buy stamps", "Water the plants", "Return the books", "Pay the rent", "Call the plumber", "Book the train",
    "Clean the windows", "Renew the passport", "Fix the bike",
)  # fmt: skip
SUBJECTS = (
    "Invoice for March", "Weekend trip", "Your order", "Minutes of the meeting", "Choir rehearsal", "New parking rules",
    "Photos from Sunday", "Survey", "Lost umbrella", "Holiday plans",
)  # fmt: skip
PRODUCTS = (
    ("Atlas of Rivers", "Books"), ("Bread Baking", "Books"), ("Night Trains", "Books"), ("Small Gardens", "Books"),
    ("Copper Pan", "Kitchen"), ("Teapot", "Kitchen"), ("Lemon Press", "Kitchen"), ("Wooden Spoon", "Kitchen"),
    ("Watering Can", "Garden"), ("Seed Box", "Garden"), ("Garden Gloves", "Garden"), ("Bird House", "Garden"),
    ("Wooden Train", "Toys"), ("Kite", "Toys"), ("Puzzle", "Toys"), ("Marbles", "Toys"),
    ("Desk Lamp", "Office"), ("Notebook", "Office"), ("Fountain Pen", "Office"), ("Stapler", "Office"),
)  # fmt: skip
TOWNS = ("Alderport", "Brimwick", "Corvale", "Dunmere", "Eastholm", "Farrow")
DOCUMENTS = ("report", "letter", "budget", "ideas", "minutes", "draft")
WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "kestrel", "lagoon",
    "meadow", "nectar", "orchid", "pebble", "quartz", "river", "saffron", "timber",
)  # fmt: skip


@dataclass
class Data:
    """The data of one episode while it is being made up. `setup` turns it into what a phone starts with."""

    rows: dict[str, list[dict[str, Value]]] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def add(self, uri: str, **row: Value) -> dict[str, Value]:
        """A further row; its `_id` is its place in the list, counted from 1."""
        rows = self.rows.setdefault(uri, [])
        # The store keeps this number, so a task can name a row before there is a phone.
        row["_id"] = len(rows) + 1
        rows.append(row)
        return row

    def clear(self, uri: str) -> None:
        """Forget all rows of a provider."""
        self.rows[uri] = []

    def all(self, uri: str) -> list[dict[str, Value]]:
        """The rows of a provider, to be changed in place."""
        return self.rows.setdefault(uri, [])

    def put(self, namespace: str, name: str, value: str) -> None:
        """Write a setting."""
        self.settings.setdefault(namespace, {})[name] = value

    def setup(self, *, distractors: Distractors, seed: int) -> Setup:
        """The data as a phone's start."""
        rows: Mapping[str, Sequence[Mapping[str, Value]]] = self.rows
        return Setup(rows=rows, settings=self.settings, files=self.files, distractors=distractors, seed=seed)


def base_data(rng: random.Random) -> Data:
    """An inhabited phone, drawn by `rng`."""
    data = Data()
    _people(rng, data)
    _talk(rng, data)
    _time(rng, data)
    _papers(rng, data)
    _online(rng, data)
    return data


def new_phone_number(rng: random.Random) -> str:
    """A number of ten digits that begins with 555."""
    return f"555{rng.randrange(10**6, 10**7)}"


def new_name(rng: random.Random, data: Data) -> str:
    """The name of somebody who is not among the contacts and shares no first name with one."""
    taken = {str(row["name"]).split()[0] for row in data.all(contacts.URI)}
    first = rng.choice([name for name in FIRST_NAMES if name not in taken])
    return f"{first} {rng.choice(LAST_NAMES)}"


def some_words(rng: random.Random, count: int = 2) -> str:
    """Different words from a fixed list, joined by blanks."""
    return " ".join(rng.sample(WORDS, count))


def next_day(rng: random.Random, at_most: int = 6) -> str:
    """A day soon after the phone's first one, as 2026-03-05."""
    return calendar.day_of(START_MS + rng.randint(1, at_most) * DAY_MS)


def _people(rng: random.Random, data: Data) -> None:
    for first in rng.sample(FIRST_NAMES, rng.randint(9, 13)):
        last = rng.choice(LAST_NAMES)
        data.add(
            contacts.URI,
            name=f"{first} {last}",
            phone=new_phone_number(rng),
            email=f"{first}.{last}@example.org".lower(),
            company=rng.choice(COMPANIES),
            starred=int(rng.random() < 0.2),
        )


def _talk(rng: random.Random, data: Data) -> None:
    people = data.all(contacts.URI)
    for person in rng.sample(people, 5):
        for _ in range(rng.randint(1, 3)):
            when = START_MS - rng.randrange(3 * DAY_MS)
            row = {"address": person["phone"], "body": rng.choice(MESSAGES), "type": rng.choice((1, 1, 2))}
            data.add(messages.URI, **row, date_ms=when)
    for person in rng.sample(people, 5):
        row = {"number": person["phone"], "type": rng.choice((1, 2, 3)), "date_ms": START_MS - rng.randrange(DAY_MS)}
        data.add(dialer.URI, **row, duration_s=rng.randrange(10, 600))


def _time(rng: random.Random, data: Data) -> None:
    for hour in rng.sample(range(5, 23), 3):
        data.add(clock.ALARMS, hour=hour, minute=rng.choice((0, 15, 30, 45)), enabled=rng.randint(0, 1))
    for title in rng.sample(EVENTS, 6):
        start = START_MS // DAY_MS * DAY_MS + rng.randint(0, 6) * DAY_MS + rng.randint(10, 18) * 3_600_000
        data.add(calendar.URI, title=title, dtstart=start, dtend=start + 3_600_000, location=rng.choice(PLACES))


def _papers(rng: random.Random, data: Data) -> None:
    for title, body in rng.sample(NOTES, 5):
        data.add(notes.URI, title=title, body=body, folder=rng.choice(notes.FOLDERS))
    for title in rng.sample(ERRANDS, 5):
        due = next_day(rng) if rng.random() < 0.6 else ""
        data.add(tasks.URI, title=title, due=due, priority=rng.choice(tasks.PRIORITIES), done=int(rng.random() < 0.25))
    for name in rng.sample(DOCUMENTS, 4):
        folder = rng.choice(("Documents", "Download"))
        data.files[f"/sdcard/{folder}/{name}.txt"] = f"{name.capitalize()}: {some_words(rng, 4)}"


def _online(rng: random.Random, data: Data) -> None:
    for subject in rng.sample(SUBJECTS, 6):
        person = rng.choice(data.all(contacts.URI))
        row = {"sender": person["email"], "recipient": mail.ME, "subject": subject, "read": rng.randint(0, 1)}
        body = f"Hello,\n{rng.choice(MESSAGES)}\n{str(person['name']).split()[0]}"
        data.add(mail.URI, **row, body=body, date_ms=START_MS - rng.randrange(5 * DAY_MS))
    for name, category in rng.sample(PRODUCTS, 12):
        cents = rng.randrange(300, 9000, 50) + 49
        data.add(shop.PRODUCTS, name=name, category=category, price_cents=cents, rating=rng.randrange(30, 50) / 10)
    _small_web(rng, data)


def _small_web(rng: random.Random, data: Data) -> None:
    """A guide to six towns and a page about each: facts that are drawn, so that nobody can know them."""
    links = [(f"guide/{town.lower()}", town) for town in TOWNS]
    data.add(browser.PAGES, url="guide", title="Town guide", body="Six towns by the sea.", links=json.dumps(links))
    data.add(browser.PAGES, url="weather", title="Weather", body=f"Today: {rng.randrange(-5, 30)} degrees.", links="[]")
    for town in TOWNS:
        facts = (
            f"{town} has {rng.randrange(2, 90) * 1000 + rng.randrange(1000)} inhabitants.",
            f"Its mayor is {rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}.",
            f"The ferry leaves at {rng.randrange(6, 20)}:{rng.choice((10, 25, 40, 55))}.",
        )
        back = json.dumps([("guide", "Town guide")])
        data.add(browser.PAGES, url=f"guide/{town.lower()}", title=town, body="\n".join(facts), links=back)
