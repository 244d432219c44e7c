"""The rule of reasoning-gym's integrals, as it runs in a box: is the answer's derivative the integrand?

Both texts are expressions that `answers.expression` wrote, or the package's own: sympy's parser evaluates. To simplify
a difference can take for ever, so this runs nowhere but under limits. Imports sympy and the standard library only.
"""

from __future__ import annotations

import sympy

sympy.simplify(sympy.diff(sympy.parse_expr("sin(x)*x")))  # what the first call loads is there before any run


def is_integral(answer: str, variable: str, integrand: str) -> bool:
    """Whether d/d`variable` of `answer` is `integrand`; `C` is a constant."""
    x = sympy.Symbol(variable)
    found = sympy.parse_expr(answer, local_dict={variable: x, "C": sympy.Symbol("C")})
    wanted = sympy.parse_expr(integrand, local_dict={variable: x})
    return bool(sympy.simplify(sympy.diff(found, x) - wanted) == 0)
