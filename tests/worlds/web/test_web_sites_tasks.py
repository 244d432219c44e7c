"""Tasks on the small sites: WebShop's reward by hand, near misses that are no success, splits, the pages themselves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest

from rollwright.contracts.environment import Observation, StepResult, episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import SPLITS
from rollwright.envs.web.sites import build
from rollwright.envs.web.sites.catalogue import SITES, TEMPLATES
from rollwright.envs.web.sites.dom import controls, labels, parse
from rollwright.envs.web.sites.envs import BareEnv
from rollwright.envs.web.sites.pages.engine import Server, canonical, connect
from rollwright.envs.web.sites.pages.words import GOODS
from rollwright.envs.web.sites.tasks.aims import Start, matches
from rollwright.envs.web.sites.tasks.purchase import (
    Purchase,
    PurchaseGoal,
    purchase_reward,
    similarity,
    title_score,
    type_reward,
)
from rollwright.envs.web.sites.world import draw_start

GOAL = PurchaseGoal(
    query="office",
    title="Norvik light steel lamp",
    categories=("office", "lamp"),
    attributes=("light", "foldable", "waterproof"),
    options=("dark blue", "large"),
    limit=40.0,
)
BOUGHT = Purchase(
    query="office",
    title="Halden light wooden lamp",
    categories=("office", "lamp"),
    attributes=("light", "foldable"),
    text="halden light wooden lamp",
    options=("blue", "small"),
    price=39.95,
)
NOUNS = " ".join([noun for nouns in GOODS.values() for noun in nouns][:20])


@pytest.mark.parametrize(
    ("goal", "bought", "reward"),
    [
        ({}, {}, 4 / 6),  # 2 of 3 attributes, 1 of 2 options, the price: 4 of 6, and the right sort of thing
        # Two nouns in eight are shared, and neither query nor categories: 0.25 > 0.2 still makes the right sort.
        ({"title": " ".join(NOUNS.split()[:8])}, {"query": "", "categories": (), "title": "kettle mug"}, 4 / 6),
        # One noun in five is 0.2, which is not above it: half of 4/6.
        ({"title": " ".join(NOUNS.split()[:5])}, {"query": "", "categories": (), "title": "kettle"}, 2 / 6),
        # One noun in twenty is 0.05: a tenth, even though the query is the same.
        ({"title": NOUNS}, {"title": "kettle"}, 0.4 / 6),
        ({}, {"title": "Halden light wooden chair"}, 0.0),  # no shared noun: nothing, whatever else is right
        ({}, {"options": ("blue", "large"), "attributes": GOAL.attributes, "price": 40.01}, 5 / 6),
        ({}, {"options": ("blue", "large"), "attributes": GOAL.attributes, "price": 40.0}, 1.0),
        ({}, {"text": "a waterproof lamp", "options": ("blue", "large")}, 1.0),  # named in the text: matched
    ],
)
def test_the_reward_of_webshop_by_hand(goal: dict, bought: dict, reward: float) -> None:
    got = purchase_reward(dataclasses.replace(GOAL, **goal), dataclasses.replace(BOUGHT, **bought))
    assert got == pytest.approx(reward, abs=1e-12)


def test_the_parts_of_the_reward() -> None:
    assert title_score("Norvik lamp", "Norvik light") == 0.2, "a title without nouns scores 0.2"
    assert type_reward(same_query=False, shared_categories=2, title=0.15) == 1.0
    assert type_reward(same_query=False, shared_categories=1, title=0.15) == 0.5
    assert type_reward(same_query=True, shared_categories=2, title=0.099) == 0.1
    assert type_reward(same_query=True, shared_categories=2, title=0.0) == 0.0
    assert similarity("water proof", "proof water") == 100 and similarity("light", "light and soft") == 100
    assert similarity("light", "heavy") < 85 and similarity("", "") == 0


def play(env: BareEnv, name: str, actions: list[str], *, number: int = 0) -> StepResult:
    """Reset to a template's episode and play; what is left of the actions after the end is not played."""
    template = TEMPLATES[name]
    world = build(templates=[name], max_turns=40)
    env.reset(world.task(name, template.split), episode_seed(template.split, "near", name, number))
    result: StepResult | None = None
    for action in actions:
        result = env.step(action)
        if result.terminated:
            break
    assert result is not None
    return result


def taught(name: str, number: int = 0) -> tuple[BareEnv, list[str]]:
    """An environment, and the actions with which the teacher solves the episode."""
    template = TEMPLATES[name]
    world = build(templates=[name], max_turns=40)
    task = world.task(name, template.split)
    env, teacher, actions = world.make(), world.teacher(task), []
    assert isinstance(env, BareEnv)
    observation = env.reset(task, episode_seed(template.split, "near", name, number))
    while True:
        actions.append(teacher.act(env, observation))
        result = env.step(actions[-1])
        if result.terminated or result.truncated:
            assert result.success, name
            return env, actions
        assert isinstance(result.observation, Observation)
        observation = result.observation


def spoilt(actions: list[str]) -> Iterator[list[str]]:
    """The same actions with one value changed a little."""
    for index, action in enumerate(actions):
        if action.startswith("fill ") and len(action.split()) > 2:
            yield [*actions[:index], f"{action}x", *actions[index + 1 :]]
        if action.startswith("answer "):
            yield [*actions[:index], f"{action} 1", *actions[index + 1 :]]


SEARCHES = re.compile(r"textbox (Search|Find)")


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_near_miss_is_no_success(name: str) -> None:
    """A value with a letter too many, a plan that is stopped before its last step, a wrong claim to be done."""
    env, actions = taught(name)
    right = play(env, name, actions)
    assert right.success is True and right.rewards == {"env": 1.0}
    for other in spoilt(actions):
        result = play(env, name, [*other, "answer done"])
        searched = any("Search" in line for line in other)
        assert result.success is not True or searched or _only_searches(env, name, actions, other), (name, other)
    if len(actions) > 1:
        early = play(env, name, [*actions[:-1], "answer done"])
        assert early.success is False and early.rewards == {"env": 0.0}
    assert play(env, name, ["report_infeasible no"]).success is False
    env.close()


def _only_searches(env: BareEnv, name: str, actions: list[str], other: list[str]) -> bool:
    """Whether the changed value was typed into a search field: another way to the same page is no miss."""
    index = next(i for i, (a, b) in enumerate(zip(actions, other, strict=True)) if a != b)
    if index == 0:
        template = TEMPLATES[name]
        world = build(templates=[name])
        task = world.task(name, template.split)
        text = env.reset(task, episode_seed(template.split, "near", name, 0)).text
    else:
        observation = play(env, name, actions[:index]).observation
        text = observation.text if isinstance(observation, Observation) else observation
    field = actions[index].split()[1]
    return any(line.startswith(f"{field} ") and SEARCHES.search(line) for line in text.splitlines())


@pytest.mark.parametrize("name", sorted(name for name in TEMPLATES if not name.startswith("shop.buy")))
def test_whatever_else_is_changed_spoils_it(name: str) -> None:
    """The wished state with one more change in any watched table is not the wished state."""
    start = draw_start(TEMPLATES[name], episode_seed(TEMPLATES[name].split, 3), "small")
    site = SITES[TEMPLATES[name].site]
    db = connect()
    db.deserialize(start.data)
    for sql, values in start.aim.edits:
        db.execute(sql, values)
    answer = start.aim.answers[0] if start.aim.answers else "done"
    assert start.declared(db, answer).success
    extra = {
        "shop": "insert into wish values (12345)",
        "forum": "insert into bookmark values (12345)",
        "wiki": "insert into watch values ('Elsewhere')",
        "mail": "insert into contact (name, address, phone) values ('x', 'y', 'z')",
        "calendar": "insert into event (title, day) values ('x', 'y')",
    }
    db.execute(extra[site.name])
    assert not start.declared(db, answer).success and not start.after_write(db).over


def test_a_purchase_ends_the_episode_with_its_share() -> None:
    """The right product in the wrong colour: one of five parts is missing at most, never success."""
    env, actions = taught("shop.buy_options")
    goal = env.episode.start.aim.purchase
    assert goal is not None
    index = next(i for i, action in enumerate(actions) if action.startswith("select_option"))
    page = play(env, "shop.buy_options", actions[:index]).observation
    assert isinstance(page, Observation)
    line = next(text for text in page.text.splitlines() if text.startswith(f"{actions[index].split()[1]} select"))
    colours = re.findall(r"\[(.*)\]", line)[0].split(", ")
    wrong = next(colour for colour in colours if colour != goal.options[0])
    changed = [*actions[:index], f"{' '.join(actions[index].split()[:2])} {wrong}", *actions[index + 1 :]]
    result = play(env, "shop.buy_options", changed)
    parts = len(goal.attributes) + len(goal.options) + 1
    assert result.terminated and result.success is False
    assert result.rewards == {"env": pytest.approx((parts - 1) / parts)}


def test_splits_are_apart_by_template_and_by_seed() -> None:
    assert len(TEMPLATES) >= 40 and {template.site for template in TEMPLATES.values()} == set(SITES)
    world = build()
    listed = {split: {task.id for task in world.tasks(split)} for split in SPLITS}
    assert sum(map(len, listed.values())) == len(TEMPLATES) == len(set().union(*listed.values()))
    for site in SITES:
        assert all(any(name.startswith(f"{site}.") for name in names) for names in listed.values()), site
    task = world.tasks("train")[0]
    with pytest.raises(ValueError, match="is a test seed"):
        world.make().reset(task, episode_seed("test", 1))
    by_seed = build(split_by="seed")
    assert {len(by_seed.tasks(split)) for split in SPLITS} == {len(TEMPLATES)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "shopp"}, "Did you mean 'shop'"),
        ({"mode": "fast"}, "no mode 'fast'"),
        ({"difficulty": "easy,harder"}, "no difficulty 'harder'"),
        ({"templates": ["mail.stars"]}, "Did you mean 'mail.star'"),
        ({"templates": ["mail.star"], "difficulty": "hard"}, "no template of site"),
        ({"size": "huge"}, "no size"),
        ({"split_by": "site"}, "no split_by"),
        ({"max_turns": 0}, "max_turns"),
    ],
)
def test_a_wrong_option_is_a_clear_error(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)


@pytest.mark.parametrize("site", sorted(SITES))
def test_every_page_has_named_controls_and_no_id_twice(site: str) -> None:
    """Follow all links of a site from its home page on, and look at each page's controls."""
    start: Start = draw_start(next(t for t in TEMPLATES.values() if t.site == site), episode_seed("train", 1), "small")
    db = connect()
    db.deserialize(start.data)
    server = Server(SITES[site], db)
    waiting, seen = ["/"], set()
    while waiting and len(seen) < 120:
        address = waiting.pop()
        seen.add(address)
        nodes = parse(server.open("GET", address))
        ids = [node.attributes["id"] for node in nodes if "id" in node.attributes]
        assert len(ids) == len(set(ids)), address
        for node in controls(nodes):
            name = node.text() if node.tag in ("a", "button") else labels(nodes).get(node.attributes["id"], "")
            assert name.strip(), f"{address}: a {node.tag} without a name"
            target = canonical(node.attributes["href"], SITES[site].host) if node.tag == "a" else None
            if target and target not in seen and target not in waiting:
                waiting.append(target)
        assert "There is no such page" not in server.html, address
    assert len(seen) > 10


def test_the_search_is_full_text() -> None:
    """All words count, word order does not, and products with any of the words come where none has all."""
    env = BareEnv(build(site="shop").begin, lambda n: None)
    task = build(site="shop").task("shop.price", "train")
    env.reset(task, episode_seed("train", 9))
    assert env.episode is not None
    title = env.episode.server.db.execute("select title from product where id = 7").fetchone()["title"]
    backwards = "+".join(reversed(title.lower().split()))
    found = env.step(f"goto /search?q={backwards}").observation
    assert isinstance(found, Observation) and f"link {title}" in found.text and "\n1 products" in found.text
    either = env.step(f"goto /search?q={title.split()[3]}+nonsense").observation
    assert isinstance(either, Observation) and "\n0 products" not in either.text
    for odd in ('"', "* OR NOT", "title:x", "'; drop table product; --", "()"):
        result = env.step(f"goto /search?q={odd}")
        assert isinstance(result.observation, Observation) and "Search results" in result.observation.text
    env.close()


def test_addresses_have_one_spelling_and_stay_on_the_site() -> None:
    host = "shop.test"
    assert canonical("/a/../b?q=x y&z=ä", host) == canonical("http://shop.test/b?q=x+y&z=%C3%A4", host)
    assert canonical("shop.test/item/3", host) == "/item/3" and canonical("item/3", host) == "/item/3"
    for foreign in ("http://elsewhere.example/", "//elsewhere.example/x", "https://shop.test/", "file:///etc/passwd"):
        assert canonical(foreign, host) is None
    assert canonical("http://[", host) is None
    assert canonical("/search?q=a//b", host) == "/search?q=a%2F%2Fb"


def test_answers_are_compared_as_webarena_does() -> None:
    assert matches('"Paris"', ("paris",)) and matches(" 12.50. ", ("12.50",))
    assert not matches("1", ("10",)) and not matches("10 items", ("10",)) and not matches("", ("10",))
