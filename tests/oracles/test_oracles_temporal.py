"""Temporal rules against the worked numbers of their source, and against a slow reading of the semantics."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from rollwright.maths.temporal import (
    any_events,
    automaton_of,
    equivalent,
    negated,
    parse_formula,
    single_events,
    vote_on_formulas,
)
from rollwright.maths.temporal.formulas import Both, Either, Formula, Literal, Next, Release, Truth, Until

EVENTS = single_events("thpc")
RULE = "F p & (!p U h) & G !c"
SENTENCES = [
    RULE,
    "(!p U h) & F p & !(F c)",
    "F (h & F p) & G !c",
    "!(F c) & F p & (h R !p)",
    "F p & (!p U h & G !c",
]


def holds(formula: Formula, trace: list[frozenset[str]], at: int = 0) -> bool:
    """The semantics read off its definition, step by step."""
    later = range(at, len(trace))
    match formula:
        case Truth(value):
            return value
        case Literal(name, positive):
            return (name in trace[at]) is positive
        case Both(left, right):
            return holds(left, trace, at) and holds(right, trace, at)
        case Either(left, right):
            return holds(left, trace, at) or holds(right, trace, at)
        case Next(inside, weak):
            return holds(inside, trace, at + 1) if at + 1 < len(trace) else weak
        case Until(left, right):
            return any(holds(right, trace, j) and all(holds(left, trace, i) for i in range(at, j)) for j in later)
        case Release(left, right):
            return all(holds(right, trace, j) or any(holds(left, trace, i) for i in range(at, j)) for j in later)


def drawn(rng: random.Random, depth: int) -> str:
    """A random formula."""
    if depth == 0:
        return rng.choice(["t", "h", "p", "c", "true", "false"])
    sign = rng.choice(["!", "X", "WX", "F", "G", "&", "|", "->", "<->", "U", "R"])
    if sign in ("!", "X", "WX", "F", "G"):
        return f"{sign} ({drawn(rng, depth - 1)})"
    return f"({drawn(rng, depth - 1)}) {sign} ({drawn(rng, depth - 1)})"


def test_the_automaton_has_the_states_and_distances_of_the_source() -> None:
    made = automaton_of(parse_formula(RULE), EVENTS)
    assert len(made.moves) == 4
    assert made.distance[0] == 2
    assert [made.distance[made.run(trace)] for trace in ("h", "hp", "p")] == [1, 0, math.inf]


@pytest.mark.parametrize(
    ("trace", "verdict"),
    [
        ("thp", "currently satisfied"),
        ("hp", "currently satisfied"),
        ("hpt", "currently satisfied"),
        ("thtp", "currently satisfied"),
        ("th", "currently violated"),
        ("tph", "permanently violated"),
        ("tp", "permanently violated"),
        ("hpc", "permanently violated"),
        ("tchp", "permanently violated"),
    ],
)
def test_verdicts_of_the_source(trace: str, verdict: str) -> None:
    made = automaton_of(parse_formula(RULE), EVENTS)
    assert made.verdict(made.run(trace)) == verdict


def test_what_has_happened_once_stays_fulfilled() -> None:
    made = automaton_of(parse_formula("F p"), EVENTS)
    assert made.verdict(made.run("p")) == "permanently satisfied"


def test_the_vote_depends_on_the_alphabet_as_in_the_source() -> None:
    one = vote_on_formulas(SENTENCES, EVENTS)
    assert one.classes == ((0, 1, 3), (2,))
    assert (one.winner, one.void) == (0, (4,))
    # h and p in one step part the first and the fourth.
    assert vote_on_formulas(SENTENCES, any_events("thpc")).classes == ((0, 1), (2,), (3,))
    assert vote_on_formulas(["((", ""], EVENTS).winner is None


def test_two_formulas_part_at_a_trace() -> None:
    first, third = (automaton_of(parse_formula(SENTENCES[i]), EVENTS) for i in (0, 2))
    assert not equivalent(first, third)
    assert (first.accepting[first.run("php")], third.accepting[third.run("php")]) == (False, True)


@pytest.mark.parametrize(
    ("turns", "allowed"),
    [(9, ["th", "th", "thp", "thp"]), (math.inf, ["th", "th", "thp", "thp"]), (3, ["th", "h", "p"]), (2, ["h", "p"])],
)
def test_masks_leave_the_steps_from_which_the_rule_can_be_fulfilled(turns: float, allowed: list[str]) -> None:
    made = automaton_of(parse_formula(RULE), EVENTS)
    trace = "thp" if turns > 2 else "hp"
    found = ["".join(e for s in made.allowed(made.run(trace[:i]), turns - i) for e in s) for i in range(len(allowed))]
    assert found == allowed


def test_a_step_that_ends_the_trace_must_fulfil_the_rule_at_once() -> None:
    made = automaton_of(parse_formula("F p & F h"), EVENTS)
    put = frozenset("p")
    assert put in made.allowed(0, 5)
    assert put not in made.allowed(0, 5, ending=[put])
    assert put in made.allowed(made.run("h"), 5, ending=[put])


@pytest.mark.parametrize(("trace", "paid"), [("thp", [0, 1, 1]), ("tp", [0, -1])])
def test_shaping_pays_the_difference_of_potentials(trace: str, paid: list[float]) -> None:
    made = automaton_of(parse_formula(RULE), EVENTS)
    potentials = [made.potential(made.run(trace[:i])) for i in range(len(trace) + 1)]
    assert [b - a for a, b in itertools.pairwise(potentials)] == paid


@pytest.mark.parametrize(
    ("text", "trace", "accepted"),
    [
        ("X p", "t", False),
        ("WX p", "t", True),
        ("G (l -> X !l)", "l", False),
        ("G (l -> WX !l)", "l", True),
        ("G (o -> F k)", "o", False),
        ("G (o -> F k)", "oxk", True),
        ("G (o -> F k)", "oko", False),
    ],
)
def test_the_end_of_a_trace(text: str, trace: str, accepted: bool) -> None:
    made = automaton_of(parse_formula(text), single_events("tploxk"))
    assert made.accepting[made.run(trace)] is accepted


def test_true_allows_everything() -> None:
    made = automaton_of(parse_formula("true"), EVENTS)
    assert made.allowed(0, 1) == list(EVENTS)
    assert made.accepting[made.run("t")]


@pytest.mark.parametrize("steps", [EVENTS, any_events("tp")])
def test_random_formulas_agree_with_a_slow_reading_of_the_semantics(steps: tuple[frozenset[str], ...]) -> None:
    rng = random.Random(7)
    names = {name for step in steps for name in step}
    for _ in range(60):
        formula = parse_formula(drawn(rng, 3))
        if not {part for part in "thpc" if f"'{part}'" in repr(formula)} <= names:
            continue
        made = automaton_of(formula, steps)
        opposite = automaton_of(negated(formula), steps)
        for _ in range(40):
            trace = [rng.choice(steps) for _ in range(rng.randint(1, 5))]
            assert made.accepting[made.run(trace)] is holds(formula, trace), (formula, trace)
            assert opposite.accepting[opposite.run(trace)] is not holds(formula, trace)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "F",
        "p q",
        "(p",
        "p)",
        "p &",
        "& p",
        "p U",
        "1p",
        "p; q",
        "!" * 100 + "p",
        "p & " * 600 + "p",
        "U p",
        "G\x00",
    ],
)
def test_what_is_no_formula_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ValueError, match="formula"):
        parse_formula(text)


def test_a_formula_that_needs_too_many_states_is_refused() -> None:
    names = [f"e{i}" for i in range(16)]
    text = " & ".join(f"F {name}" for name in names)
    with pytest.raises(ValueError, match="split it into several rules"):
        automaton_of(parse_formula(text), single_events(names))


def test_a_short_text_of_very_many_alternatives_is_refused_before_they_are_made() -> None:
    names = [f"e{i}" for i in range(24)]
    text = " & ".join(f"(F {a} | G {b})" for a, b in itertools.pairwise(names))
    with pytest.raises(ValueError, match="alternatives: split it into several rules"):
        automaton_of(parse_formula(text), single_events(names))


def test_a_name_that_no_step_has_is_refused_with_the_events_that_there_are() -> None:
    with pytest.raises(ValueError, match="room_10; the events are"):
        automaton_of(parse_formula("G !room_10"), single_events(["room_1", "room_2"]))
