"""Twenty questions, guess my city, car dealer: the benchmark's scales, the partners' rules, models as partners."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import World, as_observation, episode_seed
from rollwright.contracts.errors import ConfigError, EnvironmentFault
from rollwright.contracts.record import SPLITS, Message
from rollwright.envs.text import car_dealer, guess_city, twenty_questions
from rollwright.envs.text.conversations import car_rules, guessing
from rollwright.envs.text.conversations.knowledge import answer, best_question, guessed
from rollwright.envs.text.conversations.partner import SILENCE, EnginePartner

QUESTIONS = twenty_questions.build()
CITIES = guess_city.build()


def play_out(world: guessing.GuessingWorld, thing: str) -> float:
    """The teacher's return when `thing` is hidden."""
    state, total, ended = guessing.Guessing(seed=0, thing=thing), 0.0, False
    while not ended:
        state, result = world.play(state, best_question(world.catalogue, state.heard, state.wrong))
        total, ended = total + sum(result.rewards.values()), result.terminated
    return total


@pytest.mark.parametrize(
    ("world", "size", "mean"), [(QUESTIONS, 158, -7.886), (CITIES, 100, -2.08)], ids=["20q", "city"]
)
def test_the_teacher_finds_everything_within_twenty(world: guessing.GuessingWorld, size: int, mean: float) -> None:
    """Random play earns -20 (below); the benchmark's best are -12.6 and -8.56 on its own lists."""
    returns = [play_out(world, thing) for thing in world.catalogue.things]
    assert len(returns) == size and world.max_turns == 20
    assert min(returns) > guessing.MIN_RETURN and sum(returns) / size == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("world", [QUESTIONS, CITIES], ids=["20q", "city"])
def test_twenty_wrong_turns_are_worth_minus_twenty(world: guessing.GuessingWorld) -> None:
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 1))
    results = [env.step(words) for words in ["What?", "Is it a spaceship from Mars?"] * 10]
    assert sum(sum(r.rewards.values()) for r in results) == -20.0
    assert results[-1].truncated and results[-1].success is False and not any(r.truncated for r in results[:-1])


@pytest.mark.parametrize("world", [QUESTIONS, CITIES], ids=["20q", "city"])
def test_every_question_of_the_teacher_is_understood_as_its_topic(world: guessing.GuessingWorld) -> None:
    thing = next(iter(world.catalogue.things))
    for name, topic in world.catalogue.topics.items():
        found = answer(world.catalogue, thing, topic.question)
        assert (found.kind, found.topic) == ("fact", name) and found.value == world.catalogue.things[thing][name]
    for name in world.catalogue.things:
        for words in (f"Is it {name}?", f"is it the {name.upper()}", f"I think it is a {name}!"):
            assert guessed(world.catalogue, words) == name, words


@pytest.mark.parametrize(
    ("thing", "question", "said"),
    [
        ("dog", "Does it have fur?", "Yes."),
        ("dog", "Can I eat it for dinner?", "No."),
        ("dog", "Is it a dog?", "Yes."),
        ("dog", "dog", "Yes."),
        ("dog", "Does it bark like a dog?", "I cannot tell."),  # no guess: something of meaning stands before the name
        ("dog", "Is it not an animal?", "I cannot tell."),
        ("dog", "Why?", "I cannot tell."),
        ("ice cream", "Is it ice cream?", "Yes."),
        ("hammer", "Could it be made of steel?", "Yes."),
    ],
)
def test_answers_of_twenty_questions(thing: str, question: str, said: str) -> None:
    assert answer(QUESTIONS.catalogue, thing, question).text == said


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("Which language is spoken there?", "People here speak French."),
        ("Do you speak French?", "Yes."),
        ("Do people speak German?", "No."),
        ("Is it in Europe?", "Yes."),
        ("Is it in South America?", "No."),
        ("Do you have a beach?", "No."),
        ("How many people live there?", "It is a huge city."),
        ("Are you from Lyon?", "No."),
        ("Is your city Paris?", "Yes."),
        ("What is your name?", "I cannot tell."),
    ],
)
def test_answers_of_guess_my_city(question: str, said: str) -> None:
    assert answer(CITIES.catalogue, "Paris", question).text == said


def test_the_city_is_never_told() -> None:
    """No answer to any question of a topic names a city; a yes or no to a guess does not count as telling."""
    names = {name.lower() for name in CITIES.catalogue.things}
    for thing in CITIES.catalogue.things:
        for topic in CITIES.catalogue.topics.values():
            said = answer(CITIES.catalogue, thing, topic.question).text.lower()
            assert not any(name in said.split() for name in names)


def test_held_out_things_are_apart_and_seeds_draw_all() -> None:
    world = twenty_questions.build(hidden="held_out")
    parts = [set(world.things_of(split)) for split in SPLITS]
    assert [len(part) for part in parts] == [127, 16, 15] and len(set.union(*parts)) == 158
    drawn = {QUESTIONS.begin(QUESTIONS.tasks("train")[0], episode_seed("train", i))[0].thing for i in range(1500)}
    assert len(drawn) > 150


# The car dealer

BUYER = car_rules.Buyer(character="hurried", budget=30_000, brand="Velto", type="sedan", feature="sunroof", patience=3)


def test_the_buyer_by_hand() -> None:
    """Velto Corso: a sedan with a sunroof at 27,500; the hurried pay all of it, and 0.9 without the feature."""
    corso, finch, terra = (car for car in car_rules.LOT if car.name in ("Velto Corso", "Norda Finch", "Arami Terra"))
    if corso.name != "Velto Corso":
        corso, finch = finch, corso
    assert car_rules.reserve(BUYER, corso, 1) == 27_500 and car_rules.reserve(BUYER, terra, 1) == 0
    assert car_rules.reserve(BUYER, finch, 1) == 20_250
    loyal = replace(BUYER, character="loyal")
    assert car_rules.reserve(loyal, corso, 1) == 28_875 and car_rules.reserve(loyal, finch, 1) == 18_000
    bargainer = replace(BUYER, character="bargainer")
    assert [car_rules.reserve(bargainer, corso, n) for n in (0, 5, 10, 20)] == [23_375, 24_750, 26_125, 26_125]
    poor = replace(BUYER, budget=21_000)
    assert car_rules.reserve(poor, corso, 1) == 21_000


def test_a_talk_by_hand() -> None:
    talk = car_rules.Talk(buyer=replace(BUYER, patience=9))
    talk, said = car_rules.respond(talk, "What is your budget?")
    assert said == "I can spend about 30000 dollars." and talk.outcome == "open"
    talk, said = car_rules.respond(talk, "The Velto Corso is what you need.")
    assert said == "What does the Velto Corso cost?"
    talk, said = car_rules.respond(talk, "$29,900")
    assert said == "That is too much. I would pay 26100 dollars for the Velto Corso."
    sold, said = car_rules.respond(talk, "Deal!")
    assert (sold.outcome, car_rules.revenue(sold)) == ("bought", 26.1)
    dear, said = car_rules.respond(talk, "27.5k is my last word")
    assert dear.outcome == "bought" and car_rules.revenue(dear) == 27.5
    assert car_rules.fancy(dear) == pytest.approx(27_500 / 28_750)
    assert car_rules.fancy(talk) == pytest.approx(-(30_000 - 27_500) / 27_500)


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("$23,500", 23500),
        ("for 23500 dollars", 23500),
        ("23.5k", 23500),
        ("no", None),
        ("1 or 2", None),
        ("first 20000, then 21000", 21000),
        ("9" * 5000, None),
        ("0000", 0),
    ],
)
def test_prices_are_read(text: str, price: int | None) -> None:
    assert car_rules.price_in(text) == price


def test_no_price_above_the_reserve_is_ever_paid() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        buyer = car_rules.draw_buyer(rng)
        talk = car_rules.Talk(buyer=buyer)
        while talk.outcome == "open" and talk.turns < 25:
            car = rng.choice(car_rules.LOT)
            talk, _ = car_rules.respond(
                talk, rng.choice([f"{car.name} for {rng.randint(0, 70_000)}", "deal", car.name])
            )
        if talk.outcome == "bought":
            sold = next(car for car in car_rules.LOT if car.name == talk.car)
            assert 0 < talk.asked <= max(car_rules.reserve(buyer, sold, n) for n in range(26)) <= buyer.budget


def test_everybody_can_be_sold_a_car_and_nobody_waits_for_ever() -> None:
    world = car_dealer.build()
    task, earned = world.tasks("train")[0], []
    for key in range(200):
        env = world.make()
        first = env.reset(task, episode_seed("train", key))
        result = env.step(world.teacher(task).act(env, first))
        assert result.terminated and result.success is True
        earned.append(result.rewards["env"])
    assert 25 < sum(earned) / 200 < 45  # the lot's list prices lie between 17.5 and 55 thousand, 35 on average
    env.reset(task, episode_seed("train", 0))
    results = [env.step("Nice weather.")]
    while not (results[-1].terminated or results[-1].truncated):
        results.append(env.step("Nice weather."))
    assert len(results) <= 25 and results[-1].rewards == {"env": 0.0} and results[-1].success is False


# Models as partners


async def echo(messages: Sequence[Message], *, seed: int) -> str:
    return f"({seed % 1000}) you said: {messages[-1].content[-40:]}"


@pytest.mark.parametrize("module", [twenty_questions, guess_city, car_dealer])
def test_a_partner_keeps_the_contract_and_never_the_verdict(module: Any) -> None:
    world = module.build(partner=echo)
    assert world.execution == "async"
    check_env(world, seeds=2)


async def test_a_partner_says_the_lines_and_the_rules_judge() -> None:
    world = twenty_questions.build(partner=echo)
    env, scripted = world.make(), QUESTIONS.make()
    task, seed = world.tasks("train")[0], episode_seed("train", 5)
    await env.reset(task, seed)
    scripted.reset(task, seed)
    thing = scripted.state.thing
    told = await env.step("Is it alive?")
    assert as_observation(told.observation).text.endswith("you said: Is it alive?") and told.rewards == {"env": -1.0}
    right = await env.step(f"Is it {thing}?")
    assert right.success is True and right.observation == "Yes."
    roles = [m.role for m in world.messages(env.state, "next")]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


async def silent(messages: Sequence[Message], *, seed: int) -> str:
    return " \n"


async def slow(messages: Sequence[Message], *, seed: int) -> str:
    await asyncio.sleep(60)
    return "late"


async def broken(messages: Sequence[Message], *, seed: int) -> str:
    raise ConnectionError("gone")


@pytest.mark.parametrize(("partner", "said"), [(slow, "within"), (broken, "gone")])
async def test_a_partner_that_fails_is_a_fault_and_no_turn(partner: Any, said: str) -> None:
    world = guess_city.build(partner=partner, partner_deadline_s=0.2)
    env = world.make()
    await env.reset(world.tasks("train")[0], episode_seed("train", 5))
    before = await env.fingerprint()
    with pytest.raises(EnvironmentFault, match=said):
        await env.step("Is it by the sea?")
    assert await env.fingerprint() == before


async def test_a_silent_partner_is_no_fault_since_the_policy_may_ask_for_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = guess_city.build(partner=silent)
    env = world.make()
    await env.reset(world.tasks("train")[0], episode_seed("train", 5))
    result = await env.step("Say nothing at all.")
    assert result.observation == SILENCE and result.rewards == {"env": -1.0} and "said nothing" in caplog.text


@dataclass(frozen=True)
class Sampled:
    token_ids: tuple[int, ...]


class Letters:
    """An engine as small as can be: tokens are letters, and it repeats the last word of the prompt."""

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Any, *, request_id: str) -> Sampled:
        word = "".join(map(chr, prompt_ids)).split()[-1]
        return Sampled(token_ids=tuple(map(ord, f"{word}/{sampling['seed']}")))


async def test_an_engine_is_a_partner() -> None:
    partner = EnginePartner(
        Letters(),
        encode=lambda messages: [ord(c) for m in messages for c in f"{m.content} "],
        decode=lambda ids: "".join(map(chr, ids)),
        sampling=lambda seed: {"seed": seed},
    )
    assert await partner([Message(role="user", content="hello there")], seed=7) == "there/7"
    world = guess_city.build(partner=partner)
    env = world.make()
    await env.reset(world.tasks("train")[0], 12)
    assert (await env.step("what now")).observation == "now/12"


def test_partners_by_name() -> None:
    assert car_dealer.build(partner="asyncio:Lock").execution == "async"  # anything that can be made without arguments
    with pytest.raises(ConfigError, match="cannot be loaded"):
        car_dealer.build(partner="no.such.module:make")
    with pytest.raises(ConfigError, match="must read"):
        car_dealer.build(partner="os")


@pytest.mark.parametrize(
    "world",
    [QUESTIONS, CITIES, twenty_questions.build(hidden="held_out"), car_dealer.build(), car_dealer.build(scale="fancy")],
    ids=["20q", "city", "20q-held-out", "car", "car-fancy"],
)
def test_the_contract(world: World) -> None:
    check_env(world)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: twenty_questions.build(hidden="never"),
        lambda: guess_city.build(partner_deadline_s=0),
        lambda: car_dealer.build(scale="profit"),
        lambda: car_dealer.build(partner_deadline_s=-1),
    ],
)
def test_options_without_meaning_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()
