"""Which families of reasoning-gym there are here, and what the rule of each may be shown of an answer.

Every rule of version 0.1.25 was read. Most compare texts, or turn the answer into a number or JSON; nine evaluate it
(`eval`, sympy's parser). A family that is not named here has not been read and is refused: its rule might evaluate too.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollwright.contracts import ConfigError, RollwrightError
from rollwright.envs.code.problems.answers import NotAllowed, exact_value, expression, literal, number
from rollwright.envs.code.sandbox.rules import rule

_TEXT = """ab acre aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation caesar_cipher circuit_logic
codeio color_cube_rotation count_bits count_primes course_schedule dice emoji_mystery family_relationships figlet_font
futoshiki game_of_life gcd group_anagrams isomorphic_strings jugs kakurasu knight_swap knights_knaves largest_island lcm
leg_counting letter_counting letter_jumble list_functions mahjong_puzzle manipulate_matrix maze mini_sudoku modulo_grid
needle_haystack number_filtering number_sequence palindrome_generation palindrome_partitioning path_star quantum_lock
ransom_note rearc rotate_matrix rotten_oranges self_reference sentence_reordering shortest_path simple_equations
simple_geometry sokoban spell_backward string_manipulation string_splitting string_synthesis sudoku syllogism
tower_of_hanoi tsumego word_ladder word_sequence_reversal word_sorting zebra_puzzles"""
_NUMBER = """advanced_geometry bitwise_arithmetic calendar_arithmetic chain_sum complex_arithmetic cryptarithm
decimal_arithmetic decimal_chain_sum fraction_simplification gsm_symbolic number_format number_sorting
polynomial_equations pool_matrix power_function prime_factorization products rectangle_count survo time_intervals"""
_LITERAL = "binary_matrix n_queens spiral_matrix string_insertion"
_ARITHMETIC = "countdown puzzle24"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"),
        "it stores no answer that its own rule accepts",
    ),
    "game_of_life_halting": "its rule takes any answer for right",
    "coin_flip": "its rule takes 0, which begins every probability, for right",
    "composite": "it only passes on to other families; name those",
}
_FUNCTIONS = "sin cos tan cot sec csc exp log ln sqrt asin acos atan acot sinh cosh tanh Abs"
_INTEGRALS = ("simple_integration", "intermediate_integration")

Grammar = Callable[[str], str]


def _polynomial(text: str) -> str:
    return expression(text, names=tuple(string.ascii_letters))


def _integral(text: str) -> str:
    return expression(text, names=(*string.ascii_letters, "pi"), functions=_FUNCTIONS.split())


GRAMMARS: Mapping[str, Grammar] = {
    **dict.fromkeys(_TEXT.split(), str),
    **dict.fromkeys(_NUMBER.split(), number),
    **dict.fromkeys(_LITERAL.split(), literal),
    **dict.fromkeys(_ARITHMETIC.split(), expression),
    "polynomial_multiplication": _polynomial,
    **dict.fromkeys(_INTEGRALS, _integral),
}


def check(family: str) -> None:
    """Whether the family can be used.

    Raises:
        ConfigError: it cannot; says why.
    """
    if family in REFUSED:
        raise ConfigError(f"code.maths cannot use the family {family!r}: {REFUSED[family]}")
    if family not in GRAMMARS:
        raise ConfigError(
            f"code.maths has no family {family!r}: only those are usable whose rules were read and found to evaluate "
            f"nothing that the policy wrote: {', '.join(sorted(GRAMMARS))}"
        )


def score(family: str, answer: str, entry: Mapping[str, Any], dataset: Any) -> float:
    """The rule's score in [0, 1]; 0 for what the grammar does not let through or the rule cannot read."""
    try:
        shown = answer if answer in _right_texts(entry) else GRAMMARS[family](answer)
        if family in _INTEGRALS:
            return _score_integral(shown, entry)
        if family == "puzzle24" and not _makes_24(shown, entry["metadata"]["numbers"]):
            return 0.0
        found = float(dataset.score_answer(shown, entry))
    except NotAllowed:
        return 0.0
    except RollwrightError:  # no process to judge in: a fault, never a verdict
        raise
    except Exception:  # rules parse what they are shown with whatever parser they like
        return 0.0
    return min(1.0, max(0.0, found)) if math.isfinite(found) else 0.0


def _makes_24(shown: str, given: Sequence[int]) -> bool:
    """The package's own rule takes any four numbers, and 24.9 for 24: one answer would be right for all problems."""
    used = sorted(int(digits) for digits in re.findall(r"\d+", shown))
    return used == sorted(given) and exact_value(shown) == 24


def _score_integral(shown: str, entry: Mapping[str, Any]) -> float:
    """1 for an integral of the integrand, else 0; to simplify the difference may need more than the limits allow."""
    metadata = entry["metadata"]
    called = rule("rollwright.envs.code.problems.integral_rule", ("sympy", "mpmath"))(
        "is_integral", shown, metadata["variable"], metadata["integrand"]
    )
    return float(called.how == "value" and called.value is True)


def _right_texts(entry: Mapping[str, Any]) -> set[str]:
    """Texts of the package's own, which its rule may be shown as they are."""
    others = entry.get("metadata", {}).get("valid_answers", ())
    return {str(text).strip() for text in (entry["answer"], *others)}
