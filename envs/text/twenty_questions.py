"""LMRL-Gym's twenty questions: find one of 158 objects by questions that are answered by yes or no.

Rewards and limit are the benchmark's (`conversations.guessing`). Its partner is a fine-tuned model of 3 billion
weights; ours answers from a table of 56 traits, at once and always alike, and says "I cannot tell." where it does not
understand. So questions must use everyday words ("Is it an animal?", "Does it have wheels?"). A model may answer
instead (`partner`). The objects and traits are our own (as many objects as the benchmark has), so returns are on the
benchmark's scale but belong to this list: the best known policy of the benchmark earns -12.6; our teacher,
who knows the table, -7.9.

Source: arXiv:2311.18232 (rules, rewards, limit, number of objects).
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from rollwright.envs.text.conversations.guessing import GuessingWorld, Hidden
from rollwright.envs.text.conversations.knowledge import Catalogue, Topic
from rollwright.envs.text.conversations.partner import Partner, load_partner


@cache
def catalogue() -> Catalogue:
    """The objects and their traits, from the file beside this module."""
    lines = resources.files(__package__).joinpath("twenty_questions.txt").read_text(encoding="utf-8").splitlines()
    topics = dict(_topic(line) for line in lines if line.startswith("topic "))
    traits: dict[str, set[str]] = {}
    for line in lines:
        if line.startswith("is "):
            # One line per group: traits of all of its objects, then the objects with their own in parentheses.
            traits |= _things(line)
    # What is not listed is a no, so that every trait of every object has an answer.
    things = {name: {t: "yes" if t in has else "no" for t in topics} for name, has in traits.items()}
    return Catalogue(things=things, topics=topics)


def _topic(line: str) -> tuple[str, Topic]:
    name, question, words = (part.strip() for part in line.removeprefix("topic ").split("|"))
    return name, Topic(name=name, question=question, words=tuple(word.strip() for word in words.split(",")))


def _things(line: str) -> dict[str, set[str]]:
    common, _, listed = line.removeprefix("is ").partition("=")
    found = re.findall(r"([a-z_]+)(?:\(([^)]*)\))?", listed)
    return {name.replace("_", " "): {*common.split(), *own.split()} for name, own in found}


def build(
    *, hidden: Hidden = "seed", partner: Partner | str | None = None, partner_deadline_s: float = 60.0
) -> GuessingWorld:
    """Twenty questions.

    Args:
        hidden: "seed": any object in any split, drawn by the split's own seeds, as in the benchmark; "held_out": the
            objects of validation and test are never hidden in training.
        partner: who answers in place of the table: a callable (`conversations.partner.Partner`) or the name
            `package.module:make` of a function that makes one. Guesses are judged by the rules all the same.
        partner_deadline_s: seconds the partner may take for an answer; beyond it is a fault.

    Raises:
        ConfigError: an option has no such value.
    """
    return GuessingWorld(
        name="text.twenty_questions",
        catalogue=catalogue(),
        instructions="Find out which object is meant. Ask a question that is answered by yes or no, or guess: Is it X?",
        goal="Find the object within 20 questions.",
        role="You think of this object: {}. Answer the question truthfully with Yes. or No. and nothing else.",
        hidden=hidden,
        partner=load_partner(partner),
        partner_deadline_s=partner_deadline_s,
    )
