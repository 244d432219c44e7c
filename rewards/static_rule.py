"""Properties of a unit test by its syntax tree alone, as they are found in a box: some texts exhaust the parser.

Standard library only. Source: arXiv:2310.02368 (RLSQM), for Python's `assert`, `self.assert*` and `pytest.raises`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

PRACTICES = ("focal_call", "assertion", "descriptive_name")
SMELLS = ("no_duplicate_assertion", "no_conditional", "no_exception_handling", "no_print")
PROPERTIES = (*PRACTICES, *SMELLS, "documentation", "focal_assertion")
MAX_SOURCE = 100_000
"""Characters of an answer; more is cut."""
# The closing fence may be missing: an answer can be cut at its token limit.
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_BLOCKS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.Match)
# Names that say no more than that this is a test.
_GENERIC = re.compile(r"test_?(it|this|method|function|case)?_?\d*", re.IGNORECASE)


def properties_of(text: str, focal: str) -> dict[str, int]:
    """The properties of an answer: of its last fenced block, or of the whole text where there is none."""
    # The last block: earlier ones are drafts or quotations.
    blocks = _FENCE.findall(text[:MAX_SOURCE])
    return properties(str(blocks[-1]) if blocks else text[:MAX_SOURCE], focal)


def properties(source: str, focal: str) -> dict[str, int]:
    """Property -> 1, 0, or -1 where the source is no Python or holds no test.

    Args:
        source: a test file, or one test function.
        focal: name of the function under test.

    Comprehensions are no loops here. `focal_assertion` asks that an assertion contain the focal call, or a name that
    was assigned from one: a check on something else would pass for every implementation.
    """
    try:
        return _properties(source, focal)
    except (RecursionError, MemoryError):  # nested beyond what Python itself would read
        return dict.fromkeys(PROPERTIES, -1)


def _properties(source: str, focal: str) -> dict[str, int]:
    tests = list(_tests(source))
    if not tests:
        return dict.fromkeys(PROPERTIES, -1)
    asserted = [node for test in tests for node in _assertions(test)]
    # `dump` leaves positions out, so the same assertion on two lines gives the same text.
    texts = [ast.dump(node) for node in asserted]
    return {
        # Of several tests one has to call the function; every one has to assert something.
        "focal_call": int(any(_calls(test, focal) for test in tests)),
        "assertion": int(all(_has_assertion(test) for test in tests)),
        "descriptive_name": int(all(_is_descriptive(test.name, focal) for test in tests)),
        "no_duplicate_assertion": int(len(set(texts)) == len(texts)),
        "no_conditional": int(not any(_contains(test, _BLOCKS) for test in tests)),
        "no_exception_handling": int(not any(_contains(test, (ast.Try, ast.TryStar)) for test in tests)),
        "no_print": int(not any(_calls(test, "print") for test in tests)),
        "documentation": int(any(ast.get_docstring(test) for test in tests) or _has_comment(source)),
        "focal_assertion": int(any(_asserts_about(test, focal) for test in tests)),
    }


def _tests(source: str) -> Iterator[ast.FunctionDef]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    # Within classes too, as in unittest.
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield node


def _assertions(test: ast.FunctionDef) -> Iterator[ast.AST]:
    for node in ast.walk(test):
        # By name, so that `self.assertEqual` and `mock.assert_called` count as well.
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and _name_of(node).startswith("assert")):
            yield node


def _has_assertion(test: ast.FunctionDef) -> bool:
    # `pytest.raises` asserts without the word.
    raises = any(isinstance(node, ast.Call) and _name_of(node) in ("raises", "warns") for node in ast.walk(test))
    return raises or any(True for _ in _assertions(test))


def _name_of(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    # The result of a call that is called has no name.
    return ""


def _calls(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Call) and _name_of(part) == name for part in ast.walk(node))


def _contains(test: ast.FunctionDef, kinds: tuple[type[ast.AST], ...]) -> bool:
    return any(isinstance(node, kinds) for node in ast.walk(test))


def _is_descriptive(name: str, focal: str) -> bool:
    bare = name.lower().strip("_")
    return bare not in (f"test_{focal.lower()}", f"test{focal.lower()}") and not _GENERIC.fullmatch(bare)


def _asserts_about(test: ast.FunctionDef, focal: str) -> bool:
    """An assertion holds the focal call, or a name that got its value from one."""
    from_focal = {
        target.id
        for node in ast.walk(test)
        if isinstance(node, ast.Assign) and _calls(node.value, focal)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return any(_calls(node, focal) or bool(_names(node) & from_focal) for node in _assertions(test))


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _has_comment(source: str) -> bool:
    return any(line.lstrip().startswith("#") for line in source.splitlines())
