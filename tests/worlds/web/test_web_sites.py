"""The small sites: templates and teachers, near misses, splits, determinism, snapshots, and equality with a browser."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import Observation, episode_seed
from rollwright.contracts.errors import EnvironmentFault
from rollwright.contracts.record import SPLITS, Task
from rollwright.envs.web.sites import build
from rollwright.envs.web.sites.catalogue import SITES
from rollwright.envs.web.sites.envs import BareEnv, BrowserEnv
from rollwright.envs.web.sites.world import SitesWorld


def all_tasks(world: SitesWorld) -> list[Task]:
    return [task for split in SPLITS for task in world.tasks(split)]


def random_action(rng: random.Random, text: str) -> str:
    """Something that a confused but not malformed policy might do."""
    ids = [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0].isdecimal()]
    target = rng.choice([*ids, "99"])
    words = rng.choice(["Hello", "a 'b' <i>c</i> & d", "", "größer 漢字 🙂", "x" * 300, "2026-03-05", "10", "lamp"])
    return rng.choice(
        [
            *[f"click {target}"] * 8,
            *[f"fill {target} {words}"] * 4,
            f"clear {target}",
            f"check {target}",
            f"uncheck {target}",
            f"select_option {target} {words}",
            f"select_option('{target}', ['medium'])",
            f"press {target} Enter",
            f"focus {target}",
            f"hover {target}",
            "go_back",
            "go_forward",
            "scroll 0 300",
            "scroll 0 -300",
            "noop",
            f"goto /{words}",
            "goto http://elsewhere.example/",
        ]
    )


async def play_both(world: SitesWorld, browsers: SitesWorld, task: Task, seed: int, rng: random.Random | None) -> int:
    """One episode without and in a browser, by chance or by the teacher; every moment must be equal."""
    bare, real = world.make(), browsers.make()
    assert isinstance(bare, BareEnv) and isinstance(real, BrowserEnv)
    teacher, turns = world.teacher(task), 0
    observation = bare.reset(task, seed)
    assert await real.reset(task, seed) == observation
    while True:
        action = teacher.act(bare, observation) if rng is None else random_action(rng, observation.text)
        ours, theirs = bare.step(action), await real.step(action)
        assert theirs == ours, f"{task.id}, seed {seed}, turn {turns}, {action!r}"
        assert await real.fingerprint() == bare.fingerprint()
        turns += 1
        assert isinstance(ours.observation, Observation)
        observation = ours.observation
        if ours.terminated or ours.truncated:
            break
    bare.close()
    await real.close()
    return turns


@pytest.mark.browser
@pytest.mark.parametrize("site", sorted(SITES))
async def test_a_browser_shows_the_same(site: str) -> None:
    """Byte-equal observations, rewards and ends over teachers' and random episodes of every template of the site."""
    world, browsers = build(site=site), build(site=site, mode="browser")
    tasks = all_tasks(world)
    gate = asyncio.Semaphore(4)

    async def one(task: Task, rng: random.Random | None) -> int:
        async with gate:
            return await play_both(world, browsers, task, episode_seed(task.split, "equal", site), rng)

    taught = [one(task, None) for task in tasks]
    tried = [one(task, random.Random(f"{task.id}/random")) for task in tasks]
    turns = await asyncio.gather(*taught, *tried)
    await browsers.close()
    assert sum(turns) > 50 and browsers.pool is not None and browsers.pool.faults == []


def test_the_contract_holds_without_a_browser() -> None:
    check_env(build(), seeds=1, tasks_per_split=5)


@pytest.mark.browser
def test_the_contract_holds_in_a_browser() -> None:
    check_env(build(site="mail", mode="browser"), seeds=1, tasks_per_split=1)


@pytest.mark.long
def test_every_teacher_solves_its_template() -> None:
    world = build(max_turns=25)
    failed: dict[str, int] = {}
    for task in all_tasks(world):
        for number in range(5):
            env, teacher = world.make(), world.teacher(task)
            assert isinstance(env, BareEnv)
            observation = env.reset(task, episode_seed(task.split, "taught", number))
            result = env.step(teacher.act(env, observation))
            while not (result.terminated or result.truncated):
                assert isinstance(result.observation, Observation)
                result = env.step(teacher.act(env, result.observation))
            if result.success is not True or result.rewards != {"env": 1.0}:
                failed[task.id] = failed.get(task.id, 0) + 1
            env.close()
    assert failed == {}


_ELSEWHERE = """
import json, random, sys
from rollwright.contracts.environment import episode_seed
from rollwright.envs.web.sites import build
from rollwright.contracts.record import SPLITS

world, seen = build(), []
for split in SPLITS:
    for task in world.tasks(split):
        env, teacher = world.make(), world.teacher(task)
        observation = env.reset(task, episode_seed(split, "elsewhere"))
        seen.append([observation.goal, observation.text])
        for _ in range(4):
            result = env.step(teacher.act(env, observation))
            observation = result.observation
            seen.append([observation.text, env.fingerprint(), result.reward])
            if result.terminated:
                break
        env.close()
print(json.dumps(seen))
"""


def test_two_processes_see_the_same() -> None:
    runs = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE], capture_output=True, text=True, timeout=400, check=True, env=environment
        )
        runs.append(json.loads(done.stdout))
    assert runs[0] == runs[1] and len(runs[0]) > 200


def random_episode(world: SitesWorld, task: Task, seed: int, chance: str) -> list[object]:
    """All that came back from an episode of random actions."""
    env, rng = world.make(), random.Random(chance)
    assert isinstance(env, BareEnv)
    observation = env.reset(task, seed)
    seen: list[object] = [observation]
    while True:
        result = env.step(random_action(rng, observation.text))
        seen += [result, env.fingerprint()]
        assert isinstance(result.observation, Observation)
        observation = result.observation
        if result.terminated or result.truncated:
            env.close()
            return seen


def _random_episodes(number: int) -> None:
    world, again = build(), build()
    tasks = all_tasks(world)
    handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for i in range(number):
        task = tasks[i % len(tasks)]
        seed = episode_seed(task.split, "random", i)
        one = random_episode(world, task, seed, f"chance/{i}")
        assert i % 5 or one == random_episode(again, task, seed, f"chance/{i}")
    if handles:
        assert len(os.listdir("/proc/self/fd")) <= handles, "an episode leaves files open"
    assert world.requests_blocked > 0, "some of them tried to leave"


def test_random_episodes_are_deterministic_and_leave_nothing_behind() -> None:
    _random_episodes(120)


@pytest.mark.slow
def test_a_thousand_random_episodes() -> None:
    _random_episodes(1000)


WILD = (
    "",
    "click",
    "click 0",
    "click 999999",
    "click -1",
    "click 1 2 3",
    "fill 1",
    "fill('1', '",
    "press 1 Tab",
    "scroll 1",
    "goto",
    "goto javascript:alert(1)",
    "goto file:///etc/passwd",
    "goto //elsewhere.example/",
    "goto /%2e%2e/%2e%2e/etc?%00=%ff",
    "goto /item/99999999999999999999",
    "goto /search?q=%27%22%3B--&from=-5",
    "goto /search?" + "a=b&" * 300,
    "answer",
    "mouse_click 10 10",
    "dblclick 3",
    "__import__('os').system('true')",
    "x" * 5000,
    "\x00\x1b[2J",
    "\ud800",
    "select_option('1', [])",
    "select_option 1 a | b",
)
TEXTS = (
    "<script>alert(1)</script>",
    "'; drop table message; --",
    "{{7*7}} ${x} %s %n",
    "\u202eabc\u200b\ufeff",
    "a\tb\u2028c\u00a0d",
    "\U0001f642 \ud83d",
    "&lt;b&gt; &amp;amp; <b",
    '"><input name=q>',
    "-1",
    "0000",
    "9" * 400,
    "x:",
    "::",
)


def wild_action(rng: random.Random, text: str) -> str:
    """Malformed or hostile, mostly; now and then a move that leads on to other pages."""
    if rng.random() < 0.5:
        return random_action(rng, text)
    ids = [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0].isdecimal()]
    target = rng.choice([*ids, "1"])
    return rng.choice(
        [rng.choice(WILD), f"fill {target} {rng.choice(TEXTS)}", f"fill('{target}', {rng.choice(TEXTS)!r})"]
    )


def _wild_actions(number: int) -> None:
    world, rng = build(max_turns=40), random.Random(1)
    tasks, played = all_tasks(world), 0
    while played < number:
        task = rng.choice(tasks)
        env = world.make()
        assert isinstance(env, BareEnv)
        observation = env.reset(task, episode_seed(task.split, "wild", played))
        ended = False
        while not ended:
            result = env.step(wild_action(rng, observation.text))
            assert isinstance(result.observation, Observation) and result.observation.text
            result.observation.text.encode()  # nothing that cannot be written down
            observation, ended, played = result.observation, result.terminated or result.truncated, played + 1
        env.close()


def test_hostile_actions_are_answered() -> None:
    _wild_actions(1500)


@pytest.mark.slow
def test_ten_thousand_hostile_actions_are_answered() -> None:
    _wild_actions(10_000)


@pytest.mark.browser
async def test_hostile_actions_look_the_same_in_a_browser() -> None:
    world, browsers = build(max_turns=40), build(max_turns=40, mode="browser")
    for name in ("shop.add_with_options", "forum.new_thread", "wiki.create", "mail.compose", "calendar.create"):
        task, rng = world.task(name, "train"), random.Random(name)
        bare, real = world.make(), browsers.make()
        assert isinstance(bare, BareEnv) and isinstance(real, BrowserEnv)
        observation = bare.reset(task, episode_seed("train", "wild"))
        assert await real.reset(task, episode_seed("train", "wild")) == observation
        for _ in range(40):
            action = wild_action(rng, observation.text)
            result = bare.step(action)
            assert await real.step(action) == result, (name, action)
            assert isinstance(result.observation, Observation)
            observation = result.observation
            if result.terminated or result.truncated:
                break
        await real.close()
    assert browsers.pool is not None and browsers.pool.faults == []
    await browsers.close()


def _half_way(env: BareEnv, world: SitesWorld) -> None:
    task = world.task("mail.compose", "train")
    env.reset(task, episode_seed("train", "fork"))
    for action in ("click 6", "fill 7 someone", "fill 9 half a <letter>"):
        assert "error" not in env.step(action).notes


def test_a_fork_goes_its_own_way() -> None:
    """Two copies of a half-written letter: each is finished in its own way, and neither sees the other."""
    world = build(site="mail")
    env, left, right = world.make(), world.make(), build(site="mail").make()
    assert isinstance(env, BareEnv) and isinstance(left, BareEnv) and isinstance(right, BareEnv)
    _half_way(env, world)
    state = env.snapshot()
    assert state == env.snapshot()
    for copy in (left, right):
        copy.restore(state)
        assert copy.fingerprint() == env.fingerprint()
    plan = ["fill 7 nobody@post.test", "fill 8 Hello", "click 10"]
    ways = [[left.step(action) for action in plan], [right.step(action) for action in plan]]
    assert ways[0] == ways[1] and "No contact has this address" in ways[0][-1].observation.text  # type: ignore[union-attr]
    assert "textbox To = someone" in env.step("noop").observation.text  # type: ignore[union-attr]
    left.restore(state)
    assert [left.step(action) for action in plan] == ways[0]


@pytest.mark.browser
async def test_a_browser_takes_over_a_snapshot_and_gives_one_back() -> None:
    world, browsers = build(site="mail"), build(site="mail", mode="browser")
    bare, real, other = world.make(), browsers.make(), world.make()
    assert isinstance(bare, BareEnv) and isinstance(real, BrowserEnv) and isinstance(other, BareEnv)
    _half_way(bare, world)
    state = bare.snapshot()
    await real.restore(state)
    assert await real.fingerprint() == bare.fingerprint()
    assert await real.snapshot() == state
    assert await real.step("fill 8 Hello") == bare.step("fill 8 Hello")
    await real.restore(state)
    assert await real.fingerprint() != bare.fingerprint()
    assert await real.snapshot() == state, "the page was replaced in place, without a load"
    other.restore(await real.snapshot())
    for action in ("fill 8 Hello", "click 10", "click 5", "go_back"):
        assert other.step(action) == await real.step(action)
    await real.restore(state)
    assert await real.snapshot() == state
    with pytest.raises(EnvironmentFault, match="not the one that was left"):
        await real.restore(state.replace(b"textbox To = someone", b"textbox To = another"))
    await real.close()
    await browsers.close()


@pytest.mark.browser
async def test_each_episode_has_a_context_of_its_own_and_none_stays() -> None:
    browsers = build(site="wiki", mode="browser")
    assert browsers.pool is not None
    task = browsers.task("wiki.watch", "train")
    envs, contexts = [browsers.make() for _ in range(2)], []
    for number in range(3):
        for env in envs:
            assert isinstance(env, BrowserEnv)
            await env.reset(task, episode_seed("train", number))
            assert env._page is not None
            contexts.append(env._page._context)
    assert len({id(context) for context in contexts}) == 6, "each episode has a context that no other one had"
    [browser] = browsers.pool._browsers
    for env in envs:
        await env.close()
    await asyncio.gather(*browsers.pool._chores)
    assert browser.handle.contexts == [] and browser.pages == 0
    await browsers.close()
    await browsers.close()
