"""A tokenizer's chat template as the codec asks it: text or parts as it wants them, one day for a whole run.

What a template does with a message is found out by probing, never by its name: a probe text must come out of it.

A tokenizer's control tokens, and text that cannot spell one, however the tokenizer reads it.

Some tokenizers normalise text before they look for control tokens (NFKC, lower case, accents taken off): `＜|im_end|＞`
in full-width signs ends a message there too. So what such a tokenizer reads is looked at, not only what is written.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright.contracts import Message, Role, RunFolderError, TemplateError

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
        # A regular expression takes the first alternative that fits, so the longest names stand first.
        longest_first = sorted((n for n in names if len(n) > 1 and n.strip()), key=lambda name: (-len(name), name))
        self._spelt = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        # The same observations come again in later turns and in other episodes.
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
        # Without a normaliser the tokenizer reads what is written, and the regular expression was enough.
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is None or backend.normalizer is not None

    def _as_read(self, text: str) -> str:
        if text and unicodedata.category(text[0]).startswith("M"):
            text = f" {text}"  # a mark would melt into the last sign of the control token before the message
        for attempt in range(_PASSES):
            spans = self._spans(text)
            if not spans:
                return text
            # A blank first, which leaves the text readable; what is still read as a control token then goes.
            text = _replaced(text, spans, _broken if attempt == 0 else lambda _: _GONE)
        # No text is better than one that ends its own message.
        return _GONE

    def _spans(self, text: str) -> list[Span]:
        """Where in the text control tokens are read."""
        if not self._tokenizer.is_fast:
            return list(self._by_halves(text))
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(read["input_ids"], read["offset_mapping"], strict=True)
        # The span of a token may be empty; one character of it has to go, or no pass would change anything.
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
        # Spans overlap where one character reads as several tokens.
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


# Stands for an action while the template is asked what follows it. No blanks, so that trimming leaves it alone.
PROBE = "qzActionProbezq"
_SEEN: dict[Role, str] = {"system": "qzRulesProbezq", "user": "qzPageProbezq", "assistant": PROBE}
_DAY_KEY = "template_day"
_DAY_FILE = "template_day.txt"


class ChatTemplate:
    """Renders messages as text. Made once per codec.

    Some templates take a message's content as text, those of models that also read pictures as a list of parts: each
    role gets what lets a probe come out. A template that asks for the date is told one day for good.

    Args:
        tokenizer: with a chat template.
        today: the day that the template is told; None for the one that the tokenizer was saved with, else this day.

    Raises:
        TemplateError: what the user says comes out of the template neither as text nor as parts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, today: date | None = None) -> None:
        self.tokenizer = tokenizer
        self.today = today or _saved_day(tokenizer) or date.today()
        self.tells_day = False
        self._parts: frozenset[Role] = frozenset()
        # A template that leaves out answers must not seem to have no system role.
        found = self._probe_form(("system", "user", "assistant")) or self._probe_form(("system", "user"))
        self.has_system_role = found is not None
        if found is None:
            found = self._probe_form(("user", "assistant")) or self._probe_form(("user",))
        if found is None:
            raise TemplateError(
                f"tokenizer {tokenizer.name_or_path!r}: what a user's message says does not come out of the chat "
                "template, neither given as text nor as a list of parts ({'type': 'text', ...}), so the policy would "
                "read an empty prompt: fix chat_template.jinja, or take the model's text-only variant"
            )
        self._parts = found
        self.tail = self._probe_tail()
        # The probes above have called `_strftime` by now if the template asks for the day.
        if self.tells_day:
            tokenizer.init_kwargs[_DAY_KEY] = self.today.isoformat()  # goes with the policy that learns from it

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as text; raises whatever the template's author raised."""
        rows: list[dict[str, Any]] = [{"role": m.role, "content": self._content(m)} for m in messages]
        # A variable of this name hides transformers' own function, which tells the day of the call.
        text = self.tokenizer.apply_chat_template(
            rows, tokenize=False, add_generation_prompt=generation_prompt, strftime_now=self._strftime
        )
        return str(text)

    def _content(self, message: Message) -> str | list[dict[str, str]]:
        if message.role not in self._parts:
            return message.content
        return [{"type": "text", "text": message.content}]

    def _strftime(self, form: str) -> str:
        self.tells_day = True
        # Midnight, so that a template that asks for the hour is told the same one all the time.
        return datetime.combine(self.today, time()).strftime(form)

    def _probe_form(self, roles: tuple[Role, ...]) -> frozenset[Role] | None:
        """Which roles' content is given as parts so that the probes of all come out; text is tried first."""
        probes = [Message(role=role, content=_SEEN[role]) for role in roles]
        for count in range(len(roles) + 1):
            for form in combinations(roles, count):
                self._parts = frozenset(form)
                try:
                    text = self.render(probes)
                except Exception:  # a template refuses by raising whatever it likes from inside jinja
                    continue
                if all(_SEEN[role] in text for role in roles) and "'type':" not in text:  # else a list, printed
                    return self._parts
        return None

    def _probe_tail(self) -> str:
        """What is written at the end only where no header of an answer is asked for, such as an end-of-text token.

        It goes again when the next message comes, so it is no part of the history.
        """
        messages = [Message(role="user", content=_SEEN["user"])]
        try:
            alone, asked = self.render(messages), self.render(messages, generation_prompt=True)
        except Exception:  # met again, with the reason, where a conversation is rendered
            return ""
        # The two texts part where the header of an answer begins.
        pairs = enumerate(zip(alone, asked, strict=False))
        return alone[next((at for at, (one, other) in pairs if one != other), len(asked)) :]


def _saved_day(tokenizer: PreTrainedTokenizerBase) -> date | None:
    saved = getattr(tokenizer, "init_kwargs", {}).get(_DAY_KEY)
    try:
        return date.fromisoformat(saved) if isinstance(saved, str) else None
    except ValueError as error:
        raise TemplateError(
            f"tokenizer {tokenizer.name_or_path!r}: `{_DAY_KEY}` in tokenizer_config.json is {saved!r}; expected a "
            "day such as 2026-11-30"
        ) from error


def day_of_run(folder: Path) -> date | None:
    """The day that a run's prompts name, None before one is kept.

    Raises:
        RunFolderError: the file holds no day.
    """
    file = folder / _DAY_FILE
    try:
        return date.fromisoformat(file.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{file} should hold the day that this run's prompts name, such as 2026-11-30, but: {error}. Put it back "
            "(config.yaml is as old as the run), or begin a new run folder."
        ) from error


def keep_day(folder: Path, today: date) -> date:
    """Write the day down for the run's later starts; returns the one that stands there, which is the first one's."""
    # Several processes may be here at once, so the name holds the process.
    beside, file = folder / f".{_DAY_FILE}.{os.getpid()}", folder / _DAY_FILE
    beside.write_text(f"{today.isoformat()}\n", encoding="utf-8")
    try:
        os.link(beside, file)  # of several processes the first one wins
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    return day_of_run(folder) or today
