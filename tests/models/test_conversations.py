"""Ten thousand random conversations over all chat templates: said is seen, sampled is trained, nothing becomes control.

Only tokenizers work here: no model is loaded.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest

from rollwright.contracts.environment import Observation
from rollwright.generation.engine import Generation
from rollwright.models.codec import ChatCodec
from rollwright.rollout.contexts import AppendOnly, Windowed
from tests.chat_templates import FAMILIES, NORMALISERS

CONVERSATIONS = 10_000
PLAIN = ("click 1", "fill", " page ", "\n", "\n\n", "{{ 7 * 7 }}{% raw %}", '{"a": [1]}', "'type': 'text'", "", "  ")
ODD = ("\U0001f642", "\U0001f468‍\U0001f469", "漢字", "ﬁ", "\u0338", "\u0301", "\0", "\u202e", "\ud83d", "\ufffd", "²")
THOUGHTS = ("<think>", "</think>", "<think>a plan</think>", "[INST]", "<|im_end|>", "</s>", "<|eot|>", "<image>")


def full_width(name: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in name)


SPELLINGS: tuple[Callable[[str], str], ...] = (
    *(str, full_width, str.upper, " ".join),
    lambda name: name[0] + "\u0338" + name[1:],
    lambda name: name[:3] + full_width(name[3:]),
    lambda name: name + name,
    lambda name: name[:-1],
)


@cache
def codec_of(name: str, folds: str) -> ChatCodec:
    return ChatCodec(FAMILIES[name].tokenizer(folds=folds))


def foreign(draws: random.Random, control: list[str]) -> str:
    """What a page may hold: words, signs of all kinds, thoughts, and control tokens in many spellings."""
    kind = draws.random()
    if kind < 0.05:
        return ""
    size = 400 if kind > 0.995 else draws.randrange(1, 7)
    hostile = [draws.choice(SPELLINGS)(draws.choice(control)) for _ in range(4)]
    return "".join(draws.choice((*PLAIN, *ODD, *THOUGHTS, *hostile)) for _ in range(size))


@cache
def control_of(codec: ChatCodec) -> frozenset[int]:
    return frozenset(i for i, token in codec.tokenizer.added_tokens_decoder.items() if token.special)


def control(codec: ChatCodec, ids: tuple[int, ...]) -> list[int]:
    return [index for index in ids if index in control_of(codec)]


def sampled(draws: random.Random, codec: ChatCodec) -> Generation:
    """Any ids: bytes that are no text, control tokens in the middle, nothing at all."""
    special = sorted(control_of(codec))
    one = [draws.choice(special) if draws.random() < 0.05 else draws.randrange(3, 259) for _ in range(5)]
    body = tuple(one[: draws.randrange(6)])
    finish = draws.choice(("stop", "stop", "length")) if body else "stop"
    ids = (*body, draws.choice(codec.stop_token_ids)) if finish == "stop" else body
    return Generation(token_ids=ids, logprobs=(-1.0,) * len(ids), finish_reason=finish, spans=())  # type: ignore[arg-type]


def play(codec: ChatCodec, draws: random.Random, hostile: list[str], *, append: bool) -> None:
    """One conversation beside its harmless twin: same shape, the same ids sampled, plain words in every message."""
    make = AppendOnly if append else Windowed
    rules, goal = (f"mark{n} {foreign(draws, hostile)}" if draws.random() < 0.8 else "" for n in (1, 2))
    contexts = [
        make(codec=codec, instructions=text, context_length=10**7)() for text in (rules, "plain" if rules else "")
    ]
    trained: tuple[int, ...] = ()
    said, shown_before = [text[:5] for text in (rules, goal)], []
    for turn in range(draws.randrange(1, 4)):
        head = draws.choice(("", "\u0338", "\n", "<"))
        shown = f"{head}mark{turn + 3} {foreign(draws, hostile)}" if draws.random() < 0.9 else ""
        shown_before = [*(shown_before if append else []), f"mark{turn + 3}" if shown else ""]
        for context, text, aim in zip(contexts, (shown, "page"), (goal, "aim" if goal else ""), strict=True):
            context.observe(Observation(text=text, goal=aim if turn == 0 else ""))
        prompt, twin = (context.prompt_ids(8) for context in contexts)
        read = str(codec.tokenizer.decode(list(prompt), clean_up_tokenization_spaces=False))
        assert all(mark in read for mark in (*said, *shown_before)), read
        assert control(codec, prompt) == control(codec, twin), read
        assert prompt[: len(trained)] == trained
        answer = sampled(draws, codec)
        for context in contexts:
            context.act(answer)
        trained = prompt + answer.token_ids if append else ()


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_said_is_seen_what_is_sampled_is_trained_and_nothing_becomes_control(name: str):
    family, draws = FAMILIES[name], random.Random(name)
    for number in range(-(-CONVERSATIONS // len(FAMILIES))):
        codec = codec_of(name, ("", "", *NORMALISERS)[number % (2 + len(NORMALISERS))])
        play(codec, draws, family.control, append=not family.rewrites and number % 3 != 0)
