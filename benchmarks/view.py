"""How fast `rollwright view` lists, filters, searches and opens episodes of a large run, and the memory it takes.

    python benchmarks/view.py                     10,000 episodes of 5 turns, in shards of 64 as a run writes them
    python benchmarks/view.py --episodes 100000 --shard 256 --json

Every figure is one request to the real server over the loopback, in a process of its own: seconds by the clock, and
seconds of the server's processor time, which other work on the machine changes little. "first" includes reading the
index. Memory is what the process holds above what it held with an empty folder.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _common import command, machine, publish, table

from rollwright.contracts import Message, StopReason, Task, Trajectory, Turn
from rollwright.run_io import RunFolder, Tracker
from rollwright.store import TrajectoryStore

TURNS, PROMPT, ACTION, STEPS = 5, 120, 24, 200
MEBI = 2**20


def episode(number: int, draws: random.Random) -> Trajectory:
    """One episode of an append-only chat whose texts and ids differ from those of every other one."""
    turns: list[Turn] = []
    prompt: tuple[int, ...] = ()
    for place in range(TURNS):
        prompt += tuple(draws.choices(range(1000), k=PROMPT))
        action = tuple(draws.choices(range(1000), k=ACTION))
        text = f"click item {draws.randrange(10_000)} of the list on page {place}"
        turns.append(
            Turn(
                prompt_ids=prompt,
                action_ids=action,
                action_logprobs=tuple(-draws.random() for _ in action),
                text=text,
                observed=(
                    Message(role="user", content=f"page {place} of shop {draws.randrange(500)}: " + "item " * 60),
                ),
                rewards={"env": float(place == TURNS - 1 and number % 3 == 0), "format": 0.1},
            )
        )
        prompt += action
    good = number % 3 == 0
    return Trajectory(
        id=f"0/{number // 64}/{number // 8 % 8}/{number % 8}",
        task=Task(id=f"task {number // 8 % 40}", split="train"),
        seed=number // 8,
        turns=tuple(turns),
        stop_reason=StopReason.TERMINATED if good else StopReason.MAX_TURNS,
        success=good,
        policy="bench",
        version=number // 64,
        wall_s=draws.random(),
    )


def write_run(folder: Path, episodes: int, shard: int) -> None:
    """A run folder with so many episodes."""
    run = RunFolder.create(folder, config_yaml="run:\n  seed: 0\n")
    tracker, draws = Tracker(run), random.Random(0)
    for step in range(STEPS):
        tracker.log(step, {"rollout/success_frac": step / STEPS, "reward/total_mean": draws.random()})
    store = TrajectoryStore(run.trajectories)
    for first in range(0, episodes, shard):
        numbers = range(first, min(first + shard, episodes))
        store.append([episode(number, draws) for number in numbers], tag=f"step_{first // shard}")


class Page:
    """The real server in a process of its own, asked over the loopback."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process, self._port = process, port

    def ask(self, path: str) -> tuple[tuple[float, float], bytes]:
        """Seconds by the clock and of the processor that one request takes, and its answer."""
        began, used = time.perf_counter(), self._processor_s()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        connection.request("GET", f"/api/{path}")
        content = connection.getresponse().read()
        connection.close()
        return (time.perf_counter() - began, self._processor_s() - used), content

    def _processor_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, what: str = "VmRSS") -> float:
        """MiB that the process holds now, or held at most (`VmHWM`)."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / MEBI


@contextmanager
def served(folder: Path) -> Iterator[Page]:
    """The page over a folder."""
    words = [sys.executable, "-m", "rollwright.cli", "view", str(folder), "--port", "0", "--no-open"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield Page(process, int(line.split("127.0.0.1:")[1].split("/")[0]))
        finally:
            process.terminate()


def measure(page: Page) -> dict[str, tuple[float, float]]:
    """Seconds of each request by the clock and of the processor, by name."""
    found = {}
    found["list of runs, first"], content = page.ask("runs")
    run = json.loads(content)["runs"][0]["id"]
    found["first 100 episodes, first"], content = page.ask(f"run/{run}/episodes")
    key = json.loads(content)["rows"][50]["key"]
    for name, path in {
        "list of runs": "runs",
        "first 100 episodes": f"run/{run}/episodes",
        "filter by task and success": f"run/{run}/episodes?task=task+7&success=yes",
        "filter by reward channel": f"run/{run}/episodes?channel=env&channel_sign=pos",
        "sort by reward, page 50": f"run/{run}/episodes?sort=-reward&offset=5000",
        "open an episode": f"run/{run}/episode/{key}",
        "tasks": f"run/{run}/tasks",
        "all metrics": f"run/{run}/metrics",
        "text search, first": f"run/{run}/episodes?text=item+4711",
        "text search, again": f"run/{run}/episodes?text=item+4711&success=yes",
    }.items():
        found[name] = page.ask(path)[0]
    return found


def main() -> None:
    """Write the run, ask the server, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--shard", type=int, default=64, help="episodes that a step of the run stores (64)")
    parser.add_argument("--folder", type=Path, help="keep the run here, and take it where it is there already")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON line at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = (arguments.folder or Path(scratch)) / "run"
        if not run.is_dir():
            write_run(run, arguments.episodes, arguments.shard)
        empty = Path(scratch) / "empty"
        RunFolder.create(empty, config_yaml="")
        with served(empty) as page:
            page.ask("runs")
            before = page.memory()
        with served(run) as page:
            found = measure(page)
            held, peak = page.memory() - before, page.memory("VmHWM") - before
    rows = [[name, *(f"{1000 * seconds:.0f} ms" for seconds in both)] for name, both in found.items()]
    memory = f"The index and caches hold {held:.0f} MiB, at most {peak:.0f} MiB."
    text = (
        f"# The page at {arguments.episodes:,} episodes\n\n"
        f"{TURNS} turns each, in shards of {arguments.shard}; a figure is one request to `rollwright view`.\n\n"
        f"{table(['request', 'clock', 'processor'], rows)}\n\n{memory}\n\n`{command()}`\n\n{machine('pyarrow')}\n"
    )
    publish("view", text, {"seconds": found, "held_mib": held, "peak_mib": peak}, as_json=arguments.json)


if __name__ == "__main__":
    main()
