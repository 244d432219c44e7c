"""Answers as data: small grammars that a text must pass before a rule that evaluates may see it.

Some rules of reasoning-gym hand the answer to `eval` or to sympy's parser, which evaluates too. They are given what was
written here from the parsed answer: a literal of lists and texts, or an expression of numbers, known names and known
functions whose value is bounded. Nothing of the policy's own text is ever evaluated.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection
from fractions import Fraction

MAX_EXPRESSION = 1_000
"""Characters of an expression."""
MAX_DEPTH = 150
MAX_BITS = 4_096
"""Of the largest number or power that an expression may come to: about 1,200 digits."""
_EXPRESSION = re.compile(r"[0-9A-Za-z_+\-*/(). ,]*")
_NOT_FINITE = re.compile(r"nan|inf", re.IGNORECASE)
_LONG_EXPONENT = re.compile(r"e\s*[+-]?\s*[\d_]{4,}", re.IGNORECASE)
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ERRORS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, OverflowError)


class NotAllowed(ValueError):
    """The text is none of the grammar's."""


def literal(text: str) -> str:
    """The text of a list or tuple of texts and finite numbers, nested or not, written anew.

    Raises:
        NotAllowed: it is anything else.
    """
    try:
        value = ast.literal_eval(text.strip())
        if not isinstance(value, list | tuple) or not _is_plain(value, 0):
            raise NotAllowed("no list of texts and numbers")
        return repr(value)
    except _ERRORS as error:
        raise NotAllowed(f"no literal: {type(error).__name__}") from None


def _is_plain(value: object, depth: int) -> bool:
    if type(value) in (list, tuple):
        return depth < MAX_DEPTH and all(_is_plain(item, depth + 1) for item in value)  # type: ignore[attr-defined]
    if type(value) is float:
        return value - value == 0
    return type(value) in (str, int, bool)


def number(text: str) -> str:
    """The text as it is, where no number in it is infinite, no number at all, or written with a huge exponent.

    NaN passes comparisons that are meant to fail, and the fraction 1e999999999 takes all memory.

    Raises:
        NotAllowed: one is.
    """
    if _NOT_FINITE.search(text) or _LONG_EXPONENT.search(text):
        raise NotAllowed("a number that is not finite, or too large to be written out")
    return text


def expression(text: str, *, names: Collection[str] = (), functions: Collection[str] = ()) -> str:
    """The text of an expression over numbers, `names` and calls of `functions` with + - * / **, written anew.

    Raises:
        NotAllowed: another character, name or operation; nested too deeply; or a power whose value or degree could
            exceed 2 to the MAX_BITS.
    """
    if len(text) > MAX_EXPRESSION or not _EXPRESSION.fullmatch(text):
        raise NotAllowed("too long, or a character that no expression has")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _Expression(names, functions).size(tree, 0)
        return ast.unparse(tree)
    except _ERRORS as error:
        raise NotAllowed(f"no expression: {error}") from None


def exact_value(text: str) -> Fraction:
    """The exact value of an expression of whole numbers, + - * / and brackets.

    Raises:
        NotAllowed: it is anything else.
        ZeroDivisionError: it divides by zero.
    """
    return _value(ast.parse(expression(text), mode="eval").body)


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() as whole):
            return Fraction(whole)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_value(left), _value(right))
    raise NotAllowed(f"{type(node).__name__} has no exact value here")


class _Expression:
    """Walks a tree of an expression once: refuses what is not allowed, and bounds what is."""

    def __init__(self, names: Collection[str], functions: Collection[str]) -> None:
        self._names, self._functions = names, functions

    def size(self, node: ast.expr, depth: int) -> int:
        """Bits of the node's largest possible numerator, denominator or degree: 2 to the size bounds them all."""
        if depth > MAX_DEPTH:
            raise NotAllowed("nested too deeply")
        found = self._size(node, depth + 1)
        if found > MAX_BITS:
            raise NotAllowed("its value could be too large")
        return found

    def _size(self, node: ast.expr, depth: int) -> int:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return _bits(value)
            case ast.Name(id=name) if name in self._names:
                return 1
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return self.size(operand, depth)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                exponent = self.size(right, depth)
                if exponent > MAX_BITS.bit_length():
                    raise NotAllowed("a power that is too high")
                return self.size(left, depth) << exponent
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
                return self.size(left, depth) + self.size(right, depth)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in self._functions:
                return self.size(argument, depth)
        raise NotAllowed(f"{type(node).__name__} is not allowed")


def _bits(value: int | float) -> int:
    if isinstance(value, int):
        return max(1, value.bit_length())
    if value - value != 0:
        raise NotAllowed("a number that is not finite")
    return 64 + abs(int(value)).bit_length()
