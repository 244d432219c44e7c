"""One way to refuse a word that a function does not know: a wrong word must never choose a method in silence."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args


def require_choice(name: str, value: object, allowed: Any, *, what: str = "") -> None:
    """Raise unless `value` is one of the words that the argument `name` takes.

    Args:
        allowed: a `Literal` type, or the words themselves.
        what: what the words name, where the argument's own name does not say it.

    Raises:
        ValueError: another word, or no word at all; the message names the argument, the words and the nearest of them.
    """
    # `get_args` gives () for anything that is no generic type, and so for plain words.
    words: Sequence[object] = get_args(allowed) or tuple(allowed)
    # Equality alone would take True for 1 and 0.0 for 0.
    if any(value == word and type(value) is type(word) for word in words):
        return
    near = difflib.get_close_matches(str(value), [str(word) for word in words], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what or name} {value!r}: `{name}` is one of {', '.join(map(str, words))}{hint}")
