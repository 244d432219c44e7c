"""What an agent does with a tree of files: look at lines, find definitions and text, edit by search and replace.

The searches are AutoCodeRover's (arXiv:2404.05427): by class, by method or function, by text. Pure functions over
{path: text}; whatever is wrong with a request is an `EditError`, whose text is the answer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

MAX_HITS = 20
_SEARCH, _MIDDLE, _REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"


class EditError(Exception):
    """A request that cannot be done; the text tells the policy why."""


def parse_action(action: str) -> tuple[str, str, str]:
    """(command, argument, the lines after the first) of an action. A fence around everything is taken off."""
    text = action.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].removesuffix("```").strip()
    first, _, rest = text.partition("\n")
    name, _, argument = first.strip().partition(" ")
    return name.lower(), argument.strip(), rest


def show_file(files: Mapping[str, str], argument: str) -> str:
    """`PATH [FIRST LAST]`: numbered lines."""
    path, *span = argument.split()[:3] or [""]
    if path not in files:
        raise EditError(f"No such file: {path[:80]!r}. `list` names them.")
    if any(not word.isascii() or not word.isdecimal() or len(word) > 9 for word in span):
        raise EditError("Lines are given by two whole numbers: read PATH FIRST LAST.")
    first, last = (int(span[0]) if span else 1), (int(span[1]) if len(span) > 1 else 10**9)
    lines = files[path].splitlines()
    shown = [f"{number:4d} {line}" for number, line in enumerate(lines, 1) if first <= number <= last]
    return "\n".join(shown) or f"{path} has {len(lines)} lines; none of them is there."


def find_definitions(files: Mapping[str, str], argument: str, kind: Literal["class", "function"]) -> str:
    """`NAME [PATH]`: where a class or function is defined, with its lines."""
    name, *paths = argument.split() or [""]
    found = (
        _excerpt(path, text, node)
        for path, text in sorted(files.items())
        if path.endswith(".py") and (not paths or path in paths)
        for node in _definitions(text, name, kind)
    )
    return "\n".join(islice(found, MAX_HITS)) or f"No {kind} is called {name[:80]!r}."


def _definitions(text: str, name: str, kind: str) -> Iterator[ast.stmt]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # an edit broke it, or nests it beyond what the parser takes; `read` still shows it
    wanted = (ast.ClassDef,) if kind == "class" else (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, wanted) and node.name == name:
            yield node


def _excerpt(path: str, text: str, node: ast.stmt) -> str:
    last = node.end_lineno or node.lineno
    lines = text.splitlines()[node.lineno - 1 : last]
    numbered = "\n".join(f"{number:4d} {line}" for number, line in enumerate(lines, node.lineno))
    return f"{path}:\n{numbered}"


def find_code(files: Mapping[str, str], text: str) -> str:
    """Lines that hold a text."""
    if not text:
        raise EditError("Say what to look for: search_code TEXT.")
    hits = [
        f"{path}:{number}: {line.strip()}"
        for path, source in sorted(files.items())
        for number, line in enumerate(source.splitlines(), 1)
        if text in line
    ]
    more = f"\n... {len(hits) - MAX_HITS} more" if len(hits) > MAX_HITS else ""
    return "\n".join(hits[:MAX_HITS]) + more or f"Nowhere: {text[:80]!r}."


def apply_edit(text: str, blocks: str) -> str:
    """`text` after search/replace blocks, in order; each search is whole lines that occur exactly once.

    Raises:
        EditError: no block, or a search that is empty, absent or ambiguous.
    """
    found = list(_blocks(blocks.split("\n")))
    if not found:
        raise EditError("There is no search/replace block after the first line.")
    padded = "\n" + text if text.endswith("\n") else f"\n{text}\n"
    for search, replacement in found:
        if not search.strip():
            raise EditError("The search is empty.")
        count = padded.count("\n" + search)
        if count != 1:
            where = "nowhere" if count == 0 else f"{count} times"
            raise EditError(f"The searched lines occur {where} in the file; exactly once is needed.")
        padded = padded.replace("\n" + search, "\n" + replacement)
    return padded[1:]


def _blocks(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(searched lines, lines in their place) of each whole block; every line is looked at once."""
    parts: list[list[str]] = []  # of the block that is open: its searched lines, then those in their place
    for line in lines:
        bare = line.rstrip(" \t")
        if not parts and bare == _SEARCH:
            parts = [[]]
        elif len(parts) == 1 and bare == _MIDDLE:
            parts.append([])
        elif len(parts) == 2 and line.startswith(_REPLACE):
            search, replacement = ("".join(f"{text}\n" for text in part) for part in parts)
            yield search, replacement
            parts = []
        elif parts:
            parts[-1].append(line)
