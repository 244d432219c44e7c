"""Temporal formulas over finite traces (LTLf): what they are made of, and how they are read from text.

A trace has one step or more. A name speaks of the present step. `X f` demands a next step in which f holds, `WX f` does
not demand the step; `F f` (some step from here on) and `f U g` (f until g) must be fulfilled before the trace ends;
`G f` (every step from here on) and `f R g` (g until and including f, or for ever) must only not be broken.

Formulas are kept in negation normal form: a negation stands before a name alone. Source: arXiv:2409.19471 uses such
formulas for plans; the finite-trace form is that of its automata in our own shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_FORMULA_CHARS = 2_000
"""A longer text is refused: formulas may come from a model, and nobody reads a longer one."""
MAX_DEPTH = 64
"""Brackets and signs that may stand inside each other."""

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign><->|->|[!&|()]))")
_UNARY = ("X", "WX", "F", "G")
_BINARY = ("U", "R")


@dataclass(frozen=True, slots=True)
class Truth:
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Literal:
    """A name that must, or must not, hold in the present step."""

    name: str
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Both:
    """left and right."""

    left: Formula
    right: Formula


@dataclass(frozen=True, slots=True)
class Either:
    """left or right."""

    left: Formula
    right: Formula


@dataclass(frozen=True, slots=True)
class Next:
    """X of what is inside; with `weak`, WX."""

    inside: Formula
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Until:
    """left U right; `F f` is `true U f`."""

    left: Formula
    right: Formula


@dataclass(frozen=True, slots=True)
class Release:
    """left R right; `G f` is `false R f`."""

    left: Formula
    right: Formula


Formula = Truth | Literal | Both | Either | Next | Until | Release
TRUE, FALSE = Truth(True), Truth(False)


def parse_formula(text: str) -> Formula:
    """Read a formula: names, `true`, `false`, `!`, `&`, `|`, `->`, `<->`, `X`, `WX`, `F`, `G`, `U`, `R`, brackets.

    `!`, X, WX, F and G bind most, then U and R (to the right), `&`, `|`, `->` (to the right), `<->`.

    Raises:
        ValueError: it is none; the message names the place.
    """
    if len(text) > MAX_FORMULA_CHARS:
        raise ValueError(f"a formula of {len(text)} characters is too long; {MAX_FORMULA_CHARS} at most")
    return _Reader(text).whole()


def names_of(formula: Formula) -> frozenset[str]:
    """The names that a formula speaks of."""
    return frozenset(part.name for part in _parts(formula) if isinstance(part, Literal))


def negated(formula: Formula) -> Formula:
    """The negation, in negation normal form: over finite traces X turns into WX, U into R, and back."""
    match formula:
        case Truth(value):
            return Truth(not value)
        case Literal(name, positive):
            return Literal(name, not positive)
        case Both(left, right):
            return Either(negated(left), negated(right))
        case Either(left, right):
            return Both(negated(left), negated(right))
        case Next(inside, weak):
            return Next(negated(inside), not weak)
        case Until(left, right):
            return Release(negated(left), negated(right))
        case Release(left, right):
            return Until(negated(left), negated(right))


def _parts(formula: Formula) -> Iterator[Formula]:
    yield formula
    if isinstance(formula, Next):
        yield from _parts(formula.inside)
    elif isinstance(formula, Both | Either | Until | Release):
        yield from _parts(formula.left)
        yield from _parts(formula.right)


class _Reader:
    """Reads one text from left to right; each level of binding is a method that asks the next tighter one."""

    def __init__(self, text: str) -> None:
        self.text, self.depth, self.at = text, 0, 0
        self.tokens = list(self._split())

    def _split(self) -> Iterator[tuple[str, int]]:
        place, end = 0, len(self.text.rstrip())
        while place < end:
            found = _TOKEN.match(self.text, place)
            if found is None:
                raise self._wrong(place, f"{self.text[place:].lstrip()[:1]!r} is no part of a formula")
            yield found.group(found.lastgroup or 0), found.start(found.lastgroup or 0)
            place = found.end()

    def whole(self) -> Formula:
        made = self._equal()
        if self.at < len(self.tokens):
            word, place = self.tokens[self.at]
            raise self._wrong(place, f"{word!r} does not follow here")
        return made

    def _equal(self) -> Formula:
        made = self._implied()
        while self._take("<->"):
            other = self._implied()
            made = Both(Either(negated(made), other), Either(made, negated(other)))
        return made

    def _implied(self) -> Formula:
        made = self._row("|", self._all, Either)
        # To the right: a -> b -> c is a -> (b -> c).
        return Either(negated(made), self._deeper(self._implied)) if self._take("->") else made

    def _all(self) -> Formula:
        return self._row("&", self._timed, Both)

    def _row(self, sign: str, tighter: Callable[[], Formula], make: Callable[[Formula, Formula], Formula]) -> Formula:
        made = tighter()
        while self._take(sign):
            made = make(made, tighter())
        return made

    def _timed(self) -> Formula:
        made = self._one()
        if self._take("U"):
            return Until(made, self._deeper(self._timed))
        return Release(made, self._deeper(self._timed)) if self._take("R") else made

    def _one(self) -> Formula:
        if self._take("!"):
            return negated(self._deeper(self._one))
        for word in _UNARY:
            if self._take(word):
                return _of_time(word, self._deeper(self._one))
        if self._take("("):
            made = self._deeper(self._equal)
            if not self._take(")"):
                raise self._wrong(self._place(), "a bracket is not closed")
            return made
        return self._name()

    def _name(self) -> Formula:
        word = self.tokens[self.at][0] if self.at < len(self.tokens) else ""
        if not word or not (word[0].isalpha() or word[0] == "_") or word in _BINARY:
            raise self._wrong(self._place(), "a name, `!`, X, WX, F, G or a bracket must stand")
        self.at += 1
        constants: dict[str, Formula] = {"true": TRUE, "false": FALSE}
        return constants.get(word, Literal(word))

    def _take(self, word: str) -> bool:
        there = self.at < len(self.tokens) and self.tokens[self.at][0] == word
        self.at += there
        return there

    def _deeper(self, read: Callable[[], Formula]) -> Formula:
        # Python's own stack would end in a RecursionError, which is no answer to a user's text.
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._wrong(self._place(), f"more than {MAX_DEPTH} signs stand inside each other")
        made = read()
        self.depth -= 1
        return made

    def _place(self) -> int:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else len(self.text)

    def _wrong(self, place: int, what: str) -> ValueError:
        return ValueError(f"{self.text[:200]!r} is no formula: at character {place + 1} {what}")


def _of_time(word: str, inside: Formula) -> Formula:
    if word == "F":
        return Until(TRUE, inside)
    if word == "G":
        return Release(FALSE, inside)
    return Next(inside, weak=word == "WX")
