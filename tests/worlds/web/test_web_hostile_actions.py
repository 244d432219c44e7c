"""Hostile and random actions in every web world and adapter: no fault, nothing raised, time and memory bounded."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import resource
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.environment import World, as_observation, episode_seed
from rollwright.envs.web.browsergym import build as build_browsergym
from rollwright.envs.web.miniwob import build as build_miniwob
from rollwright.envs.web.open_web import build as build_open_web
from rollwright.envs.web.page_actions import SIGNATURES
from rollwright.envs.web.sites import build as build_sites
from rollwright.envs.web.sites.catalogue import SITES, TEMPLATES
from rollwright.envs.web.sites.http import LoopbackSite
from rollwright.envs.web.sites.pages.engine import connect
from rollwright.envs.web.sites.world import draw_start

ENV_CALL_S = 30.0  # what the rollout grants to one call
MAX_TEXT = 30_000
MAX_GROWTH = 300 << 20
TURNS = 40

FIXED = [
    "",
    " ",
    "\n\n",
    "\x00",
    "\ud800",
    "é",
    "keyboard_press é",
    "press 1 é",
    "keyboard_press Control+é",
    "keyboard_press",
    "keyboard_press ø+a",
    "press 2 Dead",
    "keyboard_press Control+Control",
    "keyboard_press ++",
    "press 1 F12",
    "keyboard_press Control+w",
    "keyboard_press Alt+F4",
    "keyboard_press Control+n",
    "keyboard_press Meta+q",
    "keyboard_press F5",
    "keyboard_press Alt+ArrowLeft",
    "keyboard_press Control+p",
    "keyboard_press Control+s",
    "click 999999",
    "click -1",
    "click ²",
    "click 1e9",
    "(" * 1900,
    "-" * 1999 + "1",
    "[" * 1900 + "]",
    "click(" * 300,
    "fill 1 \x00\x01\x1b[31m",
    "fill 1 \ud83d",
    "fill('1', '\\",
    "fill 1 " + "\u202e\u0301" * 900,
    "fill 1 " + "x" * 1990,
    "goto javascript:alert(1)",
    "goto file:///etc/passwd",
    "goto http://",
    "goto //x",
    "goto http://[",
    "goto /%00",
    "goto /" + "a/" * 900,
    "goto /..%2f..%2fetc",
    "goto http://127.0.0.1:9/",
    "goto chrome://crash",
    "goto about:blank",
    "goto /search?q=%22%27%29%3B--&page=99999999999999999999",
    "goto /search?q=" + "%22" * 300,
    "goto /item/%F0%9F",
    "goto ",
    "scroll 0 99999",
    "scroll 1e400 nan",
    "mouse_click 9999 9999",
    "mouse_drag_and_drop 0 0 -9999 9999",
    "mouse_down 5 5",
    "drag_and_drop 1 1",
    "select_option 1 " + "|" * 1000,
    "select_option('1', [])",
    "click('1', button='right')",
    "click(__import__('os').system('touch MARK'))",
    "scroll 0 __import__('os').system('touch${IFS}MARK')",
    "noop(9**9**9)",
    "keyboard_type 𝒳\u200b\ud83d",
    "keyboard_type " + "y" * 300,
    "x" * 100_000,
    "noop " * 30_000,
    "\u2028click 1",
    "go_back",
    "go_forward",
    "fill 1 '; drop table product; --",
    "fill 2 <script>alert(1)</script>",
    "fill 1 -1",
    "press 1 Enter",
]
NAMES = [*SIGNATURES, *"goto go_back go_forward click fill select_option press check CLICK exec".split()]  # noqa: SIM905
ENDS = ["answer '; drop table meta; --", "send_msg_to_user " + "\ud800", "report_infeasible", "answer " + "9" * 1990]
PIECES = "1 2 3 7 0 -3 99 1.5 1e5 Enter a é 𝒳 ' \" \\ [ ] ( ) , | / % {} ${x} None http:// Control+a".split()  # noqa: SIM905
PIECES += ["x y", "\x00", "\ud83d", "\t", "Ω" * 50]


def hostile(draws: random.Random) -> str:
    """One action: a nasty one, a known name with random arguments, or noise; at times one that ends an episode."""
    kind = draws.random()
    if kind < 0.3:
        return draws.choice(FIXED)
    if kind < 0.32:
        return draws.choice(ENDS)
    name, pieces = draws.choice(NAMES), [draws.choice(PIECES) for _ in range(draws.randrange(5))]
    if kind < 0.75:
        return f"{name} {' '.join(pieces)}"
    if kind < 0.9:
        return f"{name}({', '.join(repr(piece) for piece in pieces)})"
    return "".join(
        chr(draws.choice((draws.randrange(0x80), draws.randrange(0x3000)))) for _ in range(draws.randrange(80))
    )


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    answer = function(*arguments)
    return await answer if inspect.isawaitable(answer) else answer


async def play(world: World, count: int, seed: int) -> int:
    """Play `count` actions, episode after episode, and assert what must hold; returns how many were played."""
    draws, env = random.Random(seed), await call(world.make)
    tasks, over, turns = world.tasks("train"), True, 0
    for number in range(count):
        if over or turns >= TURNS:
            task = draws.choice(tasks)
            await call(env.reset, task, episode_seed("train", seed, number))
            turns = 0
        action, begun = hostile(draws), time.monotonic()
        try:
            result = await call(env.step, action)
        except Exception as error:
            raise AssertionError(f"{world.name}: {action[:100]!r} raised {error!r}") from error
        took = time.monotonic() - begun
        assert took < ENV_CALL_S, f"{world.name}: {action[:100]!r} took {took:.1f} s"
        text = as_observation(result.observation).text
        assert isinstance(text, str) and len(text) < MAX_TEXT, (
            f"{world.name}: {action[:100]!r} gave {len(text)} characters"
        )
        assert not any(0xD800 <= ord(letter) < 0xE000 for letter in text), (
            f"{world.name}: {action[:100]!r} gave half a letter"
        )
        over, turns = result.terminated or result.truncated, turns + 1
    await call(env.close)
    return count


async def play_all(world: World, count: int, envs: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        played = await asyncio.gather(*(play(world, count // envs, seed) for seed in range(envs)))
    finally:
        await call(world.close)
    assert sum(played) == count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH >> 10
    pool = getattr(world, "pool", None)
    assert pool is None or pool.faults == []


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Text of an action that is executed anywhere would leave a file here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "MARK").exists(), "an action was executed"


async def test_in_the_sites_without_a_browser() -> None:
    await play_all(build_sites(), 2000, 1)


@pytest.mark.slow
@pytest.mark.browser
async def test_in_the_sites_in_a_browser() -> None:
    await play_all(build_sites(mode="browser"), 400, 4)


@pytest.mark.slow
@pytest.mark.browser
async def test_in_miniwob() -> None:
    await play_all(build_miniwob(tasks="webgum56"), 1800, 4)


@pytest.mark.browser
async def test_in_miniwob_that_is_drawn() -> None:
    await play_all(build_miniwob(tasks="webgum56", draw=True), 200, 2)


@pytest.mark.slow
@pytest.mark.browser
async def test_on_a_site_by_its_address(tmp_path: Path) -> None:
    start = draw_start(TEMPLATES["shop.price"], episode_seed("train", 1), "small")
    db = connect()
    db.deserialize(start.data)
    site = LoopbackSite(SITES["shop"], db)
    evaluation = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "x"}}
    tasks = [
        {"task_id": n, "start_url": site.address + path, "intent": "x", "eval": evaluation}
        for n, path in enumerate(("/", "/item/1", "/cart"))
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    try:
        await play_all(build_open_web(tasks=str(tmp_path / "tasks.json")), 2000, 4)
    finally:
        site.close()
        db.close()


FAKE = """
import gymnasium

class Fake(gymnasium.Env):
    '''Takes actions as BrowserGym does, and at times raises what a careless environment raises.'''

    observation_space = gymnasium.spaces.Text(1000)
    action_space = gymnasium.spaces.Text(1000)

    def _see(self, error=""):
        return {"goal": "g", "url": "http://fake/", "axtree_txt": "[1] button 'x'", "last_action_error": error}

    def reset(self, seed=None, options=None):
        return self._see(), {}

    def step(self, action):
        if "(" not in action:
            raise ValueError("Received a malformed action: " + action)
        name, rest = action.split("(", 1)
        if name == "exec":
            raise TypeError("no such function")
        if name == "check":
            {}[rest]
        try:
            eval("lambda *a, **k: 0")(*eval("[" + rest.rsplit(")", 1)[0] + "]"))
        except Exception as error:
            return self._see(repr(error) * 100), 0, False, False, {}
        return self._see(), 0.0, False, False, {}

gymnasium.register(id="fake/one-v0", entry_point=Fake, disable_env_checker=True, order_enforce=False)
"""


async def test_in_the_browsergym_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment evaluates what it is given: only literals may reach it."""
    pytest.importorskip("gymnasium")
    (tmp_path / "fake_hostile_tasks.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    world = build_browsergym(modules=["fake_hostile_tasks"], train_tasks=["fake/one-v0"], python=sys.executable)
    await play_all(world, 2000, 1)
