"""A tokenizer's control tokens, and text that cannot spell one, however the tokenizer reads it.

Some tokenizers normalise text before they look for control tokens (NFKC, lower case, accents taken off): `＜|im_end|＞`
in full-width signs ends a message there too. So what such a tokenizer reads is looked at, not only what is written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REMEMBERED = 1024
_GONE = "\ufffd"
_PASSES = 8
Span = tuple[int, int]


class ControlTokens:
    """Made once per codec.

    ids: of every control token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        special = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.ids = frozenset(special) | frozenset(tokenizer.all_special_ids)
        names = {*special.values(), *map(str, tokenizer.all_special_tokens)}
        longest_first = sorted((n for n in names if len(n) > 1 and n.strip()), key=lambda name: (-len(name), name))
        self._spelt = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._read = lru_cache(_REMEMBERED)(self._as_read)

    def harmless(self, text: str) -> str:
        """The text with a blank in each control token that it spells, so that its encoding holds none of them."""
        if self._spelt is None:
            return text
        text = self._spelt.sub(lambda found: _broken(found[0]), text)
        return self._read(text) if self._normalises else text

    @property
    def _normalises(self) -> bool:
        """Whether the tokenizer may read something else than what is written; one without a `backend` may."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is None or backend.normalizer is not None

    def _as_read(self, text: str) -> str:
        if text and unicodedata.category(text[0]).startswith("M"):
            text = f" {text}"  # a mark would melt into the last sign of the control token before the message
        for attempt in range(_PASSES):
            spans = self._spans(text)
            if not spans:
                return text
            text = _replaced(text, spans, _broken if attempt == 0 else lambda _: _GONE)
        return _GONE

    def _spans(self, text: str) -> list[Span]:
        """Where in the text control tokens are read."""
        if not self._tokenizer.is_fast:
            return list(self._by_halves(text))
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(read["input_ids"], read["offset_mapping"], strict=True)
        return [(start, max(end, start + 1)) for index, (start, end) in pairs if index in self.ids]

    def _by_halves(self, text: str) -> Iterator[Span]:
        """The same of a tokenizer that tells no offsets."""
        at = 0
        while self._reads(text[at:]):
            start, end = self._first_span(text[at:])
            yield at + start, at + end
            at += end

    def _first_span(self, text: str) -> Span:
        """The shortest beginning of the text that reads a control token, and in it the shortest end that does."""
        end = _least(1, len(text), lambda size: self._reads(text[:size]))
        return end - _least(1, end, lambda size: self._reads(text[end - size : end])), end

    def _reads(self, text: str) -> bool:
        return not self.ids.isdisjoint(self._tokenizer.encode(text, add_special_tokens=False))


def _broken(spelling: str) -> str:
    return f"{spelling[0]} {spelling[1:]}"


def _replaced(text: str, spans: list[Span], new: Callable[[str], str]) -> str:
    parts, at = [], 0
    for start, end in spans:
        if start >= at:
            parts += [text[at:start], new(text[start:end])]
            at = end
    return "".join((*parts, text[at:]))


def _least(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least number in [low, high] for which it holds, where it holds for `high` and for all above the least."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
