"""Several translations of one command vote by meaning: formulas that accept the same traces are one candidate.

Source: arXiv:2409.19471 (equivalence voting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollwright.maths.temporal.automata import Automaton, Step, automaton_of, equivalent
from rollwright.maths.temporal.formulas import parse_formula


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaVote:
    """Classes of formulas of one meaning, as numbers of the texts, in the order in which they were opened.

    `winner` is the number of the text that stands for the largest class, the earlier one of equals; None where no text
    could be read. `void` are the numbers of the texts that could not.
    """

    classes: tuple[tuple[int, ...], ...]
    winner: int | None
    void: tuple[int, ...]


def vote_on_formulas(texts: Sequence[str], steps: Sequence[Step]) -> FormulaVote:
    """Let the texts vote, over the alphabet of one world: whether two formulas are equal depends on it."""
    classes: list[tuple[Automaton, list[int]]] = []
    void: list[int] = []
    for number, text in enumerate(texts):
        try:
            made = automaton_of(parse_formula(text), steps)
        except ValueError:
            void.append(number)
            continue
        same = next((members for first, members in classes if equivalent(first, made)), None)
        if same is None:
            classes.append((made, [number]))
        else:
            same.append(number)
    # `max` keeps the first of equals.
    largest = max((members for _, members in classes), key=len, default=None)
    return FormulaVote(
        classes=tuple(tuple(members) for _, members in classes),
        winner=None if largest is None else largest[0],
        void=tuple(void),
    )
