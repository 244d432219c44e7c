"""`rollwright rules`: read temporal formulas over a world's events, say what they mean there, and let them vote."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from rollwright.cli.argument_types import key_values
from rollwright.contracts import ConfigError, NamesEvents

if TYPE_CHECKING:
    from rollwright.maths.temporal import Automaton, FormulaVote, Step


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright rules`."""
    parser.add_argument("name", metavar="WORLD", help="a world that names events, such as text.household")
    parser.add_argument("formulas", metavar="FORMULA", nargs="*", help='a rule, such as "F put & (!put U heat)"')
    parser.add_argument("--option", metavar="KEY=VALUE", action="append", default=[], help="an option of the world")
    parser.add_argument(
        "--any", action="store_true", help="any set of events may happen in one step; without it exactly one does"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the events, what each rule allows at first, and which rules mean the same.

    Raises:
        ConfigError: the world names no events, or none of the formulas can be read.
    """
    from rollwright.maths.temporal import any_events, single_events, vote_on_formulas

    events = _events(arguments.name, key_values(arguments.option))
    print(f"events of {arguments.name}: {', '.join(events)}")
    texts = list(dict.fromkeys(arguments.formulas))
    steps = any_events(events[:_MANY]) if arguments.any else single_events(events)
    if arguments.any and len(events) > _MANY:
        raise ConfigError(f"--any works with {_MANY} events at most, and {arguments.name} has {len(events)}")
    _describe(texts, steps)
    if len(texts) > 1:
        _tell(vote_on_formulas(texts, steps), texts)


def _events(name: str, options: dict[str, Any]) -> tuple[str, ...]:
    from rollwright.config import create

    world = create("envs", name, options)
    close = world.close
    try:
        if not isinstance(world, NamesEvents):
            raise ConfigError(f"{name} names no events: rules are checked in text.household and text.maze")
        return world.events
    finally:
        close()


_MANY = 10
"""2 ** 10 steps are tried in each state."""


def _describe(texts: list[str], steps: tuple[Step, ...]) -> None:
    from rollwright.maths.temporal import automaton_of, parse_formula

    problems = []
    for text in texts:
        try:
            made = automaton_of(parse_formula(text), steps)
        except ValueError as error:
            problems.append(f"{text!r} is left out: {error}")
            continue
        print(f"\n{text}\n  {_summary(made)}")
    if texts and len(problems) == len(texts):
        raise ConfigError(" ".join(problems))
    for problem in problems:
        print(f"\n{problem}")


def _summary(made: Automaton) -> str:
    if math.isinf(made.distance[0]):
        return "nobody can keep this rule: no sequence of events fulfils it"
    at_once = [" and ".join(sorted(step)) or "nothing" for step in made.steps if step not in made.allowed(0, math.inf)]
    broken = f"broken at once by {', '.join(at_once)}" if at_once else "no first event breaks it"
    least = max(1, int(made.distance[0]))
    return f"{len(made.moves)} states; can be kept in {least} {'step' if least == 1 else 'steps'}; {broken}"


def _tell(vote: FormulaVote, texts: list[str]) -> None:
    print()
    for members in vote.classes:
        same = f"{len(members)} of one meaning" if len(members) > 1 else "1 alone"
        print(f"{same}: {'  |  '.join(texts[number] for number in members)}")
    winner: Any = vote.winner
    print(f"the vote goes to: {texts[winner]}")
