"""Procedural specifications: what a function is to do in words, a reference implementation, cases it must pass.

A specification is a chain of steps over one value. Six families: numbers, conditions (steps under a condition), lists,
texts, words (lists of words, mappings) and recurrences (a step repeated x times). Difficulty is the number of steps.

The splits are apart by *behaviour*: the outputs on fixed probes decide the split, so two wordings of one function
always lie on the same side.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rollwright.contracts import DataError, Split
from rollwright.envs.code.judging import Case
from rollwright.envs.code.sandbox.plain import encode

PROBES, HIDDEN_CASES, EXAMPLES = 24, 12, 3
MAX_STEPS, MAX_GROWTH = 64, 100_000
"""Steps of a specification; by how much they may lengthen a value together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation: `{k}` is its constant, `x` the value in Python."""

    words: str
    code: str
    constants: tuple[Any, ...] = (None,)
    ends: bool = False
    """The value is of another type afterwards, so nothing can follow."""


_K = tuple(range(2, 10))
_NUMBERS = {
    "add": Step(words="add {k}", code="x + {k}", constants=_K),
    "subtract": Step(words="subtract {k}", code="x - {k}", constants=_K),
    "multiply": Step(words="multiply by {k}", code="x * {k}", constants=_K),
    "remainder": Step(words="take the remainder by {k}", code="x % {k}", constants=_K),
    "divide": Step(words="divide by {k} rounding down", code="x // {k}", constants=_K),
    "at_least": Step(words="raise to at least {k}", code="max(x, {k})", constants=_K),
    "at_most": Step(words="cut to at most {k}", code="min(x, {k})", constants=_K),
    "square": Step(words="square", code="x ** 2"),
    "negate": Step(words="negate", code="-x"),
    "absolute": Step(words="take the absolute value", code="abs(x)"),
}
_TESTS = {"even": "x % 2 == 0", "odd": "x % 2 == 1", "negative": "x < 0", "positive": "x > 0"}
_CONDITIONS = {
    f"{test}_{name}": Step(
        words=f"if it is {test} {step.words}", code=f"{step.code} if {check} else x", constants=step.constants
    )
    for test, check in _TESTS.items()
    for name, step in _NUMBERS.items()
    if name in ("add", "subtract", "multiply", "negate", "square")
}
_LISTS = {
    "keep_even": Step(words="keep the even ones", code="[v for v in x if v % 2 == 0]"),
    "keep_odd": Step(words="keep the odd ones", code="[v for v in x if v % 2 == 1]"),
    "keep_above": Step(words="keep those above {k}", code="[v for v in x if v > {k}]", constants=_K),
    "add_each": Step(words="add {k} to each", code="[v + {k} for v in x]", constants=_K),
    "multiply_each": Step(words="multiply each by {k}", code="[v * {k} for v in x]", constants=_K),
    "square_each": Step(words="square each", code="[v * v for v in x]"),
    "reverse": Step(words="reverse the order", code="x[::-1]"),
    "sort": Step(words="sort upwards", code="sorted(x)"),
    "sort_down": Step(words="sort downwards", code="sorted(x, reverse=True)"),
    "unique": Step(words="drop repeated values", code="list(dict.fromkeys(x))"),
    "first": Step(words="keep the first {k}", code="x[:{k}]", constants=(1, 2, 3, 4)),
    "last": Step(words="keep the last {k}", code="x[-{k}:]", constants=(1, 2, 3, 4)),
    "sum": Step(words="sum up", code="sum(x)", ends=True),
    "largest": Step(words="take the largest or 0", code="max(x, default=0)", ends=True),
    "count": Step(words="count them", code="len(x)", ends=True),
}
_TEXTS = {
    "reverse": Step(words="reverse", code="x[::-1]"),
    "upper": Step(words="make upper case", code="x.upper()"),
    "lower": Step(words="make lower case", code="x.lower()"),
    "swap": Step(words="swap the case", code="x.swapcase()"),
    "first": Step(words="keep the first {k} characters", code="x[:{k}]", constants=(2, 3, 4, 5)),
    "drop": Step(words="drop the first {k} characters", code="x[{k}:]", constants=(1, 2, 3)),
    "every": Step(words="keep every character at a multiple of {k}", code="x[::{k}]", constants=(2, 3)),
    "repeat": Step(words="repeat {k} times", code="x * {k}", constants=(2, 3)),
    "remove": Step(words="remove the letter {k}", code='x.replace("{k}", "")', constants=tuple("aeiort")),
    "double": Step(words="double each character", code='"".join(c * 2 for c in x)'),
    "length": Step(words="take the length", code="len(x)", ends=True),
    "vowels": Step(words="count the lower case vowels", code='sum(c in "aeiou" for c in x)', ends=True),
}
_WORD_LISTS = {
    "longer": Step(words="keep words longer than {k}", code="[w for w in x if len(w) > {k}]", constants=(1, 2, 3, 4)),
    "containing": Step(words="keep words with {k}", code='[w for w in x if "{k}" in w]', constants=tuple("aeiort")),
    "capital": Step(words="capitalise each", code="[w.capitalize() for w in x]"),
    "sort": Step(words="sort by the alphabet", code="sorted(x)"),
    "by_length": Step(words="sort by length", code="sorted(x, key=len)"),
    "unique": Step(words="drop repeated words", code="list(dict.fromkeys(x))"),
    "join": Step(words="join with {k}", code='"{k}".join(x)', constants=("-", "+", "/"), ends=True),
    "count": Step(words="map each word to its count", code="{w: x.count(w) for w in x}", ends=True),
    "lengths": Step(words="map each word to its length", code="{w: len(w) for w in x}", ends=True),
    "group": Step(
        words="map each first letter to its words", code="{w[0]: [v for v in x if v[0] == w[0]] for w in x}", ends=True
    ),
}
_LETTERS, _SOME_WORDS = (
    "aeiortnsAEIORT",
    [
        "a",
        "to",
        "tea",
        "tear",
        "rate",
        "eat",
        "oat",
        "store",
        "ore",
        "trio",
        "iota",
        "rotate",
        "tie",
        "aorta",
        "ratio",
        "it",
    ],
)


def _text(rng: random.Random) -> str:
    return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(0, 9)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Steps over one type of value, and how an input is drawn."""

    says: str
    steps: dict[str, Step]
    draw: Callable[[random.Random], Any]


FAMILIES: dict[str, Family] = {
    "numbers": Family(says="x is a whole number", steps=_NUMBERS, draw=lambda rng: rng.randint(-30, 30)),
    "conditions": Family(says="x is a whole number", steps=_CONDITIONS, draw=lambda rng: rng.randint(-30, 30)),
    "lists": Family(
        says="x is a list of whole numbers",
        steps=_LISTS,
        draw=lambda rng: [rng.randint(-9, 15) for _ in range(rng.randint(0, 9))],
    ),
    "texts": Family(says="x is a text", steps=_TEXTS, draw=_text),
    "words": Family(
        says="x is a list of words",
        steps=_WORD_LISTS,
        draw=lambda rng: [rng.choice(_SOME_WORDS) for _ in range(rng.randint(0, 7))],
    ),
    "recurrences": Family(
        says="x is a whole number, 0 or more",
        steps={name: _NUMBERS[name] for name in ("add", "subtract", "multiply", "square", "negate", "remainder")},
        draw=lambda rng: rng.randint(0, 12),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """What `f(x)` is to do. `steps` holds (name, constant); a recurrence has a start value besides."""

    family: str
    steps: tuple[tuple[str, Any], ...]
    start: int = 0

    @property
    def words(self) -> str:
        """In words: `add 3 then square`."""
        known = FAMILIES[self.family].steps
        chain = " then ".join(known[name].words.format(k=k) for name, k in self.steps)
        if self.family != "recurrences":
            return chain
        return f"start with {self.start} and repeat x times : {chain} then take the remainder by 97"

    def code(self, *, compact: bool = False) -> str:
        """The reference implementation; `compact` on one line."""
        known = FAMILIES[self.family].steps
        # Not `format`: a mapping's braces are code.
        steps = [known[name].code.replace("{k}", str(k)) for name, k in self.steps]
        if self.family == "recurrences":
            body = [f"n, x = x, {self.start}", "for _ in range(n):", *(f"    x = {s}" for s in steps), "    x = x % 97"]
            return "\n".join(["def f(x):", *(f"    {line}" for line in body), "    return x"])
        if compact:
            return "; ".join(["def f(x): " + "".join(f"x = {s}; " for s in steps[:-1]) + f"return {steps[-1]}"])
        return "\n".join(["def f(x):", *(f"    x = {s}" for s in steps), "    return x"])

    def call(self, x: Any) -> Any:
        """What the reference gives."""
        return _function(self.code())(x)

    def cases(self, count: int, purpose: str) -> list[Case]:
        """`count` different inputs with what the reference gives; the purpose names the draw."""
        rng, found = random.Random(f"{purpose}/{self.family}/{self.words}"), dict[str, Case]()
        for _ in range(20 * count):
            x = FAMILIES[self.family].draw(rng)
            found.setdefault(repr(x), Case(args=(x,), expected=self.call(x)))
            if len(found) == count:
                break
        return list(found.values())

    def as_params(self) -> dict[str, Any]:
        """The specification as a task's params; `from_params` reads them."""
        return {"family": self.family, "steps": [list(step) for step in self.steps], "start": self.start}


def from_params(params: Any) -> Specification:
    """The specification of a task. Params come from disk as well: nothing but what `as_params` writes is believed.

    Raises:
        DataError: another family, step, constant, start or order than this world draws, or steps without end.
    """
    family, steps, start = (params.get(key) for key in ("family", "steps", "start"))
    known = FAMILIES.get(family) if isinstance(family, str) else None
    if known is None:
        raise DataError(f"the task names the family {_short(family)}; expected one of {', '.join(FAMILIES)}")
    if not isinstance(steps, list | tuple) or not 1 <= len(steps) <= MAX_STEPS:
        raise DataError(
            f"the task's steps are {_short(steps)}; expected 1 to {MAX_STEPS} pairs of a name and a constant"
        )
    found = tuple(_checked_step(known, step, last=place == len(steps)) for place, step in enumerate(steps, 1))
    starts: Sequence[Any] = range(1, 10) if family == "recurrences" else (0,)
    if not _is_one_of(start, starts):
        raise DataError(f"the task starts with {_short(start)}; a task of {family} starts with {_short(list(starts))}")
    if _growth(found) > MAX_GROWTH:
        raise DataError(f"the task's steps {_short(steps)} grow beyond all reason; this world draws none like them")
    return Specification(family=str(family), steps=found, start=start)


def _checked_step(family: Family, step: Any, *, last: bool) -> tuple[str, Any]:
    """(name, constant) of one step as it is in the tables: the constant becomes part of a program."""
    name, constant = step if isinstance(step, list | tuple) and len(step) == 2 else (None, None)
    known = family.steps.get(name) if isinstance(name, str) else None
    if known is None or (known.ends and not last):
        raise DataError(f"the task has the step {_short(step)} where {family.says}; there is none of that name here")
    if not _is_one_of(constant, known.constants):
        raise DataError(
            f"the task's step {name!r} has the constant {_short(constant)}; expected one of {known.constants}"
        )
    return str(name), constant


def _is_one_of(value: Any, known: Sequence[Any]) -> bool:
    """Equal and of the same type: True is no 1, and nothing of a stranger's class compares."""
    return any(type(value) is type(one) and value == one for one in known)


def _growth(steps: Sequence[tuple[str, Any]]) -> int:
    """By how much the steps lengthen a value at most: digits by squaring, characters by repeating."""
    factors = [k if name == "repeat" else 2 for name, k in steps if name in ("repeat", "double") or "square" in name]
    return math.prod(factors)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def _function(code: str) -> Callable[[Any], Any]:
    """The reference, compiled here: it is our own text, made from the tables above."""
    space: dict[str, Any] = {}
    exec(code, space)
    found: Callable[[Any], Any] = space["f"]
    return found


def behaviour(spec: Specification) -> str:
    """A hash of the outputs on the family's probes: equal for equal functions, whatever their words are."""
    outputs = [encode(spec.call(x)) for x in _probes(spec.family)]
    return hashlib.sha256(json.dumps([spec.family, outputs]).encode()).hexdigest()


@cache
def _probes(family: str) -> list[Any]:
    rng = random.Random(f"probes/{family}")
    return [FAMILIES[family].draw(rng) for _ in range(PROBES)]


def split_of(key: str) -> Split:
    """Eight tenths of all behaviours are for training, one each for validation and test."""
    bucket = int(key[:8], 16) % 10
    return "validation" if bucket == 0 else "test" if bucket == 1 else "train"


def specifications(family: str, difficulty: int, split: Split, count: int) -> list[Specification]:
    """The first `count` specifications of a split, fewer where the family has no more of that difficulty."""
    return [spec for spec, home in _stream(family, difficulty, 60 * count) if home == split][:count]


@cache
def _stream(family: str, difficulty: int, tries: int) -> tuple[tuple[Specification, Split], ...]:
    rng, seen, found = random.Random(f"{family}/{difficulty}"), set[str](), list[tuple[Specification, Split]]()
    for _ in range(tries):
        spec = _draw(family, difficulty, rng)
        key = behaviour(spec)
        if key not in seen and not _is_trivial(spec):
            seen.add(key)
            found.append((spec, split_of(key)))
    return tuple(found)


def _draw(family: str, difficulty: int, rng: random.Random) -> Specification:
    steps: list[tuple[str, Any]] = []
    for name in _chain(FAMILIES[family].steps, difficulty, rng):
        steps.append((name, rng.choice(FAMILIES[family].steps[name].constants)))
    return Specification(family=family, steps=tuple(steps), start=rng.randint(1, 9) if family == "recurrences" else 0)


def _chain(known: dict[str, Step], length: int, rng: random.Random) -> Iterator[str]:
    open_steps: Sequence[str] = [name for name, step in known.items() if not step.ends]
    for i in range(length):
        yield rng.choice(list(known) if i == length - 1 else open_steps)


def _is_trivial(spec: Specification) -> bool:
    """Constant, or gives back what it got."""
    probes = _probes(spec.family)
    outputs = [spec.call(x) for x in probes]
    return len({repr(y) for y in outputs}) == 1 or outputs == probes
