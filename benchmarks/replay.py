"""Random access into a large store: time to sample a batch of turns, and the memory that the table takes.

Writes a store of synthetic episodes (windowed prompts of about 120 ids, actions of 8), builds the index, then draws
batches. The peer is the same draw through the store's own reader, one block of Parquet per trajectory.

    python benchmarks/replay.py --turns 1000000 --json
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from _common import command, machine, publish, table

from rollwright.contracts import StopReason, Task, Trajectory, Turn
from rollwright.store import Ref, TrajectoryStore
from rollwright.store.replay import ReplaySampler, TurnTable, valid_turns

TURNS_PER_EPISODE = 10
EPISODES_PER_SHARD = 5_000


def episodes(count: int, rng: np.random.Generator) -> Iterator[Trajectory]:
    """Synthetic episodes: what matters here is their size on disk, not what they say."""
    for number in range(count):
        prompts = rng.integers(0, 49_152, size=(TURNS_PER_EPISODE, 120)).tolist()
        actions = rng.integers(0, 49_152, size=(TURNS_PER_EPISODE, 8)).tolist()
        turns = tuple(
            Turn(prompt_ids=tuple(p), action_ids=tuple(a), action_logprobs=(-0.5,) * 8, text="click 3")
            for p, a in zip(prompts, actions, strict=True)
        )
        task = Task(id=f"task-{number % 100}", split="train")
        yield Trajectory(
            id=str(number), task=task, seed=number, turns=turns, stop_reason=StopReason.TERMINATED, success=True
        )


def write_store(folder: Path, turns: int) -> TrajectoryStore:
    store, source = TrajectoryStore(folder), episodes(turns // TURNS_PER_EPISODE, np.random.default_rng(0))
    while shard := list(islice(source, EPISODES_PER_SHARD)):
        store.append(shard)
        print(f"  {store.turn_count} turns written", flush=True)
    return store


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each call."""
    taken = []
    for _ in range(repeats):
        before = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - before))
    return taken


def through_the_store(store: TrajectoryStore, size: int, rng: np.random.Generator) -> None:
    """The peer: `size` random turns by reading each one's trajectory from Parquet."""
    shards = store.shard_numbers()
    for shard, row in zip(rng.choice(shards, size), rng.integers(EPISODES_PER_SHARD, size=size), strict=True):
        store.read(Ref(int(shard), int(row)))


def anonymous_mb() -> float:
    """Resident memory that belongs to this process alone, memory-mapped files left out, in MB."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), arguments.turns)
        start = time.perf_counter()
        TurnTable(store)
        build_s = time.perf_counter() - start
        before = anonymous_mb()
        replay = TurnTable(store)
        sampler = ReplaySampler(replay, valid_turns(replay), seed=0)
        opened = anonymous_mb()
        ours = timed(lambda: sampler.sample(arguments.batch), arguments.repeats)
        grown = anonymous_mb()
        rng = np.random.default_rng(1)
        few = max(1, arguments.batch // 16)  # every draw decodes a whole block
        peer = [arguments.batch / few * ms for ms in timed(lambda: through_the_store(store, few, rng), 1)]
    p50, p95 = statistics.median(ours), float(np.quantile(ours, 0.95))
    rows = [
        ["index, memory-mapped", p50, p95],
        ["the store's reader (from a sixteenth of one batch)", peer[0], peer[0]],
    ]
    lines = [
        "# Replay: random turns of a large store",
        "",
        f"`{command()}`",
        "",
        machine("numpy", "pyarrow"),
        "",
        f"{len(replay)} turns, batches of {arguments.batch}, {arguments.repeats} repeats.",
        "",
        table(["access", "p50 ms", "p95 ms"], rows),
        "",
        f"Index built once in {build_s:.1f} s. Opening table and view takes {opened - before:.0f} MB of memory of its",
        f"own; {arguments.repeats} batches add {grown - opened:.1f} MB. Peak of the whole run, writing included: "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB.",
    ]
    summary = {
        "sample_ms_p50": round(p50, 3),
        "sample_ms_p95": round(p95, 3),
        "ours": round(p50, 3),
        "peer": round(peer[0], 1),
        "ratio": round(peer[0] / p50, 1),
        "turns": len(replay),
        "memory_open_mb": round(opened - before, 1),
        "memory_growth_mb": round(grown - opened, 1),
    }
    publish("replay", "\n".join(lines), summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
