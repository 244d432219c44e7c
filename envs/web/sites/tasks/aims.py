"""What a task is: a template draws an aim from a fresh database, and the aim knows when it is reached.

A state task lists the edits that lead to the wished state; it is reached when the watched rows equal the rows after
those edits, so whatever else was changed on the way spoils it. An information task lists the answers that are right.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rollwright.contracts import Split

from ...scene import Scene
from ..pages.engine import Site, connect, state_of
from .purchase import Purchase, PurchaseGoal, purchase_reward

Difficulty = Literal["easy", "medium", "hard"]
Edit = tuple[str, tuple[Any, ...]]
Step = Callable[[Scene], str | None]
"""One step of a plan: the action for what is seen, or None where what it needs is not in sight."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One drawn task: what the policy is told, what counts, and how a teacher does it."""

    goal: str
    plan: tuple[Step, ...]
    edits: tuple[Edit, ...] = ()
    answers: tuple[str, ...] = ()
    purchase: PurchaseGoal | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an episode has come to. `over` is false while it goes on."""

    over: bool
    reward: float = 0.0
    success: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a template draws from: a filled database and chance."""

    db: sqlite3.Connection
    rng: random.Random

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """All rows."""
        return self.db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: object) -> sqlite3.Row:
        """One of the rows, by chance."""
        rows = self.all(sql, *values)
        if not rows:
            raise LookupError(f"a template finds nothing to ask about: {sql}")
        return self.rng.choice(rows)

    def meta(self, key: str) -> str:
        """A fact about this world, such as `user` or `today`."""
        return str(self.all("select value from meta where key = ?", key)[0]["value"])


@dataclass(frozen=True, kw_only=True)
class Template:
    """A family of tasks that differ in what is drawn. It belongs to one split for good."""

    id: str
    difficulty: Difficulty
    split: Split
    draw: Callable[[Draw], Aim]

    @property
    def site(self) -> str:
        """The name before the dot."""
        return self.id.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The beginning of an episode: the database as bytes, the aim, and the state that is wished for. Shared freely."""

    site: Site
    data: bytes
    aim: Aim
    wished: list[list[tuple[object, ...]]]
    untouched: list[list[tuple[object, ...]]]

    @classmethod
    def make(cls, site: Site, db: sqlite3.Connection, aim: Aim) -> Start:
        """Work out the wished state on a copy of the database."""
        data = db.serialize()
        copy = connect()
        copy.deserialize(data)
        for sql, values in aim.edits:
            copy.execute(sql, values)
        start = cls(site=site, data=data, aim=aim, wished=state_of(site, copy), untouched=state_of(site, db))
        copy.close()
        return start

    def after_write(self, db: sqlite3.Connection) -> Verdict:
        """The verdict after something was changed: over where the wished state is reached, or the one order placed."""
        if self.aim.purchase is not None:
            return self._after_order(db, self.aim.purchase)
        if not self.aim.edits or state_of(self.site, db) != self.wished:
            return Verdict(over=False)
        return Verdict(over=True, reward=1.0, success=True)

    def declared(self, db: sqlite3.Connection, answer: str) -> Verdict:
        """The verdict when the policy says that it is done, with its answer."""
        if self.aim.answers:
            right = matches(answer, self.aim.answers) and state_of(self.site, db) == self.untouched
        else:
            right = bool(self.aim.edits) and state_of(self.site, db) == self.wished
        return Verdict(over=True, reward=float(right), success=right)

    def _after_order(self, db: sqlite3.Connection, goal: PurchaseGoal) -> Verdict:
        bought = Purchase.latest(db, after=len(self.untouched[0]))
        if bought is None:
            return Verdict(over=False)
        reward = purchase_reward(goal, bought)
        return Verdict(over=True, reward=reward, success=reward == 1.0)


def matches(answer: str, accepted: tuple[str, ...]) -> bool:
    """WebArena's exact match: letter case, blanks, quotes at the ends and a final full stop aside."""
    return _plain(answer) in {_plain(text) for text in accepted}


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().strip("'\"").removesuffix(".").strip().lower()


# Steps of plans


def follow(name: str) -> Step:
    """Click a link."""
    return lambda scene: _act(scene, "click", name, "link")


def push(name: str) -> Step:
    """Click a button."""
    return lambda scene: _act(scene, "click", name, "button")


def fill(name: str, text: str) -> Step:
    """Write into a field."""
    return lambda scene: _act(scene, "fill", name, "textbox", "textarea", text=text)


def pick(name: str, option: str) -> Step:
    """Choose from a list."""
    return lambda scene: _act(scene, "select_option", name, "select", text=option)


def check(name: str) -> Step:
    """Tick a box."""
    return lambda scene: _act(scene, "check", name, "checkbox")


def go(path: str) -> Step:
    """Go to a page by its address."""
    return lambda scene: f"goto {path}"


def say(text: str) -> Step:
    """Give the answer."""
    return lambda scene: f"answer {text}"


def _act(scene: Scene, action: str, name: str, *roles: str, text: str = "") -> str | None:
    line = scene.find(name, *roles)
    return f"{action} {line.id} {text}".rstrip() if line else None
