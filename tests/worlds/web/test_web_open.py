"""Sites by address: WebArena's evaluators by hand, and its tasks played on our own sites behind a loopback port."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.envs.web.open_pages.evaluators import content_match, string_match, total, url_match
from rollwright.envs.web.open_web import build
from rollwright.envs.web.sites.catalogue import SITES, TEMPLATES
from rollwright.envs.web.sites.http import LoopbackSite
from rollwright.envs.web.sites.pages.engine import connect
from rollwright.envs.web.sites.world import draw_start


def test_string_match_by_hand() -> None:
    assert string_match('"Paris"', {"exact_match": "paris"}) == 1
    assert string_match("Paris, France", {"exact_match": "paris"}) == 0
    assert string_match("10 items", {"must_include": ["1"]}) == 0, "one digit must stand alone"
    assert string_match("1 item", {"must_include": ["1"]}) == 1
    assert string_match("red", {"must_include": ["red", "blue"]}) == 0
    assert string_match("blue and red", {"must_include": ["red", "blue"]}) == 1
    assert string_match("n/a", {"exact_match": "N/A"}) == 1


def test_url_match_by_hand() -> None:
    reference = "http://h:1/cart |OR| http://h:1/checkout"
    assert url_match("http://h:1/checkout?x=1", reference) == 1 and url_match("http://h:1/item", reference) == 0
    assert url_match("http://h/s?q=shoe", "http://h/s?q=shoes") == 0
    assert url_match("http://h/s?page=2&q=shoes", "http://h/s?q=shoes") == 1
    assert url_match("http://h/cart/", "http://h/cart") == 1


def test_content_match_and_the_product() -> None:
    assert content_match("Total: 12.50", {"must_include": ["total |OR| sum", "12.50"]}) == 1
    assert content_match("Total: 12.50", {"must_include": ["total", "13.50"]}) == 0
    assert total([1, 1, 0]) == 0 and total([1, 1]) == 1 and total([]) == 1


@pytest.fixture
def shop() -> Iterator[LoopbackSite]:
    start = draw_start(TEMPLATES["shop.price"], episode_seed("train", 1), "small")
    db: sqlite3.Connection = connect()
    db.deserialize(start.data)
    site = LoopbackSite(SITES["shop"], db)
    yield site
    site.close()
    db.close()


def task_file(folder: Path, *entries: dict) -> str:
    path = folder / "tasks.json"
    path.write_text(json.dumps(list(entries)))
    return str(path)


@pytest.mark.browser
async def test_tasks_on_a_loopback_site(shop: LoopbackSite, tmp_path: Path) -> None:
    at = shop.address
    cart = {"url": f"{at}/cart", "locator": "document.querySelector('main').innerText"}
    entries = [
        {
            "task_id": 7,
            "start_url": f"{at}/item/1",
            "intent": "Put it on the wish list and say done.",
            "eval": {
                "eval_types": ["string_match", "url_match", "program_html"],
                "reference_answers": {"must_include": ["done"]},
                "reference_url": f"{at}/wishes",
                "program_html": [
                    {"url": "last", "locator": "document.title", "required_contents": {"must_include": ["wish list"]}},
                    {**cart, "required_contents": {"must_include": ["The cart is empty."]}},
                ],
            },
        },
    ]
    world = build(tasks=task_file(tmp_path, *entries), deadline_s=120, load_s=60)
    [task] = world.tasks("train")
    env = world.make()
    first = await env.reset(task, episode_seed("train", 0))
    assert first.goal.startswith("Put it") and first.text.startswith(f"At {at}/item/1\nShop\n1 link Home")
    number = next(line.split()[0] for line in first.text.splitlines() if line.endswith("button Add to wish list"))
    result = await env.step(f"click {number}")
    text = result.observation.text  # type: ignore[union-attr]
    assert text.startswith(f"At {at}/wishes\n") and "Added to the wish list." in text, "the redirect was followed"
    for action in ("goto http://elsewhere.example/", "click 99", "wobble"):
        slip = await env.step(action)
        assert slip.observation.text.startswith("Error: ") and not slip.terminated  # type: ignore[union-attr]
    result = await env.step("answer It is done")
    assert result.terminated and result.success is True and result.rewards == {"env": 1.0}
    await env.reset(task, episode_seed("train", 0))
    result = await env.step("answer done")
    assert result.success is False, "the address is another one"
    await env.close()
    await world.close()


def python_target(**keys: str) -> dict:
    target = {"url": "last", "locator": "document.title", "required_contents": {"must_include": ["x"]}, **keys}
    return {"eval": {"eval_types": ["program_html"], "program_html": [target]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval": {"eval_types": ["fuzzy_match"]}}, "eval_types must be"),
        ({"eval": {"eval_types": ["string_match"], "reference_answers": {"fuzzy_match": "x"}}}, "exact_match or must"),
        ({"eval": {"eval_types": ["url_match"]}}, "reference_url"),
        ({"eval": {"eval_types": []}}, "eval_types must be"),
        ({"start_url": "file:///etc/passwd"}, "http address"),
        (python_target(url="func:shopping_get_latest_order_url()"), "task 1: program_html has url: 'func:shopping"),
        (python_target(locator=" func:get_query_text(__page__, 'x')"), "task 1: program_html has locator"),
    ],
)
def test_a_task_that_cannot_be_judged_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    good = {
        "task_id": 1,
        "start_url": "http://h/",
        "intent": "x",
        "eval": {"eval_types": ["string_match"], "reference_answers": {"exact_match": "x"}},
    }
    assert build(tasks=task_file(tmp_path, good)).tasks("train")[0].id == "1"
    with pytest.raises(ConfigError, match=message):
        build(tasks=task_file(tmp_path, {**good, **change}))
    with pytest.raises(ConfigError, match="cannot read"):
        build(tasks=str(tmp_path / "none.json"))
