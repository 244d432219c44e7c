"""What a task template is, and the hands of a scripted solver.

A template makes up its parameters and the data it needs from a seeded generator, says its goal in words, judges the
phone's state (never the screen) and the declared answer, and holds a solver that works through the screen alone.

Sources: parametrised tasks, verdict on state, answers and budget as in AndroidWorld, arXiv:2405.14573.
"""

from __future__ import annotations

import difflib
import hashlib
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from rollwright.contracts import Split

from ..apps import installed
from ..backend import DeviceState
from ..handset.contents import Data
from ..screen.tree import GO_BACK, Element

Params = dict[str, Any]
Difficulty = Literal["easy", "medium", "hard"]
BUDGET_PER_COMPLEXITY = 10
_IN_THE_WAY = ("popup_close", "permission_allow_button", "allow_access")


class Template(ABC):
    """One parametrised task. Sub-classes fill in the class variables and the four methods.

    `goal` is a format string over the parameters. `complexity` gives the step budget, `int(10 * complexity)`: about
    twice what the solver needs. `question`: the verdict depends on the declared answer. `feasible` is False where the
    right thing is to say so.
    """

    name: ClassVar[str]
    goal: ClassVar[str]
    split: ClassVar[Split]
    difficulty: ClassVar[Difficulty]
    complexity: ClassVar[float]
    question: ClassVar[bool] = False
    feasible: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the parameters (JSON values), and put into `data` what the task needs so that it is not yet done."""

    @abstractmethod
    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """Whether the phone's state, or the answer to a question, is what the goal asked for."""

    @abstractmethod
    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """The actions of a way to do it, up to but without `done`."""

    @abstractmethod
    def near(self, p: Params) -> Params:
        """Parameters of a neighbouring task: doing that one must not count as doing this one."""

    @property
    def budget(self) -> int:
        """Actions that an episode may take."""
        return int(BUDGET_PER_COMPLEXITY * self.complexity)

    def say_goal(self, p: Params) -> str:
        """The goal in words, with the drawn parameters in their places."""
        return self.goal.format(**p)


class GiveUp(Exception):
    """The solver cannot find on the screen what it needs."""


class Hands:
    """A solver's hands and eyes: it sees `elements` and yields actions in the short form.

    Every method is a generator of actions. Pop-ups, permission questions and loading screens are dealt with on the
    way, and lists are scrolled until the thing that was named comes into view.
    """

    def __init__(self) -> None:
        self.elements: Sequence[Element] = ()
        self.package = ""

    def look(self, elements: Sequence[Element], package: str) -> None:
        """Show the solver the screen that its last action led to."""
        self.elements, self.package = elements, package

    def find(self, name: str, *, rid: str = "", role: str = "") -> Element | None:
        """The first element that says just that; else one that begins with it."""
        able = [e for e in self.elements if (not rid or e.resource_id == rid) and (not role or e.role == role)]
        exact = [e for e in able if name in e.texts or name in (e.desc, e.hint)]
        starts = [e for e in able if e.texts and e.texts[0].startswith(name)]
        chosen = [e for e in exact if e.role != "p"] or [e for e in starts if e.role != "p"] or exact or starts
        return next((e for e in chosen if e.texts != (GO_BACK,)), None)

    def ready(self) -> Iterator[str]:
        """Until nothing stands in the way."""
        for _ in range(8):
            by_id = {e.resource_id: e for e in self.elements}
            button = next((by_id[rid] for rid in _IN_THE_WAY if rid in by_id), None)
            if button is not None:
                yield f"tap {button.id}"
            elif "progress" in by_id:
                yield "wait"
            else:
                return

    def seek(self, name: str, *, rid: str = "", role: str = "") -> Iterator[str]:
        """Scroll until it is in sight: down to the end, then up again."""
        for direction in ("down", "up", "down"):
            for _ in range(25):
                yield from self.ready()
                if self.find(name, rid=rid, role=role) is not None:
                    return
                before = [(e.texts, e.bounds) for e in self.elements]
                yield f"scroll {direction}"
                yield from self.ready()
                if before == [(e.texts, e.bounds) for e in self.elements]:
                    break
        raise GiveUp(f"{name!r} is nowhere on the screen")

    def tap(self, name: str, *, rid: str = "", role: str = "", verb: str = "tap") -> Iterator[str]:
        """Find something by what it says, and touch it."""
        yield from self.seek(name, rid=rid, role=role)
        found = self.find(name, rid=rid, role=role)
        if found is not None:
            yield f"{verb} {found.id}"
            yield from self.ready()

    def hold(self, name: str, *, rid: str = "") -> Iterator[str]:
        """Find something by what it says, and press it for long."""
        yield from self.tap(name, rid=rid, verb="hold")

    def type(self, name: str, text: str) -> Iterator[str]:
        """Make a field hold just that text. The field is named by its hint."""
        for _ in range(4):
            yield from self.seek(name, role="input")
            found = self.find(name, role="input")
            if found is None or (found.texts[0] if found.texts else "") == text:
                return
            yield f"type {found.id} {text}"
            yield from self.ready()

    def pick(self, spinner: str, option: str) -> Iterator[str]:
        """Choose from a closed list, named by its description."""
        yield from self.seek(spinner)
        shown = next((e for e in self.elements if e.desc == spinner and e.class_name == "Spinner"), None)
        if shown is not None and option in shown.texts:
            return
        yield f"tap {shown.id}" if shown is not None else f"tap {self._id(spinner)}"
        yield from self.tap(option, rid="menu_item")

    def _id(self, name: str) -> int:
        found = self.find(name)
        if found is None:
            raise GiveUp(f"{name!r} is nowhere on the screen")
        return found.id

    def set(self, name: str, on: bool, *, rid: str = "") -> Iterator[str]:
        """Bring a switch or a box into a state."""
        yield from self.seek(name, rid=rid, role="checkbox")
        found = self.find(name, rid=rid, role="checkbox")
        if found is not None and found.checked != on:
            yield f"tap {found.id}"
            yield from self.ready()

    def open(self, app: str) -> Iterator[str]:
        """Open an app, also where a question had to be answered first."""
        package = next(a.package for a in installed() if a.name == app)
        for _ in range(4):
            yield f"open {app}"
            yield from self.ready()
            if self.package == package:
                return

    def back(self) -> Iterator[str]:
        """Leave the screen once nothing stands in the way."""
        yield from self.ready()
        yield "back"
        yield from self.ready()

    def answer(self, text: str) -> Iterator[str]:
        """Declare an answer."""
        yield f"answer {text}"

    def beside(self, name: str, step: int) -> str:
        """The text `step` elements after the one that says just `name`; -1 is the one before it. Raises GiveUp."""
        found = self.find(name)
        if found is None or not 0 <= found.id + step < len(self.elements):
            raise GiveUp(f"{name!r} is nowhere on the screen")
        return self.elements[found.id + step].name

    def first(self, rid: str) -> str:
        """What the first element of that resource id says. Raises GiveUp."""
        found = next((e for e in self.elements if e.resource_id == rid), None)
        if found is None:
            raise GiveUp(f"nothing on the screen is a {rid!r}")
        return found.name

    def number_in(self, start: str) -> str:
        """The digits of the first text that begins so. Raises GiveUp."""
        return "".join(letter for letter in self.read(start) if letter.isdecimal())

    def read(self, start: str) -> str:
        """The first text on the screen that begins so.

        Raises:
            GiveUp: there is none.
        """
        for element in self.elements:
            for text in element.texts:
                if text.startswith(start):
                    return text
        raise GiveUp(f"no text on the screen begins with {start!r}")


# Verdicts


def same_text(given: str, expected: str) -> bool:
    """AndroidWorld's rule for answers in words: case and outer blanks do not count, a ratio of 0.9 is enough."""
    a, b = given.strip().casefold(), expected.strip().casefold()
    return difflib.SequenceMatcher(None, a, b).ratio() >= 0.9


def same_answer(given: str, expected: str | Sequence[str | float], *, tolerance: float = 0.0) -> bool:
    """AndroidWorld's rule for answers: parts between commas, as many as expected, in any order.

    Args:
        expected: one text, or the parts; a number is compared as a number, strictly within `tolerance` (exactly where
            that is 0), a text by `same_text`.
    """
    wanted = [expected] if isinstance(expected, str) else list(expected)
    left = [part for part in (piece.strip() for piece in given.split(",")) if part]
    if len(left) != len(wanted):
        return False
    for part in wanted:
        match = next((g for g in left if _same_part(g, part, tolerance)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_part(given: str, expected: str | float, tolerance: float) -> bool:
    if isinstance(expected, str):
        # A number in words is a number: 1234 is not nearly 1235.
        return given == expected if _is_number(expected) else same_text(given, expected)
    if not _is_number(given) or ":" in given:
        return False
    gap = abs(float(given) - expected)
    return gap < tolerance if tolerance else gap == 0


def _is_number(text: str) -> bool:
    """`12`, `-3.5` and times such as `14:30`: what is either right or wrong, never nearly right."""
    return re.fullmatch(r"-?\d+([.:]\d+)?", text, re.ASCII) is not None


def instance_seed(seed: int, name: str, number: int) -> int:
    """The seed of one instance of a task, by AndroidWorld's formula: independent of other tasks and their order."""
    digest = hashlib.sha256(f"{seed}_{name}_{number}".encode()).hexdigest()
    return int(digest, 16) % 2**32


def matching(state: DeviceState, uri: str, **wanted: object) -> list[dict[str, str]]:
    """Rows of a provider whose columns say just that. Values are compared as text: a phone over ADB gives only text."""
    rows = [{name: str(value) for name, value in row.items()} for row in state.rows(uri)]
    return [row for row in rows if all(row.get(name) == str(value) for name, value in wanted.items())]


def count(state: DeviceState, uri: str) -> int:
    """How many rows a provider holds."""
    return len(state.rows(uri))
