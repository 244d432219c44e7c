"""Episodes and steps per second of the small sites, without a browser and in one, by the teachers of all templates.

An episode is a reset (a database is filled, a task drawn, the home page shown) and the teacher's actions to the end,
each state observed; only episodes that end in success count. Seeds never repeat, so that no start is found in a cache.
In a browser each episode opens a context of its own; `--pages` of them run at once.

    python benchmarks/sites.py            table; also written to benchmarks/results/sites.md
    python benchmarks/sites.py --json     one final JSON line
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from _common import command, machine, publish, table

from rollwright.contracts import SPLITS, Observation, Task, episode_seed
from rollwright.envs.web.sites import build
from rollwright.envs.web.sites.envs import BareEnv, BrowserEnv
from rollwright.envs.web.sites.world import SitesWorld


def tasks_of(world: SitesWorld) -> list[Task]:
    return [task for split in SPLITS for task in world.tasks(split)]


def bare_episode(world: SitesWorld, task: Task, number: int) -> int:
    """One taught episode without a browser; returns its steps, 0 where it was not solved."""
    env, teacher, steps = world.make(), world.teacher(task), 0
    assert isinstance(env, BareEnv)
    observation = env.reset(task, episode_seed(task.split, "bench", number))
    while True:
        result = env.step(str(teacher.act(env, observation)))
        steps += 1
        assert isinstance(result.observation, Observation)
        observation = result.observation
        if result.terminated or result.truncated:
            env.close()
            return steps if result.success else 0


async def real_episode(world: SitesWorld, task: Task, number: int) -> int:
    """The same in a browser."""
    env, teacher, steps = world.make(), world.teacher(task), 0
    assert isinstance(env, BrowserEnv)
    observation = await env.reset(task, episode_seed(task.split, "bench", number))
    while True:
        result = await env.step(str(teacher.act(env, observation)))  # type: ignore[arg-type]
        steps += 1
        assert isinstance(result.observation, Observation)
        observation = result.observation
        if result.terminated or result.truncated:
            await env.close()
            return steps if result.success else 0


def rates(steps: list[int], seconds: float, cpu_s: float) -> dict[str, float]:
    solved = [number for number in steps if number]
    return {
        "episodes_per_s": len(solved) / seconds,
        "steps_per_s": sum(solved) / seconds,
        "cpu_ms_per_step": 1000 * cpu_s / max(1, sum(steps)),
    }


def without_browser(episodes: int, size: str) -> dict[str, float]:
    world = build(size=size, max_turns=40)
    tasks = tasks_of(world)
    start, cpu = time.perf_counter(), time.process_time()
    steps = [bare_episode(world, tasks[i % len(tasks)], i) for i in range(episodes)]
    return rates(steps, time.perf_counter() - start, time.process_time() - cpu)


async def in_browser(episodes: int, size: str, pages: int) -> dict[str, float]:
    """The CPU time is that of this process: the browser's own is not in it."""
    world = build(size=size, max_turns=40, mode="browser", deadline_s=120)
    tasks, gate = tasks_of(world), asyncio.Semaphore(pages)

    async def one(number: int) -> int:
        async with gate:
            return await real_episode(world, tasks[number % len(tasks)], number)

    await one(0)  # starts the browser
    start, cpu = time.perf_counter(), time.process_time()
    steps = await asyncio.gather(*(one(i) for i in range(1, episodes + 1)))
    result = rates(steps, time.perf_counter() - start, time.process_time() - cpu)
    await world.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--episodes", type=int, default=610, help="without a browser")
    parser.add_argument("--browser-episodes", type=int, default=122, help="in a browser; 0 leaves it out")
    parser.add_argument("--pages", type=int, default=8)
    parser.add_argument("--size", default="small")
    arguments = parser.parse_args()

    found = {"html": without_browser(arguments.episodes, arguments.size)}
    if arguments.browser_episodes:
        found["browser"] = asyncio.run(in_browser(arguments.browser_episodes, arguments.size, arguments.pages))
    rows = [[mode, *(f"{value:.1f}" for value in numbers.values())] for mode, numbers in found.items()]
    text = "\n".join(
        [
            "# Small sites: episodes and steps per second",
            "",
            f"All templates in turn by their teachers, size {arguments.size}; {arguments.episodes} episodes without a",
            f"browser, {arguments.browser_episodes} in one with {arguments.pages} pages at once, each in a context of",
            "its own. CPU time is that of the Python process.",
            "",
            table(["mode", "episodes/s", "steps/s", "CPU ms a step, reset's share included"], rows),
            "",
            f"Machine: {machine('playwright')}",
            f"Command: `{command()}`; seeds: `episode_seed(split, 'bench', number)`.",
        ]
    )
    summary: dict[str, Any] = {
        f"{mode}_{key}": value for mode, numbers in found.items() for key, value in numbers.items()
    }
    publish("sites", text, summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
