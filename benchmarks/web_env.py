"""Episodes per second of the web world against `miniwob` driven through selenium, same task, same machine, same run.

An episode of click-test-2 is a reset, a click at a place where nothing is, and a click on button ONE; every state is
observed, and only episodes that the page itself pays are counted. Both drive the same headless Chromium. Rounds
alternate between the two, so that load from elsewhere falls on both; the ratio is the median over the rounds of ours
by the peer's in the same round, at the same number of pages. Selenium starts one browser per page.

    python benchmarks/web_env.py              table; also written to benchmarks/results/web_env.md
    python benchmarks/web_env.py --json       one final JSON line: ours, peer (episodes/s at 8 pages), ratio

Needs a chromedriver of the browser's version besides: apt-get install chromium-driver
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rollwright.contracts import episode_seed
from rollwright.envs.web.chromium.processes import find_browser
from rollwright.envs.web.miniwob import MiniWobWorld, build
from rollwright.envs.web.miniwob_tasks.miniwob_episode import MiniWobEnv

RESULTS = Path(__file__).parent / "results" / "web_env.md"
TASK = "click-test-2"
PAGES = (1, 2, 8, 32)
PEER_PAGES = (1, 8)
JUDGED = 8
NOWHERE = (80, 25)


def missing() -> str:
    """What this benchmark needs and does not find, with what installs it; empty where all is there."""
    wanted = {
        "a Chromium, by apt-get install chromium-headless-shell": find_browser(),
        "the program chromedriver, by apt-get install chromium-driver": shutil.which("chromedriver"),
        "the package miniwob, by pip install 'rollwright[web]'": importlib.util.find_spec("miniwob"),
        "the package selenium, by pip install selenium": importlib.util.find_spec("selenium"),
    }
    lacking = [name for name, found in wanted.items() if not found]
    if not lacking:
        return ""
    return f"this benchmark drives miniwob through selenium as well, and does not find: {'; '.join(lacking)}"


async def our_episodes(env: MiniWobEnv, world: MiniWobWorld, seed: str, seconds: float) -> int:
    """Play until the time is over; returns the episodes that the page paid."""
    task, won, end = world.task(TASK, "train"), 0, time.perf_counter() + seconds
    for number in itertools.count():
        if time.perf_counter() > end:
            break
        observation = await env.reset(task, episode_seed("train", seed, number))
        await env.step(f"mouse_click {NOWHERE[0]} {NOWHERE[1]}")
        target = next(line.split()[0] for line in observation.text.splitlines() if line.endswith("button ONE"))
        won += bool((await env.step(f"click {target}")).success)
    return won


async def our_rate(world: MiniWobWorld, pages: int, seconds: float) -> float:
    """Episodes per second with `pages` environments at once, after one warm-up episode in each."""
    envs = [world.make() for _ in range(pages)]
    await asyncio.gather(*(env.reset(world.task(TASK, "train"), episode_seed("train", 0)) for env in envs))
    start = time.perf_counter()
    won = await asyncio.gather(
        *(our_episodes(env, world, f"{pages}/{number}", seconds) for number, env in enumerate(envs))
    )
    rate = sum(won) / (time.perf_counter() - start)
    for env in envs:
        await env.close()
    return rate


def peer_env() -> Any:
    """`miniwob` as its package drives it, pointed at the same Chromium."""
    os.environ["MINIWOB_CHROME_BINARY"] = find_browser() or ""
    os.environ["MINIWOB_CHROMEDRIVER"] = shutil.which("chromedriver") or ""
    import gymnasium
    import miniwob

    gymnasium.register_envs(miniwob)
    return gymnasium.make(f"miniwob/{TASK}-v1")


def peer_episodes(env: Any, seconds: float) -> int:
    """The same episode through selenium; returns the episodes that the page paid."""
    from miniwob.action import ActionTypes

    won, end = 0, time.perf_counter() + seconds
    for number in itertools.count():
        if time.perf_counter() > end:
            break
        observation, _ = env.reset(seed=number)
        env.step(env.unwrapped.create_action(ActionTypes.CLICK_COORDS, coords=NOWHERE))
        target = next(element["ref"] for element in observation["dom_elements"] if element["text"] == "ONE")
        *_, info = env.step(env.unwrapped.create_action(ActionTypes.CLICK_ELEMENT, ref=target))
        won += info["raw_reward"] == 1
    return won


def peer_rate(envs: list[Any], seconds: float) -> float:
    """Episodes per second of all these environments, each in a thread of its own."""
    with ThreadPoolExecutor(len(envs)) as threads:
        list(threads.map(lambda env: env.reset(seed=0), envs))
        start = time.perf_counter()
        won = sum(threads.map(lambda env: peer_episodes(env, seconds), envs))
        return won / (time.perf_counter() - start)


async def measure(rounds: int, seconds: float) -> dict[str, dict[int, list[float]]]:
    """Rates by side and number of pages, one entry a round."""
    world = build(tasks=[TASK])
    peers = [await asyncio.to_thread(peer_env) for _ in range(max(PEER_PAGES))]
    rates: dict[str, dict[int, list[float]]] = {"ours": {n: [] for n in PAGES}, "peer": {n: [] for n in PEER_PAGES}}
    try:
        for number in range(rounds):
            for pages in PAGES:
                rates["ours"][pages].append(await our_rate(world, pages, seconds))
                if pages in PEER_PAGES:
                    rates["peer"][pages].append(await asyncio.to_thread(peer_rate, peers[:pages], seconds))
            progress(number + 1, rounds, rates)
    finally:
        await asyncio.gather(*(asyncio.to_thread(env.close) for env in peers))
        await world.close()
    return rates


def progress(done: int, rounds: int, rates: dict[str, dict[int, list[float]]]) -> None:
    ours, peer = rates["ours"][JUDGED][-1], rates["peer"][JUDGED][-1]
    print(
        f"round {done}/{rounds}: {JUDGED} pages, ours {ours:.1f}/s, selenium {peer:.1f}/s", file=sys.stderr, flush=True
    )


def summary(rates: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """Medians, and the paired ratios at the number of pages that is judged."""
    pairs = {n: [a / b for a, b in zip(rates["ours"][n], rates["peer"][n], strict=True) if b > 0] for n in PEER_PAGES}
    return {
        "ours": statistics.median(rates["ours"][JUDGED]),
        "peer": statistics.median(rates["peer"][JUDGED]),
        "ratio": statistics.median(pairs[JUDGED]),
        "ratio_min": min(pairs[JUDGED]),
        "ratio_max": max(pairs[JUDGED]),
        "ratio_1_page": statistics.median(pairs[1]),
        "ratio_to_best_peer": statistics.median(rates["ours"][JUDGED])
        / max(statistics.median(rates["peer"][n]) for n in PEER_PAGES),
        "unit": f"episodes/s at {JUDGED} pages",
        "ours_by_pages": {n: statistics.median(values) for n, values in rates["ours"].items()},
        "peer_by_pages": {n: statistics.median(values) for n, values in rates["peer"].items()},
        "rounds": len(pairs[JUDGED]),
        "load": os.getloadavg()[0],
    }


def report(result: dict[str, Any], rates: dict[str, dict[int, list[float]]]) -> str:
    """The result as Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# Web environment: episodes per second",
        "",
        f"Task {TASK}: reset, a click beside everything, a click on button ONE; each state observed. Median (lowest to",
        f"highest) of {result['rounds']} rounds that alternate between the two. Same Chromium; selenium starts one",
        "browser a page. Ours does not paint pages that nobody photographs; the package photographs each state.",
        "",
        "| pages | ours | miniwob through selenium | ours / selenium, paired |",
        "| --- | --- | --- | --- |",
    ]
    for pages in PAGES:
        peer = rates["peer"].get(pages)
        ratio = [a / b for a, b in zip(rates["ours"][pages], peer, strict=True) if b > 0] if peer else None
        cells = [spread(rates["ours"][pages]), spread(peer) if peer else "-", spread(ratio) if ratio else "-"]
        lines.append(f"| {pages} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Ours at {JUDGED} pages against selenium's best number of pages: {result['ratio_to_best_peer']:.1f} times.",
        "",
        f"Machine: {os.cpu_count()} CPU cores, {platform.machine()}, load {result['load']:.1f} at the end; "
        f"Python {platform.python_version()}; commit {commit}.",
        "",
    ]
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    arguments = parser.parse_args()
    if lacking := missing():
        print(lacking, file=sys.stderr)
        sys.exit(2)
    rates = asyncio.run(measure(arguments.rounds, arguments.seconds))
    result = summary(rates)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(report(result, rates), encoding="utf-8")
    print(json.dumps(result) if arguments.json else RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
