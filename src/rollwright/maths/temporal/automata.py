"""What a temporal formula still demands after each step: a deterministic automaton over the events of a world.

A state is what is still to be fulfilled, as alternatives of obligations ("or" of "ands", the larger of two that contain
each other left out): finite many, and equal for equal demands. After an event every obligation moves on by one step:

    a      -> whether a holds now             f U g -> g, or f and again f U g
    X f    -> f, and there is a next step     f R g -> g, and (f or again f R g)
    WX f   -> f, or there is no next step

A state accepts where some alternative holds only what need not be fulfilled any more: releases (G, R) and WX.
Source: arXiv:2409.19471 decodes plans under such an automaton; progression is the textbook construction.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Literal as OneOf

from rollwright.maths.temporal.formulas import (
    FALSE,
    TRUE,
    Both,
    Either,
    Formula,
    Literal,
    Next,
    Release,
    Truth,
    Until,
    names_of,
)

Obligations = frozenset[Formula]
Demand = frozenset[Obligations]
"""Alternatives: one of these sets of formulas must hold from the next step on."""
Step = frozenset[str]
"""The names that hold in one step."""
Verdict = OneOf["permanently satisfied", "currently satisfied", "currently violated", "permanently violated"]

MAX_STATES = 4_096
MAX_ALTERNATIVES = 512
_MET: Demand = frozenset({frozenset()})
_NEVER: Demand = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Automaton:
    """The automaton of one formula. States are numbers; 0 is the state before the first step.

    moves[q][s] is the state behind step number s of `steps`; accepting[q] whether a trace may end in q; distance[q] the
    least number of further steps to an accepting state, infinity where there is none (a dead state).
    """

    steps: tuple[Step, ...]
    moves: tuple[tuple[int, ...], ...]
    accepting: tuple[bool, ...]
    distance: tuple[float, ...]
    secure: tuple[bool, ...]
    """Whether nothing that can follow breaks the formula any more."""

    def after(self, state: int, step: Iterable[str]) -> int:
        """The state behind one more step.

        Raises:
            KeyError: the step is not of this automaton's alphabet.
        """
        wanted = frozenset(step)
        if wanted not in self.steps:
            raise KeyError(f"{sorted(wanted)} is no step of this automaton")
        return self.moves[state][self.steps.index(wanted)]

    def run(self, trace: Sequence[Iterable[str]]) -> int:
        """The state behind a whole trace."""
        state = 0
        for step in trace:
            state = self.after(state, step)
        return state

    def verdict(self, state: int) -> Verdict:
        """What is known of the formula in this state, one step or more behind the start."""
        if self.accepting[state]:
            return "permanently satisfied" if self.secure[state] else "currently satisfied"
        return "permanently violated" if math.isinf(self.distance[state]) else "currently violated"

    def potential(self, state: int) -> float:
        """-distance to acceptance; of a dead state one less than of the farthest other: a potential for shaping."""
        known = [d for d in self.distance if not math.isinf(d)]
        return -min(self.distance[state], max(known, default=0.0) + 1.0)

    def allowed(self, state: int, turns_left: float, *, ending: Iterable[Step] = ()) -> list[Step]:
        """The steps after which the formula can still be fulfilled.

        Args:
            turns_left: steps that may still be taken, this one included; infinity where nothing limits them.
            ending: steps that end the trace: those must lead to an accepting state at once.
        """
        last = set(ending)
        found = []
        for step, then in zip(self.steps, self.moves[state], strict=True):
            room = 0.0 if step in last else turns_left - 1
            # Without a limit of turns a dead state is as far away as the limit, and must not pass for near enough.
            if self.distance[then] <= room and not math.isinf(self.distance[then]):
                found.append(step)
        return found


def single_events(events: Iterable[str]) -> tuple[Step, ...]:
    """The alphabet in which exactly one event happens in each step."""
    return tuple(frozenset({event}) for event in events)


def any_events(events: Iterable[str]) -> tuple[Step, ...]:
    """The alphabet in which any set of events happens in a step, the empty one included."""
    names = tuple(events)
    return tuple(frozenset(some) for some in chain.from_iterable(combinations(names, n) for n in range(len(names) + 1)))


def automaton_of(formula: Formula, steps: Sequence[Step]) -> Automaton:
    """The automaton of a formula over an alphabet.

    Raises:
        ValueError: the formula names an event that no step has, or it is too large to be worked with.
    """
    known = frozenset(chain.from_iterable(steps))
    if strange := sorted(names_of(formula) - known):
        raise ValueError(f"the formula speaks of {', '.join(strange)}; the events are {', '.join(sorted(known))}")
    numbers: dict[Demand, int] = {_alternatives(formula): 0}
    waiting = deque(numbers)
    moves: list[tuple[int, ...]] = []
    while waiting:
        demand = waiting.popleft()
        row = []
        for step in steps:
            then = _progressed(demand, step)
            if then not in numbers:
                if len(numbers) >= MAX_STATES:
                    raise ValueError(f"the formula needs more than {MAX_STATES} states: split it into several rules")
                numbers[then] = len(numbers)
                waiting.append(then)
            row.append(numbers[then])
        moves.append(tuple(row))
    accepting = tuple(_accepts(demand) for demand in numbers)
    return Automaton(
        steps=tuple(steps),
        moves=tuple(moves),
        accepting=accepting,
        distance=_distances(moves, [q for q, yes in enumerate(accepting) if yes]),
        secure=tuple(map(math.isinf, _distances(moves, [q for q, yes in enumerate(accepting) if not yes]))),
    )


def equivalent(one: Automaton, other: Automaton) -> bool:
    """Whether two automata over one alphabet accept the same traces of one step or more.

    Raises:
        ValueError: the alphabets differ.
    """
    if one.steps != other.steps:
        raise ValueError("two automata are compared over one alphabet")
    seen = {(0, 0)}
    waiting = deque(seen)
    while waiting:
        p, q = waiting.popleft()
        for pair in zip(one.moves[p], other.moves[q], strict=True):
            # Behind a step only: before the first one there is no trace.
            if one.accepting[pair[0]] != other.accepting[pair[1]]:
                return False
            if pair not in seen:
                seen.add(pair)
                waiting.append(pair)
    return True


def _progressed(demand: Demand, step: Step) -> Demand:
    found: Demand = _NEVER
    for obligations in demand:
        met = _MET
        for formula in obligations:
            met = _and(met, _behind(formula, step))
        found = _or(found, met)
    return found


def _behind(formula: Formula, step: Step) -> Demand:
    """What a formula that must hold in this step demands of the next one on."""
    match formula:
        case Truth(value):
            return _MET if value else _NEVER
        case Literal(name, positive):
            return _MET if (name in step) is positive else _NEVER
        case Both(left, right):
            return _and(_behind(left, step), _behind(right, step))
        case Either(left, right):
            return _or(_behind(left, step), _behind(right, step))
        case Next(inside, True):
            return _or(_alternatives(inside), _alternatives(Release(FALSE, FALSE)))
        case Next(inside):
            return _and(_alternatives(inside), _alternatives(Until(TRUE, TRUE)))
        case Until(left, right):
            return _or(_behind(right, step), _and(_behind(left, step), _alternatives(formula)))
        case Release(left, right):
            return _and(_behind(right, step), _or(_behind(left, step), _alternatives(formula)))


def _alternatives(formula: Formula) -> Demand:
    """The formula as a demand on the next step: its own "and" and "or" are taken apart, so that equals are equal."""
    match formula:
        case Truth(value):
            return _MET if value else _NEVER
        case Both(left, right):
            return _and(_alternatives(left), _alternatives(right))
        case Either(left, right):
            return _or(_alternatives(left), _alternatives(right))
        case _:
            return frozenset({frozenset({formula})})


def _or(one: Demand, other: Demand) -> Demand:
    return _smallest(one | other)


def _and(one: Demand, other: Demand) -> Demand:
    # Before the product is made: a short text can ask for one that would take hours.
    if len(one) * len(other) > 16 * MAX_ALTERNATIVES:
        raise _too_many()
    return _smallest(frozenset(a | b for a in one for b in other))


def _smallest(demand: Demand) -> Demand:
    # Whoever fulfils the larger set fulfils the smaller one too, so the larger says nothing.
    kept: list[Obligations] = []
    for candidate in sorted(demand, key=len):
        if not any(smaller <= candidate for smaller in kept):
            kept.append(candidate)
        # At once: what is kept only grows, and each candidate is compared with all of it.
        if len(kept) > MAX_ALTERNATIVES:
            raise _too_many()
    return frozenset(kept)


def _too_many() -> ValueError:
    return ValueError(f"the formula has more than {MAX_ALTERNATIVES} alternatives: split it into several rules")


def _accepts(demand: Demand) -> bool:
    return any(all(isinstance(f, Release) or (isinstance(f, Next) and f.weak) for f in one) for one in demand)


def _distances(moves: Sequence[Sequence[int]], goals: Sequence[int]) -> tuple[float, ...]:
    """Least number of steps from each state to one of the goals, by a search backwards."""
    before: Mapping[int, set[int]] = {q: set() for q in range(len(moves))}
    for q, row in enumerate(moves):
        for then in row:
            before[then].add(q)
    found = {q: 0.0 for q in goals}
    waiting = deque(goals)
    while waiting:
        q = waiting.popleft()
        for earlier in before[q]:
            if earlier not in found:
                found[earlier] = found[q] + 1.0
                waiting.append(earlier)
    return tuple(found.get(q, math.inf) for q in range(len(moves)))
