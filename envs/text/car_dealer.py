"""LMRL-Gym's car dealer: sell a car to a buyer with wishes, a budget and a character, for as much as it will pay.

The reward comes at the end, on the benchmark's scales: "revenue" is the price in thousands of dollars if bought, else
0; "fancy" is the price over the mean of budget and list price if bought, else -(budget - MSRP) / MSRP. A talk has at
most 50 lines, the seller's and the buyer's: 25 turns. The benchmark's buyer is a fine-tuned model; ours follows rules
(`conversations.car_rules`), and a model may word its lines (`partner`): what it decides stays with the rules, so
that no fine words change a return.

Source: arXiv:2311.18232 (rules, rewards, limit). Cars, buyers and numbers are our own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

from rollwright.contracts import (
    AuditFacts,
    ConfigError,
    Environment,
    Execution,
    FingerprintKind,
    Message,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
)
from rollwright.envs.text.conversations.car_rules import (
    BRANDS,
    FEATURES,
    LOT,
    ONE_OFFER,
    TYPES,
    Buyer,
    Car,
    Talk,
    best_offer,
    draw_buyer,
    fancy,
    greeting,
    respond,
    revenue,
)
from rollwright.envs.text.conversations.partner import Partner, ask, execution_with, load_partner
from rollwright.envs.text.game import AsyncGameEnvironment, GameEnvironment, check_seed, draw, plain, state_in

Scale = Literal["revenue", "fancy"]
MAX_TURNS = 25
GOAL = "Sell a car for as much as you can get."


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing:
    """The talk as the rules see it, and the lines as they were said: (seller, buyer)."""

    seed: int
    talk: Talk
    lines: tuple[tuple[str, str], ...] = ()


class Salesman:
    """Offers the car that this buyer pays most for, at that price. It looks into the buyer's mind."""

    def act(self, env: Environment, observation: Observation) -> str:
        """The next line of the sale. Raises TypeError in another world's environment."""
        known = isinstance(env, GameEnvironment | AsyncGameEnvironment) and isinstance(env.state, Dealing)
        if not known:
            raise TypeError(f"this teacher sells cars, it does not play {type(env).__name__}")
        talk = env.state.talk  # type: ignore[attr-defined]
        # The buyer judges an offer after its turn has been counted, and bargainers pay more with each turn.
        return offer(*best_offer(talk.buyer, talk.turns + 1))


def offer(car: Car, price: int) -> str:
    """The seller's words for it."""
    return f"I can offer you the {car.name} for {price} dollars."


class CarDealerWorld:
    """The game and its world. Build it with `build`."""

    name = "text.car_dealer"
    version = "2"  # since 2 a list of offers sells nothing
    snapshots: SnapshotKind = "exact"
    fingerprint_kind: FingerprintKind = "history"
    state_type = Dealing
    max_turns = MAX_TURNS

    def __init__(self, *, scale: Scale, partner: Partner | None, partner_deadline_s: float) -> None:
        self.execution: Execution = execution_with(partner)
        # A snapshot of other rules or another wording must not be restored here.
        self.identity = f"{self.name}/{scale}/{'scripted' if partner is None else 'partner'}"
        lot = "; ".join(f"{car.name}, {car.type}, {', '.join(car.features)}, {car.msrp} dollars" for car in LOT)
        self.instructions = (
            f"You sell cars. Talk with the buyer, offer a car by its name and a price, or accept the buyer's offer. "
            f"On the lot, with list prices: {lot}."
        )
        self._scale, self._partner, self._deadline_s = scale, partner, partner_deadline_s

    def tasks(self, split: Split) -> list[Task]:
        """One task; the seed draws the buyer."""
        return [Task(id=f"{split}/buyer", split=split)]

    def make(self) -> GameEnvironment[Dealing] | AsyncGameEnvironment[Dealing]:
        """A fresh environment; one that waits for a partner is async."""
        return GameEnvironment(self) if self._partner is None else AsyncGameEnvironment(self)

    def teacher(self, task: Task) -> Salesman:
        """Sells by the buyer's rules, since it knows them."""
        return Salesman()

    def audit_facts(self, task: Task) -> AuditFacts:
        """Success is a sale, and the reward its price: any single offer within the buyer's limits truly sells."""
        told = "a single offer of a fitting car within the buyer's limits is a real sale, at that price"
        return AuditFacts(solved_by=dict.fromkeys(("constant", "wrong step", "repeat", "loop", "random"), told))

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """An offer of any car, at up to a third more or less than its list price; or it takes what the buyer offers."""
        if state_in(env, Dealing).talk.offered and draws.random() < 0.25:
            return "Deal."
        car = draws.choice(LOT)
        return offer(car, round(car.msrp * draws.uniform(0.67, 1.33), -2))

    def begin(self, task: Task, seed: int) -> tuple[Dealing, Observation]:
        """Draw a buyer, who speaks first."""
        check_seed(task, seed)
        buyer = draw_buyer(draw(seed, self.name))
        return Dealing(seed=seed, talk=Talk(buyer=buyer)), Observation(text=greeting(buyer), goal=GOAL)

    def play(self, state: Dealing, action: str) -> tuple[Dealing, StepResult]:
        """The buyer's answer by the rules."""
        # A bound on what the patterns have to search.
        talk, line = respond(state.talk, action[:2000])
        return self._settle(state, action, talk, line)

    async def play_async(self, state: Dealing, action: str) -> tuple[Dealing, StepResult]:
        """As `play`; the partner says in its own words what the rules have decided."""
        talk, line = respond(state.talk, action[:2000])
        if self._partner is not None:
            messages = self.messages(state, action, line)
            # A seed of its own for each line, fixed by the episode, so that a sampling partner repeats itself.
            line = await ask(self._partner, messages, seed=state.seed + talk.turns, deadline_s=self._deadline_s)
        return self._settle(state, action, talk, line)

    def messages(self, state: Dealing, said: str, meaning: str) -> list[Message]:
        """What a partner is given: who it is, the talk so far, and what it is to say."""
        buyer = state.talk.buyer
        role = f"You buy a car. You are a {buyer.character} buyer. Say what you are told to say in your own words."
        # Turned around: for the partner, the seller is the user and the buyer the assistant.
        found: list[Message] = [Message(role="system", content=role)]
        for seller, answered in state.lines:
            found += [Message(role="user", content=seller), Message(role="assistant", content=answered)]
        told = f"The seller says: {plain(said, limit=300)}\nYou mean: {meaning}\nYour words:"
        return [*found, Message(role="user", content=told)]

    def _settle(self, state: Dealing, action: str, talk: Talk, line: str) -> tuple[Dealing, StepResult]:
        after = Dealing(seed=state.seed, talk=talk, lines=(*state.lines, (plain(action, limit=300), line)))
        # Before the end it is what an unsold car is worth, and it is paid only at a cut.
        earned = revenue(talk) if self._scale == "revenue" else fancy(talk)
        if talk.outcome == "open":
            cut = talk.turns >= self.max_turns  # nothing sold within the limit is worth what an unsold car is worth
            return after, StepResult(observation=line, reward=earned if cut else 0.0)
        return after, StepResult(observation=line, reward=earned, terminated=True, success=talk.outcome == "bought")

    def key(self, state: Dealing) -> str:
        """The talk so far, and its lines."""
        return repr((state.talk, state.lines))

    def texts(self) -> list[str]:
        """Names, numbers as digits, and the buyer's sentences."""
        car = LOT[0]
        # Loyal, since only they name their brand; and patient, so that no answer is a goodbye.
        buyers = [Buyer(character="loyal", budget=1, brand=b, type=t, feature=f, patience=9) for b, t, f in _mixed()]
        said = [greeting(buyer) for buyer in buyers]
        talk = Talk(buyer=buyers[0])
        asked = ("your budget", "which brand", "what do you want", "hm", car.name, "Velto Corso", f"{car.name} 99999")
        said += [respond(talk, words)[1] for words in asked]
        fixed = [ONE_OFFER, "I have no more time. Goodbye.", "Deal, 1 dollars.", "Yes, I buy the car for 1 dollars."]
        digits = " ".join("0123456789")
        offer = [f"I can offer you the {c.name} for 1 dollars. {c.msrp} {c.type}" for c in LOT]
        return [self.instructions, GOAL, *said, *fixed, digits, *offer]

    def close(self) -> None:
        """Nothing is held; whoever made the partner closes it."""


def _mixed() -> list[tuple[str, str, str]]:
    longest = max(len(BRANDS), len(TYPES), len(FEATURES))
    return [(BRANDS[i % len(BRANDS)], TYPES[i % len(TYPES)], FEATURES[i % len(FEATURES)]) for i in range(longest)]


def build(
    *, scale: Scale = "revenue", partner: Partner | str | None = None, partner_deadline_s: float = 60.0
) -> CarDealerWorld:
    """The car dealer.

    Args:
        scale: which of the benchmark's two rewards.
        partner: who words the buyer's lines: a callable (`conversations.partner.Partner`), or the name
            `package.module:make` of a function that makes one.
        partner_deadline_s: seconds the partner may take for a line; beyond it is a fault.

    Raises:
        ConfigError: an option has no such value.
    """
    if scale not in get_args(Scale):
        raise ConfigError(f"text.car_dealer has no scale {scale!r}; expected one of {', '.join(get_args(Scale))}")
    if partner_deadline_s <= 0:
        raise ConfigError(f"text.car_dealer needs partner_deadline_s above 0, got {partner_deadline_s}")
    return CarDealerWorld(scale=scale, partner=load_partner(partner), partner_deadline_s=partner_deadline_s)
