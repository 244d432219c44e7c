"""Rules over the order of events: temporal formulas on finite traces, their automata, and votes by meaning."""

from rollwright.maths.temporal.automata import Automaton, Step, any_events, automaton_of, equivalent, single_events
from rollwright.maths.temporal.formulas import Formula, negated, parse_formula
from rollwright.maths.temporal.votes import FormulaVote, vote_on_formulas

__all__ = [
    "Automaton",
    "Formula",
    "FormulaVote",
    "Step",
    "any_events",
    "automaton_of",
    "equivalent",
    "negated",
    "parse_formula",
    "single_events",
    "vote_on_formulas",
]
