"""Tasks on the wiki."""

from __future__ import annotations

import sqlite3

from ..pages.engine import url
from ..pages.wiki_site import describe
from ..pages.words import RIVERS, TRADES
from .aims import Aim, Draw, Edit, Step, Template, fill, follow, go, push, say

_MOST_COMPARED = 4
_SET_BODY = "update article set body = ? where title = ?"


def _town(draw: Draw) -> sqlite3.Row:
    return draw.row("select * from article")


def _reach(a: sqlite3.Row) -> tuple[Step, ...]:
    return fill("Search the wiki", a["title"]), push("Find"), follow(a["title"])


def _by_category(a: sqlite3.Row) -> tuple[Step, ...]:
    return follow(a["category"]), follow(a["title"])


def founded(draw: Draw) -> Aim:
    """In which year a town was founded."""
    a = _town(draw)
    answer = str(a["founded"])
    return Aim(goal=f"In which year was {a['title']} founded?", plan=(*_reach(a), say(answer)), answers=(answer,))


def population(draw: Draw) -> Aim:
    """How many people a town has."""
    a = _town(draw)
    answer = str(a["population"])
    return Aim(goal=f"How many people has {a['title']}?", plan=(*_by_category(a), say(answer)), answers=(answer,))


def known_for(draw: Draw) -> Aim:
    """What a town is known for."""
    a = _town(draw)
    return Aim(goal=f"What is {a['title']} known for?", plan=(*_reach(a), say(a["trade"])), answers=(a["trade"],))


def watch(draw: Draw) -> Aim:
    """Put an article on the watch list."""
    a = _town(draw)
    edit = ("insert into watch values (?)", (a["title"],))
    goal = f"Put the article {a['title']} on the watch list."
    return Aim(goal=goal, plan=(*_reach(a), push("Watch")), edits=(edit,))


def correct_year(draw: Draw) -> Aim:
    """Correct the year in an article."""
    a, year = _town(draw), draw.rng.randint(1100, 1899)
    body = a["body"].replace(f"founded in {a['founded']}", f"founded in {year}")
    goal = f"The article {a['title']} gives a wrong year of foundation. Correct it to {year}."
    plan = (*_reach(a), follow("Edit"), fill("Text", body), push("Save"))
    return Aim(goal=goal, plan=plan, edits=((_SET_BODY, (body, a["title"])),))


def append(draw: Draw) -> Aim:
    """Add a sentence to an article."""
    a = _town(draw)
    sentence = f"Its market is held every {draw.rng.choice(['Monday', 'Tuesday', 'Friday', 'Sunday'])}."
    body = f"{a['body']} {sentence}"
    goal = f'Add this sentence at the end of the article {a["title"]}: "{sentence}"'
    plan = (*_by_category(a), follow("Edit"), fill("Text", body), push("Save"))
    return Aim(goal=goal, plan=plan, edits=((_SET_BODY, (body, a["title"])),))


def recategorise(draw: Draw) -> Aim:
    """Put an article into another category."""
    a = _town(draw)
    name = draw.rng.choice([f"Towns on the {river}" for river in RIVERS if river not in a["category"]])
    goal = f'Put the article {a["title"]} into the category "{name}".'
    plan = (*_reach(a), follow("Edit"), fill("Category", name), push("Save"))
    return Aim(goal=goal, plan=plan, edits=(("update article set category = ? where title = ?", (name, a["title"])),))


def create(draw: Draw) -> Aim:
    """Write a new article."""
    title = f"{draw.rng.choice(['Port', 'Mount', 'Fort'])} {draw.rng.choice(['Quill', 'Raven', 'Sable', 'Thorn'])}"
    river, trade = draw.rng.choice(RIVERS), draw.rng.choice(TRADES)
    body = describe(title, river, draw.rng.randint(1100, 1899), trade, draw.rng.randint(2, 99) * 100)
    name = f"Towns on the {river}"
    goal = f'Create the article "{title}" in the category "{name}" with the text "{body}"'
    plan = (follow("New article"), fill("Title", title), fill("Category", name), fill("Text", body), push("Create"))
    edit = ("insert into article (title, category, body) values (?, ?, ?)", (title, name, body))
    return Aim(goal=goal, plan=plan, edits=(edit,))


def undo(draw: Draw) -> Aim:
    """Somebody has spoilt an article; its first version is to be restored."""
    a = _town(draw)
    spoilt = f"{a['title']} is boring."
    draw.db.execute(_SET_BODY, (spoilt, a["title"]))
    sql = "insert into revision (title, author, summary, body) values (?, 'Visitor', '', ?)"
    draw.db.execute(sql, (a["title"], spoilt))
    goal = f"Somebody has spoilt the article {a['title']}. Restore the version before."
    edits: tuple[Edit, ...] = ((_SET_BODY, (a["body"], a["title"])),)
    return Aim(goal=goal, plan=(*_by_category(a), follow("History"), push("Restore version 1")), edits=edits)


def last_editor(draw: Draw) -> Aim:
    """Who changed an article last."""
    a = _town(draw)
    name = draw.rng.choice(["Yara", "Quinn", "Zoe", "Walter", "Xenia"])
    sql = "insert into revision (title, author, summary, body) values (?, ?, 'Checked', ?)"
    draw.db.execute(sql, (a["title"], name, a["body"]))
    goal = f"Who wrote the latest version of the article {a['title']}?"
    return Aim(goal=goal, plan=(*_reach(a), follow("History"), say(name)), answers=(name,))


def largest(draw: Draw) -> Aim:
    """Compare all towns of one category: each article has to be read."""
    name = draw.row("select category from article group by category having count(*) > 1")["category"]
    rows = draw.all("select * from article where category = ? order by population desc", name)
    for row in rows[_MOST_COMPARED:]:
        draw.db.execute("update article set category = 'Small towns' where title = ?", (row["title"],))
    rows = rows[:_MOST_COMPARED]
    pages = tuple(go(url(f"/wiki/{row['title']}")) for row in rows)
    goal = f'Which article of the category "{name}" is about the town with the most people?'
    answer = rows[0]["title"]
    return Aim(goal=goal, plan=(follow(name), *pages, say(answer)), answers=(answer,))


def neighbour_year(draw: Draw) -> Aim:
    """Which of two neighbouring towns was founded first."""
    row = draw.row("select title from near group by title having count(*) = 2")
    others = draw.all("select * from article where title in (select other from near where title = ?)", row["title"])
    older = min(others, key=lambda town: town["founded"])
    if len({town["founded"] for town in others}) < 2:
        raise LookupError("both were founded in the same year")
    start = draw.row("select * from article where title = ?", row["title"])
    looks = tuple(step for town in others for step in (go(url(f"/wiki/{row['title']}")), follow(town["title"])))
    goal = f"Two towns are listed as nearby in the article {row['title']}. Which of the two was founded first?"
    return Aim(goal=goal, plan=(*_reach(start), *looks, say(older["title"])), answers=(older["title"],))


TEMPLATES = (
    Template(id="wiki.founded", difficulty="easy", split="train", draw=founded),
    Template(id="wiki.population", difficulty="easy", split="validation", draw=population),
    Template(id="wiki.known_for", difficulty="easy", split="train", draw=known_for),
    Template(id="wiki.watch", difficulty="easy", split="train", draw=watch),
    Template(id="wiki.correct_year", difficulty="medium", split="train", draw=correct_year),
    Template(id="wiki.append", difficulty="medium", split="validation", draw=append),
    Template(id="wiki.recategorise", difficulty="medium", split="test", draw=recategorise),
    Template(id="wiki.create", difficulty="hard", split="train", draw=create),
    Template(id="wiki.undo", difficulty="medium", split="test", draw=undo),
    Template(id="wiki.last_editor", difficulty="medium", split="train", draw=last_editor),
    Template(id="wiki.largest", difficulty="hard", split="train", draw=largest),
    Template(id="wiki.neighbour_year", difficulty="hard", split="test", draw=neighbour_year),
)
