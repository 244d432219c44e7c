"""What a teacher reads before an action that somebody else chose: the same messages, and a text that only it is given.

The action's ids are those that were sampled. In a growing context only the opening is rendered anew, and all that came
after it follows bit for bit; in a window every prompt is rendered anew, with the text in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rollwright.contracts import Message, TextPart, Trajectory, Turn
from rollwright.models import ChatCodec


def with_hint(messages: Sequence[Message], hint: str) -> tuple[Message, ...]:
    """The messages with a text at the head of the first user message; an empty text changes nothing."""
    place = next((index for index, message in enumerate(messages) if message.role == "user"), None)
    if not hint or place is None:
        return tuple(messages)
    shown = messages[place]
    # At its head, so that the state stays next to the action, as the student has it.
    parts = (TextPart(text=hint), *shown.parts) if shown.parts else ()
    told = replace(shown, content=f"{hint}\n{shown.content}", parts=parts)
    return (*messages[:place], told, *messages[place + 1 :])


def teacher_prompts(
    trajectory: Trajectory,
    turns: Sequence[Turn],
    hint: str,
    codec: ChatCodec,
    *,
    context: Literal["append", "windowed"],
    longest: int,
) -> list[tuple[int, ...] | None]:
    """The teacher's prompt for each of these turns of an episode; None where it can have none.

    That is where prompt and action are longer than `longest` tokens, and where the messages on record do not give the
    student's own prompt (an episode that began in the middle, another template): a prompt that was made from them would
    differ by more than the hint.
    """
    opening, told = _openings(trajectory.turns[0].observed, hint, codec)
    found: list[tuple[int, ...] | None] = []
    for turn in turns:
        if context == "windowed":
            opening, told = _openings(turn.observed, hint, codec)
        same = turn.prompt_ids[: len(opening)] == opening and (context == "append" or turn.prompt_ids == opening)
        prompt = (*told, *turn.prompt_ids[len(opening) :])
        fits = len(prompt) + len(turn.action_ids) <= longest
        found.append(prompt if opening and same and fits else None)
    return found


def _openings(messages: tuple[Message, ...], hint: str, codec: ChatCodec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of these messages, and those with the hint; nothing where nothing was recorded."""
    if not messages:
        return (), ()
    return codec.encode_start(messages), codec.encode_start(with_hint(messages, hint))
