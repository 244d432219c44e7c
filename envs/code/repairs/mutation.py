"""Bugs by mutation: one expression of a program is replaced by a near relative, the rest stays letter by letter.

Nine kinds: comparison, arithmetic, and/or, a constant off by one, a truth value, a lost `not`, a negated condition, a
swapped function (min/max, any/all), and a changed augmented assignment.
Sources: the mutation operators of the testing literature (Jia and Harman, 2011), those that fit one expression.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """`before` at byte offset `start` of a source becomes `after`. `line` counts from 1."""

    start: int
    before: str
    after: str
    line: int
    kind: str

    def apply(self, source: str) -> str:
        """The source with the bug.

        Raises:
            ValueError: the source does not hold `before` at that place.
        """
        data, old = source.encode(), self.before.encode()
        if data[self.start : self.start + len(old)] != old:
            raise ValueError(f"the source has changed: {self.before!r} is not at byte {self.start}")
        return (data[: self.start] + self.after.encode() + data[self.start + len(old) :]).decode()


def mutations(source: str) -> list[Mutation]:
    """Every mutation of a source, in order of place.

    Raises:
        SyntaxError: the source is no Python.
    """
    offsets = _line_offsets(source)
    found = [
        mutation
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.expr | ast.stmt)
        for kind, replacement in _relatives(node)
        if (mutation := _as_mutation(source, offsets, node, kind, replacement)) is not None
    ]
    return sorted(found, key=lambda m: (m.start, m.before, m.after))


def _line_offsets(source: str) -> list[int]:
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    return offsets


def _as_mutation(source: str, offsets: list[int], node: ast.expr | ast.stmt, kind: str, new: str) -> Mutation | None:
    before = ast.get_source_segment(source, node)
    if before is None or before == new or "\n" in before:
        return None
    start = offsets[node.lineno - 1] + node.col_offset
    return Mutation(start=start, before=before, after=new, line=node.lineno, kind=kind)


def _relatives(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What may stand in the node's place."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            yield "comparison", ast.unparse(ast.Compare(left=left, ops=[_COMPARE[type(op)]()], comparators=[right]))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC and not _is_text(left, right):
            yield "arithmetic", ast.unparse(ast.BinOp(left=left, op=_ARITHMETIC[type(op)](), right=right))
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "and-or", f"({ast.unparse(ast.BoolOp(op=other, values=values))})"
        case ast.Constant(value=bool(value)):
            yield "truth", str(not value)
        case ast.Constant(value=int(value)):
            yield "constant", str(value + 1)
            if value > 0:
                yield "constant", str(value - 1)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "lost-not", f"({ast.unparse(operand)})"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield "condition", ast.unparse(ast.IfExp(test=test, body=orelse, orelse=body))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=words) if name in _FUNCTIONS:
            yield "function", ast.unparse(ast.Call(func=ast.Name(id=_FUNCTIONS[name]), args=args, keywords=words))
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _ARITHMETIC:
            yield "assignment", ast.unparse(ast.AugAssign(target=target, op=_ARITHMETIC[type(op)](), value=value))


def _is_text(*sides: ast.expr) -> bool:
    """Whether a side is visibly no number: such arithmetic fails at once, which makes a dull bug."""
    return any(
        isinstance(side, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in sides
    )
