"""Equality of two mathematical answers by math-verify, as it runs in a box: some texts take for ever, or all memory.

math-verify's own time limits are alarms, which only the main thread can set; here the process has the limit.
Imports math-verify and the standard library only.
"""

from __future__ import annotations

import logging

import math_verify

logging.disable(logging.CRITICAL)  # it warns of every text that it is given without a time limit


def same_answers(texts: list[str], answer: str) -> list[bool] | None:
    """Whether the answer in each text equals `answer`; None where `answer` itself cannot be read."""
    # math-verify reads LaTeX only between dollar signs; plain numbers it finds without.
    gold = _parse(answer) or _parse(f"${answer}$")
    if not gold:
        return None
    return [_same(text, gold) for text in texts]


def _same(text: str, gold: list[object]) -> bool:
    try:
        # The expected answer comes first: the comparison is not symmetric.
        return bool(math_verify.verify(gold, _parse(text), timeout_seconds=None))
    except Exception:  # nested too deeply, say
        return False


def _parse(text: str) -> list[object]:
    found: list[object] = math_verify.parse(text, parsing_timeout=None)
    return found


# What the first calls load and learn (the grammar's tables, sympy's caches) is there before any run.
for _text, _answer in (
    ("The answer is $\\frac{1}{2}$", "0.5"),
    ("so $x=\\frac{1}{7}$", "1/7"),
    ("so \\boxed{x^2 + 3x}", "x(x+3)"),
    ("$\\sqrt{12}$, $y = 2\\cdot 10^{3}$ and \\{1, 2\\}", "2\\sqrt{3}"),
    ("I think 3.25 or 13/4", "13/4"),
    ("$(1, 2]$ or $\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}$", "(1,2]"),
    ("$x < 5$, 50\\%, $\\pi r^2$, $\\sin(x)$, $\\log_2 8$", "3"),
):
    same_answers([_text], _answer)
