"""Guessing games over known things: what is asked, what is answered, and the questions that tell most. Pure functions.

A catalogue has things and topics. Each thing has a value for each topic: "yes" or "no" for a trait, text for a fact
("French"). A question is understood by the words of its topic; the longest words win.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["right", "wrong", "fact", "unclear"]
# The words that may stand before the name in a guess; any other makes it a question.
_FILLER = (
    "i think guess believe maybe perhaps so then and well is are was could can would might must it s that this you "
    "your the a an city object thing home be from in live of word do does come"
)
_EMPTY = frozenset(_FILLER.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """Something one can ask. `says` is the sentence of an answer to an open question, with `{}` for the value."""

    name: str
    question: str
    words: tuple[str, ...]
    says: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is asked for by an open question, and answered by more than yes or no."""
        return bool(self.says)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Things with a value for each topic, and the topics."""

    things: Mapping[str, Mapping[str, str]]
    topics: Mapping[str, Topic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a question brought: the verdict on a guess, or a fact (`topic`, and what was said of it)."""

    kind: Kind
    text: str
    topic: str = ""
    value: str = ""


@lru_cache(maxsize=4096)
def normalise(text: str) -> str:
    """Lower case words with single blanks between them, nothing else."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def guessed(catalogue: Catalogue, question: str) -> str | None:
    """The thing that a question names as a guess; None where it is no guess.

    As in the benchmark, the name must stand at the end and nothing else of meaning before it.
    """
    words = normalise(question)
    # With a blank before both, so that "ale" is not found at the end of "whale".
    names = [name for name in catalogue.things if f" {words}".endswith(f" {normalise(name)}")]
    if not names:
        return None
    # The longest: of "water bottle" and "bottle", the policy meant the one that it wrote out.
    name = max(names, key=len)
    before = words[: len(words) - len(normalise(name))].split()
    return name if _EMPTY.issuperset(before) else None


def topic_of(catalogue: Catalogue, question: str) -> Topic | None:
    """The topic whose own question this is; else the one whose words stand in it, the longest words first."""
    words = normalise(question)
    # A topic's own question may hold words of another topic, so it is looked for first.
    own = [topic for topic in catalogue.topics.values() if normalise(topic.question) == words]
    if own:
        return own[0]
    asked = f" {words} "
    # Ties go by name, so that the same question always gets the same answer.
    found = [(len(w), name) for name, topic in catalogue.topics.items() for w in topic.words if f" {w} " in asked]
    return catalogue.topics[max(found)[1]] if found else None


def answer(catalogue: Catalogue, thing: str, question: str) -> Answer:
    """The scripted partner's answer, knowing that it is `thing`."""
    guess = guessed(catalogue, question)
    if guess is not None:
        right = guess == thing
        return Answer(kind="right" if right else "wrong", text="Yes." if right else "No.", value=guess)
    asked = f" {normalise(question)} "
    topic = topic_of(catalogue, question)
    # "Is the city in Asia?" names a value; the topic alone would be answered by a sentence.
    named = _named_value(catalogue, asked, topic)
    if named is not None:
        topic_name, value = named
        said = "yes" if catalogue.things[thing][topic_name] == value else "no"
        return Answer(kind="fact", text=f"{said.capitalize()}.", topic=f"{topic_name}={value}", value=said)
    # A yes to a negated question can be read both ways. `normalise` has made "isn t" of "isn't".
    if topic is None or " not " in asked or "isn t" in asked:
        return Answer(kind="unclear", text="I cannot tell.")
    value = catalogue.things[thing][topic.name]
    text = topic.says.format(value) if topic.is_open else f"{value.capitalize()}."
    return Answer(kind="fact", text=text, topic=topic.name, value=value)


def _named_value(catalogue: Catalogue, asked: str, topic: Topic | None) -> tuple[str, str] | None:
    """`Do you speak French?` names a value of an open topic: it is answered by yes or no."""
    if topic is not None and not topic.is_open:
        return None
    for name, opened in catalogue.topics.items():
        if not opened.is_open or (topic is not None and topic.name != name):
            continue
        values = {facts[name] for facts in catalogue.things.values()}
        # Longest first: one value may be a word of another one.
        for value in sorted(values, key=lambda v: (-len(v), v)):
            if f" {normalise(value)} " in asked:
                return name, value
    return None


def candidates(catalogue: Catalogue, asked: Sequence[tuple[str, str]], wrong: Sequence[str]) -> list[str]:
    """The things that agree with every fact heard and are not among the wrong guesses."""
    return [
        n for n, facts in catalogue.things.items() if n not in wrong and all(_agrees(facts, t, v) for t, v in asked)
    ]


def _agrees(facts: Mapping[str, str], topic: str, value: str) -> bool:
    name, _, named = topic.partition("=")
    # A closed question about an open topic is kept as `topic=value`, see `answer`.
    return (facts[name] == named) == (value == "yes") if named else facts[name] == value


def best_question(catalogue: Catalogue, asked: Sequence[tuple[str, str]], wrong: Sequence[str]) -> str:
    """The name itself where one or two things are left, else the question whose answer tells most (entropy).

    Raises:
        ValueError: nothing agrees with what was heard.
    """
    left = candidates(catalogue, asked, wrong)
    if not left:
        raise ValueError("no thing of the catalogue agrees with these answers")
    telling = {name: entropy([catalogue.things[n][name] for n in left]) for name in catalogue.topics}
    name = max(telling, key=lambda n: telling[n])
    # A guess costs as much as a question. With two things left no question does better.
    if len(left) <= 2 or telling[name] == 0.0:
        return f"Is it {left[0]}?"
    return catalogue.topics[name].question


def entropy(values: Sequence[str]) -> float:
    """Of the shares of equal values, in nats."""
    counts, total = Counter(values), len(values)
    # Adding 0.0 turns -0.0 into 0.0.
    return -sum(n / total * math.log(n / total) for n in counts.values()) + 0.0
