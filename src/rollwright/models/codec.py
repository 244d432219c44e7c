"""Chat messages to token ids, and sampled ids back to text. Text that was sampled is never encoded a second time.

A conversation grows by concatenation: `start ids + sampled ids + continuation ids + sampled ids + ...`. The chat
template is asked only for what lies *between* two actions. That is right only for a template that renders each message
the same whatever follows it, which `ChatCodec.is_prefix_preserving` finds out by probing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rollwright.contracts import Message, TemplateError, whole
from rollwright.models.chat_template import PROBE, ChatTemplate, ControlTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Starts and continuations remembered: the members of a group open with the same messages, and worlds repeat themselves.
_REMEMBERED = 1024


class ChatCodec:
    """Renders and encodes with one tokenizer and its chat template. Made once per model; holds no episode.

    Control tokens spelt out in a message (a web page that contains `<|im_end|>`, in whatever signs the tokenizer reads
    so) are broken up, so that an observation cannot end its own message. A template without a system role gets the
    system text at the head of the user's.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        today: the day that a template with a date is told; see `ChatTemplate`.

    Raises:
        TemplateError: no chat template, one that leaves messages out, or no token that could end a turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, today: date | None = None) -> None:
        if not tokenizer.chat_template:
            raise TemplateError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; expected one in "
                "tokenizer_config.json or chat_template.jinja: use an instruction-tuned model or add a template"
            )
        self.tokenizer = tokenizer
        self._control = ControlTokens(tokenizer)
        self._template = ChatTemplate(tokenizer, today)
        self.has_system_role = self._template.has_system_role
        # Probing renders messages, which needs the system role from the line above.
        self._closing_ends_turn, self.turn_end_id = self._probe_turn_end()
        eos = tokenizer.eos_token_id
        # Some models end a turn by their end-of-text token, though the template writes another one.
        extra = (int(eos),) if isinstance(eos, int) and eos != self.turn_end_id else ()
        self.stop_token_ids: tuple[int, ...] = (self.turn_end_id, *extra)
        # A cache of its own for each codec: one on the method would keep every codec alive.
        self._start = lru_cache(_REMEMBERED)(self._encode_start)
        self._continuation = lru_cache(_REMEMBERED)(self._encode_continuation)

    def encode_start(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The ids of a conversation up to and including the header of the policy's next message."""
        return self._start(tuple(messages))

    def _encode_start(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        return self._encode(self._render(messages, generation_prompt=True))

    def encode_continuation(
        self, finish: Literal["stop", "length"], observations: Sequence[Message]
    ) -> tuple[int, ...]:
        """The ids that lie between a sampled action and the next one.

        Args:
            finish: how the action ended. After "length" the missing end-of-turn token leads the continuation: the
                policy reads it but did not sample it.
            observations: the messages the environment answered with.

        Raises:
            TemplateError: the template does not render the action before the observations.
        """
        return self._continuation(finish, tuple(observations))

    def _encode_continuation(
        self, finish: Literal["stop", "length"], observations: tuple[Message, ...]
    ) -> tuple[int, ...]:
        # Some templates want a user's message before the first answer.
        head = [Message(role="user", content="probe"), Message(role="assistant", content=PROBE)]
        text = self._render([*head, *observations], generation_prompt=True)
        _, found, after = text.partition(PROBE)
        if not found:
            raise TemplateError(f"{self._name()}: the chat template leaves out earlier actions; use a windowed context")
        ids = self._encode(after)
        if not self._closing_ends_turn:  # nothing in the template ends the turn: the end-of-text token does
            return ids if finish == "stop" else (self.turn_end_id, *ids)
        # The sampled ids end with the end-of-turn token already.
        return ids[ids.index(self.turn_end_id) + 1 :] if finish == "stop" else ids

    def encode_action(self, text: str) -> tuple[int, ...]:
        """Ids of an action that a teacher or a data set wrote, end-of-turn token included."""
        return (*self._encode(self._harmless(text)), self.turn_end_id)

    def decode_action(self, action_ids: Sequence[int]) -> str:
        """The text of an action, without the stop token that ended it. Other control tokens stay visible."""
        ids = list(action_ids)
        # Only the last one: a stop token before it is something that the policy said.
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        # The clean-up would take blanks away, and the text would no longer be what was sampled.
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text, control tokens broken up; for counting and cutting."""
        return self._encode(self._harmless(text))

    def cut(self, text: str, max_tokens: int) -> str:
        """The first `max_tokens` tokens of a text and a line that says so; a text that fits comes back unchanged."""
        ids = self.encode_text(text)
        if len(ids) <= max_tokens:
            return whole(text)
        kept = str(self.tokenizer.decode(list(ids[:max_tokens]), clean_up_tokenization_spaces=False))
        # A cut may fall between the byte tokens of one character, which decodes to this sign.
        return f"{kept.rstrip('�')}\n[cut: {max_tokens} of {len(ids)} tokens shown]"

    def is_prefix_preserving(self) -> bool:
        """True where every message renders the same whatever comes after it, and an action directly follows its header.

        False for templates that drop the thinking of earlier turns, re-trim them, or number messages from the end.
        """
        return self._prefix_preserving

    def require_prefix_preserving(self) -> None:
        """Raises TemplateError where the template rewrites history."""
        if not self._prefix_preserving:
            raise TemplateError(
                f"{self._name()}: the chat template rewrites earlier messages when later ones arrive, so a growing "
                "context would not hold the ids that were sampled; use a windowed context (each turn its own prompt)"
            )

    @cached_property
    def _prefix_preserving(self) -> bool:
        messages = _history_probe(self.has_system_role)
        # Histories begin with a user's message, since some templates refuse a system message alone.
        first = 2 if self.has_system_role else 1
        try:
            for end in range(first, len(messages)):
                if not self._extends(messages[:end], messages[end]):
                    return False
        except TemplateError:
            return False
        return True

    def _extends(self, history: list[Message], new: Message) -> bool:
        before, after = self._body(history), self._body([*history, new])
        if not after.startswith(before):
            return False
        if new.role != "assistant":
            return True
        # The header that the policy is given must be the one that its action has in the history.
        header = self._render(history, generation_prompt=True)
        return after.startswith(header) and after[len(header) :].lstrip().startswith(new.content.strip())

    def _probe_turn_end(self) -> tuple[bool, int]:
        """Whether the template itself ends the policy's message by a control token, and the token that ends it."""
        text = self._body([Message(role="user", content="probe"), Message(role="assistant", content=PROBE)])
        for index in self._encode(text.partition(PROBE)[2]):
            if index in self._control.ids:
                return True, index
        eos = self.tokenizer.eos_token_id
        if not isinstance(eos, int):
            raise TemplateError(f"{self._name()}: neither the chat template nor the tokenizer has an end-of-turn token")
        return False, eos

    @property
    def tells_day(self) -> date | None:
        """The day that the template writes into prompts, None where it writes none."""
        return self._template.today if self._template.tells_day else None

    def keep_day(self, folder: Path) -> None:
        """Write the day beside a model that learned from this codec's prompts, so that it is asked with it."""
        if self.tells_day:
            self.tokenizer.save_pretrained(folder)

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        if not self.has_system_role:
            messages = merge_system(messages)
        safe = [Message(role=m.role, content=self._harmless(m.content)) for m in messages]
        try:
            return self._template.render(safe, generation_prompt=generation_prompt)
        except Exception as error:  # a template refuses by raising whatever it likes from inside jinja
            roles = ", ".join(message.role for message in messages)
            raise TemplateError(f"{self._name()}: the chat template refused the roles {roles}: {error}") from error

    def _body(self, messages: Sequence[Message]) -> str:
        """The conversation without what the template writes only at its very end."""
        return self._render(messages).removesuffix(self._template.tail)

    def _encode(self, text: str) -> tuple[int, ...]:
        # Templates write their own beginning-of-text token; the tokenizer must not add a second one.
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _harmless(self, text: str) -> str:
        return self._control.harmless(whole(text))

    def _name(self) -> str:
        return f"tokenizer {self.tokenizer.name_or_path!r}"


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """Put the system text at the head of the first user message, for templates that have no system role."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    if not rest or rest[0].role != "user":
        return [Message(role="user", content=system.content), *rest]
    return [Message(role="user", content=f"{system.content}\n\n{rest[0].content}"), *rest[1:]]


def _history_probe(system: bool) -> list[Message]:
    """A conversation with what templates are known to rewrite: thinking, outer blanks, several user turns."""
    actions = ("first words", "<think>\nsome plan\n</think>\n\nsecond words", "  padded words \n", "last words")
    messages = [Message(role="system", content="rules")] if system else []
    for number, action in enumerate(actions):
        messages.append(Message(role="user", content=f"observation {number}"))
        messages.append(Message(role="assistant", content=action))
    return messages
