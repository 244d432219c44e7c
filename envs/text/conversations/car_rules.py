"""The buyer of the car dealer game: what it wants, what it would pay, how it answers. Pure functions.

The paper describes buyers who differ in budget, wishes and character, and a language model plays them; here a rule
plays them. Cars, buyers and numbers are our own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

Character = Literal["bargainer", "loyal", "hurried"]
CHARACTERS: tuple[Character, ...] = get_args(Character)


@dataclass(frozen=True, slots=True, kw_only=True)
class Car:
    """One car on the lot. `msrp`: the list price in dollars."""

    name: str
    brand: str
    type: str
    features: tuple[str, ...]
    msrp: int


def _car(line: str) -> Car:
    name, kind, msrp, features = (part.strip() for part in line.split("|"))
    return Car(name=name, brand=name.split()[0], type=kind, msrp=int(msrp), features=tuple(features.split(", ")))


_LOT = """
Norda Lark | hatchback | 17500 | good mileage, rear camera
Norda Finch | sedan | 22500 | good mileage, heated seats
Norda Heron | suv | 31000 | rear camera, third row
Norda Osprey | pickup | 36500 | towing package, rear camera
Velto Uno | hatchback | 19000 | sunroof, good mileage
Velto Corso | sedan | 27500 | sunroof, leather seats
Velto Duna | suv | 38000 | all-wheel drive, leather seats
Velto Toro | pickup | 41000 | towing package, all-wheel drive
Kessler K1 | hatchback | 26000 | heated seats, leather seats
Kessler K3 | sedan | 39000 | leather seats, all-wheel drive
Kessler K5 | suv | 52000 | third row, heated seats
Kessler K7 | pickup | 55000 | towing package, heated seats
Arami Spark | hatchback | 29500 | good mileage, rear camera
Arami Wave | sedan | 34000 | rear camera, sunroof
Arami Terra | suv | 45000 | all-wheel drive, sunroof
Arami Rock | pickup | 47500 | all-wheel drive, leather seats
"""
LOT: tuple[Car, ...] = tuple(_car(line) for line in _LOT.strip().splitlines())
BRANDS = tuple(dict.fromkeys(car.brand for car in LOT))
TYPES = tuple(dict.fromkeys(car.type for car in LOT))
FEATURES = tuple(sorted({feature for car in LOT for feature in car.features}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """What the buyer wants and can pay (dollars), and after how many turns it leaves."""

    character: Character
    budget: int
    brand: str
    type: str
    feature: str
    patience: int


def draw_buyer(rng: random.Random, characters: Sequence[Character] = CHARACTERS) -> Buyer:
    """A buyer for whom at least one car of the lot is right and within the budget."""
    # The wishes are those of one real car, so that at least that car fits all of them.
    wished = rng.choice(LOT)
    character = rng.choice(list(characters))
    return Buyer(
        character=character,
        # Rounded down to hundreds, which keeps at least the list price: those are multiples of 100.
        budget=int(wished.msrp * rng.uniform(1.0, 1.3)) // 100 * 100,
        brand=wished.brand,
        type=wished.type,
        feature=rng.choice(wished.features),
        patience={"bargainer": 20, "loyal": 16, "hurried": 8}[character],
    )


def reserve(buyer: Buyer, car: Car, turns: int) -> int:
    """The most that the buyer pays for this car after `turns` turns, in dollars; 0 for a car of another type.

    A share of the list price, by character: the hurried pay all of it, the loyal 5% more for their brand and 10% less
    for others, bargainers 85% at first and 1% more with each turn, up to 95%. A missing feature costs a tenth.
    """
    if car.type != buyer.type:
        return 0
    share = {
        "hurried": 1.0,
        "loyal": 1.05 if car.brand == buyer.brand else 0.9,
        "bargainer": min(0.85 + 0.01 * turns, 0.95),
    }[buyer.character]
    # Points of the list price and no factor, whatever the character pays.
    share -= 0.0 if buyer.feature in car.features else 0.1
    return min(buyer.budget, int(car.msrp * share))


def best_offer(buyer: Buyer, turns: int) -> tuple[Car, int]:
    """The car that this buyer would pay most for now, and how much."""
    car = max(LOT, key=lambda c: reserve(buyer, c, turns))
    return car, reserve(buyer, car, turns)


# Three digits and fewer count only with a k, so that K5 or "2 seats" is no price; longer numbers are none either.
_PRICE = re.compile(
    r"(?<!\d)\$?\s?(\d{1,3}(?:,\d{3})+|\d{4,6})(?!\d)|(?<!\d)\$?\s?(\d{1,3}(?:\.\d)?)\s?k\b", re.IGNORECASE
)
MAX_PRICE = 999_999


def price_in(text: str) -> int | None:
    """The last price a sentence names: `$23,500`, `23500`, `23.5k`. None where it names none."""
    found = None
    for match in _PRICE.finditer(text):
        plain, thousands = match.groups()
        found = int(plain.replace(",", "")) if plain else int(float(thousands) * 1000)
    # Nothing is bought for more; the bound keeps absurd numbers out of the talk.
    return None if found is None else min(found, MAX_PRICE)


def car_in(text: str) -> Car | None:
    """The car of the lot that a sentence names last."""
    words = text.lower()
    # The last car that was named is the one that is offered: sellers mention others first.
    places = [(words.rfind(car.name.lower()), car) for car in LOT]
    last = max(places, key=lambda found: found[0])
    return last[1] if last[0] >= 0 else None


ONE_OFFER = "One car and one price at a time, please."
Outcome = Literal["open", "bought", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Where the talk stands: the car and the price last named, the buyer's own offer, and how it ended."""

    buyer: Buyer
    turns: int = 0
    car: str = ""
    asked: int = 0
    offered: int = 0
    outcome: Outcome = "open"


def greeting(buyer: Buyer) -> str:
    """What the buyer says first: type and feature, and the brand if it is loyal."""
    brand = f"{buyer.brand} " if buyer.character == "loyal" else ""
    return f"Hello. I am looking for a {brand}{buyer.type} with {buyer.feature}."


def respond(talk: Talk, said: str) -> tuple[Talk, str]:
    """The buyer's answer to the seller's words, and the talk after it.

    An offer is a car and a price; a list of several cars with several prices is none. It is bought if the price is not
    above the reserve. The seller may also accept what the buyer offered. A question about budget, type, brand or
    feature is answered; else the wish is said again.
    """
    # Before anything is read off it: of a list, the last car and price would pass for an offer.
    if _is_list(said):
        after = replace(talk, turns=talk.turns + 1)
        left = after.turns >= talk.buyer.patience
        return (replace(after, outcome="left"), "I have no more time. Goodbye.") if left else (after, ONE_OFFER)
    # A price alone is meant for the car that was spoken of last.
    car = car_in(said) or _named(talk.car)
    price = price_in(said)
    named = car.name if car else ""
    offered = talk.offered if named == talk.car else 0  # what was offered was offered for that car
    after = replace(talk, turns=talk.turns + 1, car=named, asked=price or talk.asked, offered=offered)
    # A price beside the word makes it a new offer: "deal for 50000" accepts nothing.
    if price is None and offered and _accepts(said):
        return replace(after, asked=offered, outcome="bought"), f"Deal, {offered} dollars."
    # Judged before patience is: a fair offer in the last turn is still bought.
    if car is not None and price is not None:
        return _judge(after, car, price)
    if after.turns >= talk.buyer.patience:
        return replace(after, outcome="left"), "I have no more time. Goodbye."
    return after, _small_talk(talk.buyer, car_in(said), said)


def _judge(talk: Talk, car: Car, price: int) -> tuple[Talk, str]:
    """What the buyer makes of an offer."""
    most = reserve(talk.buyer, car, talk.turns)
    if 0 < price <= most:
        return replace(talk, outcome="bought"), f"Yes, I buy the {car.name} for {price} dollars."
    if talk.turns >= talk.buyer.patience:
        return replace(talk, outcome="left"), "I have no more time. Goodbye."
    if price <= 0 or most == 0:
        return replace(talk, offered=0), f"No, I want a {talk.buyer.type}, not a {car.type}."
    # Below what the buyer would pay, so that bargaining on can be worth something.
    counter = int(most * 0.95) // 100 * 100
    return replace(talk, offered=counter), f"That is too much. I would pay {counter} dollars for the {car.name}."


def _is_list(said: str) -> bool:
    """Whether the words name several cars and several prices: a seller who lists everything has offered nothing."""
    cars = sum(car.name.lower() in said.lower() for car in LOT)
    # Different prices only: a seller may name two cars and repeat one price.
    return cars > 1 and len({match.group(0).strip() for match in _PRICE.finditer(said)}) > 1


def _accepts(said: str) -> bool:
    # Whole words: a dealer has not dealt.
    return re.search(r"\b(deal|accept|agreed|agree|sold)\b", said.lower()) is not None


def _named(name: str) -> Car | None:
    return next((car for car in LOT if car.name == name), None)


def _small_talk(buyer: Buyer, car: Car | None, said: str) -> str:
    words = said.lower()
    if car is not None:
        return f"What does the {car.name} cost?" if car.type == buyer.type else f"I do not want a {car.type}."
    if re.search(r"\b(budget|spend|pay|afford|price range)\b", words):
        # Rounded, so that asking does not give the exact limit away.
        return f"I can spend about {buyer.budget // 1000 * 1000} dollars."
    if re.search(r"\b(brand|make)\b", words):
        return f"I like {buyer.brand}."
    if re.search(r"\b(feature|features|need|want|looking)\b", words):
        return f"I want a {buyer.type} with {buyer.feature}."
    return f"Which {buyer.type} do you have, and what does it cost?"


def revenue(talk: Talk) -> float:
    """The price in thousands of dollars if bought, else 0."""
    return talk.asked / 1000 if talk.outcome == "bought" else 0.0


def fancy(talk: Talk) -> float:
    """Price over the mean of budget and list price if bought; else -(budget - MSRP) / MSRP, as in the benchmark.

    Where no car was ever named, the car that this buyer would have paid most for stands in.
    """
    # The benchmark's formula needs a list price also where nothing was offered.
    car = _named(talk.car) or best_offer(talk.buyer, talk.turns)[0]
    if talk.outcome == "bought":
        return talk.asked / ((talk.buyer.budget + car.msrp) / 2)
    return -(talk.buyer.budget - car.msrp) / car.msrp
