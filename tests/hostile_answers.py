"""Texts that a policy might write to run code, to stall or to blow up whoever judges them."""

from __future__ import annotations

from pathlib import Path


def running(mark: Path) -> list[str]:
    """Texts that create the file `mark` where somebody evaluates, compiles, formats or unpickles them."""
    run, opened = f"__import__('os').system('touch {mark}')", f"open('{mark}', 'w')"
    names = "Symbol('x').__class__.__init__.__globals__['__builtins__']['eval']"
    return [
        run, opened, f"[{run}]", f"({run},)", f"[[{run}]]", f"{{'a': {run}}}", f"''.join([{opened}.name])",
        f"[x for x in [{run}]]", f"(lambda: {run})()", f'{names}("{run}")', f'sympify("{run}")', f'parse_expr("{run}")',
        f'eval("{run}")', f'exec("{run}")', f"lambdify(x, x)({opened})", f"1 if {run} else 2", f"f'{{{run}}}'",
        f"${run}$", f"\\boxed{{{run}}}", f'S("{run}")', f"{run}+1", f"24+0*{run}", f'x.subs(x, "{run}")',
        f"x**2 + {run}",
        f"!!python/object/apply:os.system ['touch {mark}']", f"cos\nsystem\n(S'touch {mark}'\ntR.",
        "{{''.__class__.__mro__[1].__subclasses__()}}", "%(x)s {0.__class__} {}", f"$(touch {mark})",
        f"; touch {mark} ;",
        f"`touch {mark}`", str(mark), f"file://{mark}", "../../../../etc/passwd",
    ]  # fmt: skip


HEAVY = (
    "$9^{9^{9}}$", "$99999999!$", "$(x+y+z+w+v)^{200}$", "$\\binom{10^9}{5\\cdot 10^8}$", "$\\sin(10^{10^{10}})$",
    "$(1+x)^{10000}$", "$1" + "\\cdot 9^{9^9}" * 3 + "$", "$" + "(" * 3000 + "1" + ")" * 3000 + "$",
)  # fmt: skip
"""Mathematics that its judge cannot finish: each costs the whole limit."""

LONG = (
    "9**9**9", "9^{9^{9}}", "99999999!", "(x+y+z+w+v)**200", "(" * 3000 + "1" + ")" * 3000, "[" * 4000 + "]" * 4000,
    "{" * 4000, "-" * 4900 + "1", "~" * 4900 + "1", "not " * 1200 + "1", "1" + "+1" * 2400, "1" + "**1" * 1600,
    "1" + "-(1" * 900 + ")" * 900, "x" + ".a" * 2000, "f" + "()" * 2000, "a" + "[0]" * 1500, "1e999999999",
    "1e-999999999", "1E+99999999999999", "1e9_999_999_9", "9" * 4290, "9" * 4990, "0x" + "f" * 4900, "1/" + "9" * 4200,
    "nan", "-inf", "Infinity", "nan+nanj", "nani", "(nan, nan)", "[NaN, NaN, NaN]", '["nan", "nan", "nan"]', "1/0",
    "0**-1", "\\frac{1}{0}", "1e308*10", "１２", "²", "½", "é" * 2000, "\x00" * 100, "\ud800" * 10, "\u202e1",
    "a\n" * 2400, "\n" * 4000, " " * 4000 + "1", "<answer>" * 60_000, "<answer>1</answer>" * 200, "</answer>" * 500,
    "```" * 20_000, "```\n" * 1200, "`" * 100_000, "```python\n" + "assert 1\n" * 500 + "```", "\\frac" * 900,
    "\\sqrt{" * 300 + "1" + "}" * 300, "$" + "1," * 1200 + "$", "$" * 5000, "\\(" * 500, "$a$ and " * 300,
    "final answer is " * 300, "answer: " * 600 + "1", "1 " * 1200, "1 000 000 " * 400, "=1" * 1200, '{"a":' * 900 + "1",
    '{"a":1e400}', "fill A " * 600, "A" * 4999, "UDLR" * 1200, "Move disk 1 from Peg 1 to Peg 2\n" * 150,
    "Move disk " + "9" * 4000 + " from Peg 1 to Peg 2", "A=1," * 1200, "×".join(["9" * 40] * 100), "9" * 4000 + ":1",
    "Q _ " * 1200, "0 1\n" * 1200, "R99999999", "assert " + "-" * 1200 + "1", "verdict" * 5000, "!" * 50_000,
    "def test_a():\n    assert " + "-" * 1200 + "f(1)", "def test_a():\n" + "    assert f(1) == 1\n" * 1600,
    "class A:\n" * 900, "#" * 4999, "'''" * 1600, "lambda:" * 700 + "1", "f(" * 190 + ")" * 190,
    "a if b else " * 300 + "c",
    "import os; os._exit(0)", "raise SystemExit", "def f(x): return f(x)", "def f(x): return [0] * 10**12",
    "<think>t</think><solution>" + "```\n### a.py\n<<<<<<< SEARCH\nx\n=======\n" * 2000 + "</solution>",
    "<think>t</think><solution>" + "```\n### a.py\n<<<<<<< SEARCH\nx\n=======\nx\nx\n>>>>>>> REPLACE\n```\n" * 40
    + "</solution>",
    "<think>t</think><solution>```\n### a.py\n<<<<<<< SEARCH\n    \n=======\n" + "y" * 300_000
    + "\n>>>>>>> REPLACE\n```</solution>",
)  # fmt: skip
"""Texts that are long, deep, or no numbers: nested without end, cubic for a regular expression, never finite."""
