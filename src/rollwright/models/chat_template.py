"""A tokenizer's chat template as the codec asks it: text or parts as it wants them, one day for a whole run.

What a template does with a message is found out by probing, never by its name: a probe text must come out of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date, datetime, time
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright.contracts import Message, Role, RunFolderError, TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
        found = self._probe_form(("system", "user", "assistant")) or self._probe_form(("system", "user"))
        self.has_system_role = found is not None
        if found is None:
            found = self._probe_form(("user", "assistant")) or self._probe_form(("user",))
        if found is None:
            raise TemplateError(
                f"tokenizer {tokenizer.name_or_path!r}: what a user's message says does not come out of the chat "
                "template, neither given as text nor as a list of parts ({'type': 'text', ...}), so the policy would "
                "read an empty prompt: mend chat_template.jinja, or take the model's text-only variant"
            )
        self._parts = found
        self.tail = self._probe_tail()
        if self.tells_day:
            tokenizer.init_kwargs[_DAY_KEY] = self.today.isoformat()  # goes with the policy that learns from it

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as text; raises whatever the template's author raised."""
        rows: list[dict[str, Any]] = [{"role": m.role, "content": self._content(m)} for m in messages]
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
    beside, file = folder / f".{_DAY_FILE}.{os.getpid()}", folder / _DAY_FILE
    beside.write_text(f"{today.isoformat()}\n", encoding="utf-8")
    try:
        os.link(beside, file)  # of several processes the first one wins
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    return day_of_run(folder) or today
