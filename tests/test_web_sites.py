"""The small sites: templates and teachers, near misses, splits, determinism, snapshots, and equality with a browser."""

from __future__ import annotations

import asyncio
import random

import pytest

from rollwright.env import Observation, episode_seed
from rollwright.env_check import check_env
from rollwright.envs.web.sites import build
from rollwright.envs.web.sites.catalogue import SITES
from rollwright.envs.web.sites.envs import BareEnv, BrowserEnv
from rollwright.envs.web.sites.world import SitesWorld
from rollwright.types import SPLITS, Task


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
    check_env(build(), seeds=2, tasks_per_split=20)


@pytest.mark.browser
def test_the_contract_holds_in_a_browser() -> None:
    check_env(build(site="mail", mode="browser"), seeds=1, tasks_per_split=1)


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
