"""WebShop's reward: how much of what was asked for was bought.

    r = r_type * (attributes matched + options matched + [price <= limit]) / (attributes + options + 1)

`r_type` judges whether it is the right sort of thing at all, by query, categories and shared nouns of the titles.

Source: WebShop, arXiv:2207.01206, with the numbers of its published code.
"""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass
from difflib import SequenceMatcher

from ..pages.words import COLOURS

MATCH_ABOVE = 85.0
"""Percent of similarity from which on two short texts count as the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseGoal:
    """What is asked for. `limit` in money units; `categories` from the general to the particular."""

    query: str
    title: str
    categories: tuple[str, ...]
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What was bought."""

    query: str
    title: str
    categories: tuple[str, ...]
    attributes: tuple[str, ...]
    text: str
    options: tuple[str, ...]
    price: float

    @classmethod
    def latest(cls, db: sqlite3.Connection, *, after: int) -> Purchase | None:
        """The first line of the order that was placed after the first `after` ones; None where there is none."""
        row = db.execute(
            "select product.*, line.options as chosen from orders join line on line.order_id = orders.id "
            "join product on product.id = line.product_id order by orders.id, line.id limit 1 offset ?",
            (after,),
        ).fetchone()
        if row is None:
            return None
        return cls(
            query=row["category"],
            title=row["title"],
            categories=tuple(json.loads(row["path"])),
            attributes=tuple(json.loads(row["attributes"])),
            text=f"{row['title']} {row['bullets']} {row['description']}".lower(),
            options=tuple(row["chosen"].split(", ")) if row["chosen"] else (),
            price=row["cents"] / 100,
        )


def purchase_reward(goal: PurchaseGoal, bought: Purchase) -> float:
    """WebShop's reward in [0, 1]; 1 means that all was met."""
    wanted = len(goal.attributes) + len(goal.options) + 1
    met = sum(_has_attribute(bought, attribute) for attribute in goal.attributes)
    met += sum(_has_option(bought, option) for option in goal.options)
    met += bought.price <= goal.limit
    same_query = bought.query == goal.query
    shared = len(set(bought.categories) & set(goal.categories))
    score = title_score(bought.title, goal.title)
    return type_reward(same_query=same_query, shared_categories=shared, title=score) * met / wanted


def type_reward(*, same_query: bool, shared_categories: int, title: float) -> float:
    """The factor for the right sort of thing: 1, 0.5, 0.1 or 0. Low title scores override everything else."""
    if title == 0.0:
        return 0.0
    if title < 0.1:
        return 0.1
    return 1.0 if same_query or shared_categories >= 2 or title > 0.2 else 0.5


def title_score(bought: str, wanted: str) -> float:
    """Share of the wanted title's nouns that the bought title has; 0.2 where the wanted title has no noun."""
    nouns = _nouns(wanted)
    return len(nouns & _nouns(bought)) / len(nouns) if nouns else 0.2


def similarity(a: str, b: str) -> float:
    """Percent of similarity of two texts as sets of words: 100 where one holds all words of the other."""
    left, right = set(_words(a)), set(_words(b))
    common = " ".join(sorted(left & right))
    only_left = " ".join([common, *sorted(left - right)]).strip()
    only_right = " ".join([common, *sorted(right - left)]).strip()
    pairs = [(common, only_left), (common, only_right), (only_left, only_right)]
    return 100 * max(SequenceMatcher(None, x, y).ratio() for x, y in pairs if x or y) if left and right else 0.0


def _has_attribute(bought: Purchase, attribute: str) -> bool:
    close = any(similarity(attribute, own) > MATCH_ABOVE for own in bought.attributes)
    return close or attribute.lower() in bought.text


def _has_option(bought: Purchase, option: str) -> bool:
    return any(similarity(_colour(option), _colour(own)) > MATCH_ABOVE for own in bought.options)


def _colour(option: str) -> str:
    """An option that names a colour, reduced to it: `dark blue` and `blue melange` are `blue`."""
    return next((colour for colour in COLOURS if colour in _words(option)), option.lower())


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


# Titles of the shop are brand, quality, material and noun; only the noun says what the thing is.
def _nouns(title: str) -> set[str]:
    from ..pages.words import GOODS

    known = {noun for nouns in GOODS.values() for noun in nouns}
    return set(_words(title)) & known
