"""LMRL-Gym's guess my city: find out which of 100 cities somebody comes from, without being told its name or country.

Rewards and limit are the benchmark's (`conversations.guessing`). Questions may be open ("Which language do
people speak?") or closed ("Do you speak French?"). The partner answers from a table of seven facts a city, and says
"I cannot tell." where it does not understand; a model may answer instead (`partner`). The cities are our own choice
(as many as the benchmark has) and the facts are rough, for a game. So returns are on the benchmark's scale but belong
to this list: the best known policy of the benchmark earns -8.56, our teacher, who knows the table, -2.1.

Source: arXiv:2311.18232 (rules, rewards, limit, number of cities).
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from rollwright.envs.text.conversations.guessing import GuessingWorld, Hidden
from rollwright.envs.text.conversations.knowledge import Catalogue, Topic
from rollwright.envs.text.conversations.partner import Partner, load_partner

_TOPICS = (
    Topic(
        name="continent",
        question="On which continent do you live?",
        words=("continent", "part of the world"),
        says="I live in {}.",
    ),
    Topic(
        name="language",
        question="Which language do people speak?",
        words=("language", "speak", "languages", "spoken"),
        says="People here speak {}.",
    ),
    Topic(name="sea", question="Is it by the sea?", words=("sea", "coast", "ocean", "beach", "port", "harbour")),
    Topic(name="capital", question="Is it a capital?", words=("capital", "seat of government")),
    Topic(
        name="size",
        question="How big is your city?",
        words=("how big", "size", "population", "how many people", "inhabitants"),
        says="It is a {} city.",
    ),
    Topic(
        name="climate",
        question="What is the weather like?",
        words=("weather", "climate", "temperature", "winters", "summers"),
        says="The weather is {}.",
    ),
    Topic(
        name="hemisphere",
        question="Which hemisphere is it?",
        words=("hemisphere", "equator"),
        says="It is in the {} hemisphere.",
    ),
)


@cache
def catalogue() -> Catalogue:
    """The cities and their facts, from the file beside this module."""
    text = resources.files(__package__).joinpath("cities.txt").read_text(encoding="utf-8")
    # Lines with `#` explain the columns.
    rows = [[part.strip() for part in line.split("|")] for line in text.splitlines() if not line.startswith("#")]
    names = [topic.name for topic in _TOPICS]
    # Strict: a line that lacks a fact is refused and not filled wrongly.
    things = {name: dict(zip(names, facts, strict=True)) for name, *facts in rows}
    return Catalogue(things=things, topics={topic.name: topic for topic in _TOPICS})


def build(
    *, hidden: Hidden = "seed", partner: Partner | str | None = None, partner_deadline_s: float = 60.0
) -> GuessingWorld:
    """Guess my city.

    Args:
        hidden: "seed": any city in any split, drawn by the split's own seeds, as in the benchmark; "held_out": the
            cities of validation and test are never hidden in training.
        partner: who answers in place of the table: a callable (`conversations.partner.Partner`) or the name
            `package.module:make` of a function that makes one. Guesses are judged by the rules all the same.
        partner_deadline_s: seconds the partner may take for an answer; beyond it is a fault.

    Raises:
        ConfigError: an option has no such value.
    """
    return GuessingWorld(
        name="text.guess_city",
        catalogue=catalogue(),
        instructions="Find out which city somebody comes from. Ask one question about it, or guess: Is it X?",
        goal="Find the city within 20 questions.",
        role=(
            "You come from {}. Answer questions about your city truthfully in one sentence. "
            "Never say the name of the city or of its country."
        ),
        hidden=hidden,
        partner=load_partner(partner),
        partner_deadline_s=partner_deadline_s,
    )
