"""What a fork costs: snapshot a running episode, restore it into another environment, in milliseconds.

Every world that can be built here and has snapshots is measured, through the contract alone: play two of the teacher's
actions, then again and again `snapshot()` and `restore()` into a second environment that has played the same task,
checking each time that the fingerprint is the one that was left. The time of a fork is that of both calls together.

Then what a start costs: in one environment, in turn, a fresh one (`reset` with a seed of its own, and the fingerprint)
and a forked one (`restore` of a state that was taken before, and the fingerprint), as an episode begins with either.

    python benchmarks/fork.py            table; also written to benchmarks/results/fork.md
    python benchmarks/fork.py --json     one final JSON line: text_ms, device_ms, code_ms, web_ms (medians), and
                                         text_start_ratio and so on

The key of a family is the median of its slowest world, and the highest ratio of a forked start to a fresh one; a family
with no world here is left out. `web_ms` is in a browser, `web_html_ms` the same world without one.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from _common import command, machine, publish, table

from rollwright.config import available, create
from rollwright.contracts import RollwrightError, Snapshots, Taught, World, as_observation, episode_seed

WARM_UP_ACTIONS = 2
FAMILIES = ("text", "device", "code", "web")
OPTIONS: dict[str, list[tuple[str, Mapping[str, Any]]]] = {
    "web.sites": [("web", {"mode": "browser", "deadline_s": 120}), ("web_html", {"mode": "html"})],
    "web.miniwob": [],  # restores by playing all actions again: no fork in the sense of this benchmark
}


async def call(method: Any, *args: Any) -> Any:
    """Call a method of an environment, whatever its world's execution is."""
    result = method(*args)
    return await result if inspect.isawaitable(result) else result


async def play_in(world: World, env: Any, seed_key: str) -> bool:
    """Start an episode of the first task and play some of its teacher's actions; False where no task can be had."""
    task = next((task for split in ("train", "validation", "test") for task in world.tasks(split)), None)  # type: ignore[arg-type]
    if task is None:
        return False
    observation = as_observation(await call(env.reset, task, episode_seed(task.split, seed_key)))
    teacher = world.teacher(task) if isinstance(world, Taught) else None
    for _ in range(WARM_UP_ACTIONS if teacher else 0):
        result = await call(env.step, await call(teacher.act, env, observation))  # type: ignore[union-attr]
        if result.terminated or result.truncated:
            await call(env.reset, task, episode_seed(task.split, seed_key))
            break
        observation = as_observation(result.observation)
    return True


async def forks(world: World, number: int) -> tuple[list[float], int]:
    """Milliseconds of `number` forks, and the size of a snapshot in bytes."""
    env, other = await call(world.make), await call(world.make)
    try:
        if (
            not isinstance(env, Snapshots)
            or not await play_in(world, env, "fork")
            or not await play_in(world, other, "fork")
        ):
            return [], 0
        key, times, state = await call(env.fingerprint), [], b""
        for _ in range(number + 1):
            start = time.perf_counter()
            state = await call(env.snapshot)
            await call(other.restore, state)
            times.append(1000 * (time.perf_counter() - start))
            if await call(other.fingerprint) != key:
                raise RuntimeError(f"{world.name}: the fork is in another state than the episode it was taken from")
        return times[1:], len(state)  # the first one pays for what is made once
    finally:
        await call(env.close)
        await call(other.close)


async def begins(world: World, number: int) -> tuple[list[float], list[float]]:
    """Milliseconds of `number` fresh starts, and of as many forked ones, in one environment by turns."""
    env: Any = await call(world.make)
    try:
        if not await play_in(world, env, "fork"):
            return [], []
        state, key = await call(env.snapshot), await call(env.fingerprint)
        task = next(task for split in ("train", "validation", "test") for task in world.tasks(split))  # type: ignore[arg-type]
        fresh, forked = [], []
        for turn in range(number + 1):
            seed = episode_seed(task.split, "fresh", turn)
            fresh.append(await timed(env, env.reset, task, seed))
            forked.append(await timed(env, env.restore, state))
            if await call(env.fingerprint) != key:
                raise RuntimeError(f"{world.name}: a forked start is in another state than the one that was taken")
        return fresh[1:], forked[1:]
    finally:
        await call(env.close)


async def timed(env: Any, method: Any, *args: Any) -> float:
    """Milliseconds of a call and of the fingerprint behind it, as an episode asks for both."""
    start = time.perf_counter()
    await call(method, *args)
    await call(env.fingerprint)
    return 1000 * (time.perf_counter() - start)


class Cost(NamedTuple):
    """What was measured of one world; times in milliseconds."""

    family: str
    world: str
    times: list[float]
    size: int
    fresh: list[float]
    forked: list[float]

    @property
    def ratio(self) -> float:
        """A forked start by a fresh one, medians."""
        return statistics.median(self.forked) / statistics.median(self.fresh)


async def measure(number: int, worlds: list[str]) -> list[Cost]:
    """Every world (of these, if any are named) that can be forked here."""
    found = []
    for name in worlds or available("envs"):
        for family, options in OPTIONS.get(name, [(name.partition(".")[0], {})]):
            try:
                world = create("envs", name, options)
                if world.snapshots == "none":
                    continue
                times, size = await forks(world, number)
                fresh, forked = await begins(world, number) if times else ([], [])
                await call(world.close)
            except RollwrightError as missing:
                print(f"{name} left out: {missing}")
                continue
            if times:
                found.append(Cost(family, name, times, size, fresh, forked))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--forks", type=int, default=50, help="per world")
    parser.add_argument("--worlds", nargs="*", default=[], help="only these, such as web.sites; default: all")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.forks, arguments.worlds))
    rows = [
        [
            one.world,
            one.family,
            *(f"{value:.2f}" for value in (statistics.median(one.times), min(one.times), max(one.times))),
            one.size,
            *(f"{statistics.median(times):.3f}" for times in (one.fresh, one.forked)),
            f"{one.ratio:.2f}",
        ]
        for one in found
    ]
    summary: dict[str, Any] = {}
    for family in (*FAMILIES, "web_html"):
        members = [one for one in found if one.family == family]
        if members:
            summary[f"{family}_ms"] = max(statistics.median(one.times) for one in members)
            summary[f"{family}_start_ratio"] = max(one.ratio for one in members)
    text = "\n".join(
        [
            "# Forks: milliseconds of a snapshot and a restore into another environment",
            "",
            table(
                [
                    *("world", "family", "median", "lowest", "highest", "bytes of a snapshot"),
                    *("fresh start", "forked start", "forked / fresh"),
                ],
                rows,
            ),
            "",
            f"{arguments.forks} forks each, after two actions of the teacher. A fresh start is `reset`, a forked one "
            "`restore`, both with the fingerprint behind it; medians in milliseconds.",
            "",
            f"Machine: {machine('playwright')}",
            f"Command: `{command()}`",
        ]
    )
    publish("fork", text, summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
