"""Rollouts against TRL's tool loop and against the queueing bound: the same episodes, latencies and run.

The environment only waits: 0.1 s, or log-normal and Pareto latencies drawn from a fixed seed. Generation is free (a
scripted engine here, a patched `_generate_single_turn` there), so what is timed is scheduling, tokenisation and the
record; one case has a real tiny model on both sides. A blocking call is `time.sleep` in a worker thread (ours) or an
ordinary tool (TRL), an async one is `asyncio.sleep` in a coroutine (both).

No schedule can end before the bound: the longest episode, or all latencies over the slots, whichever is more.
TRL's loop samples once more after the last tool answer; that sample is made free, to its advantage.

Each of our timings follows on an untimed one, as the rollouts of a run follow on an update: a machine whose cores have
slept for the seconds of the peer's turn takes milliseconds longer. That time is in the table too.

    python benchmarks/rollouts.py             table; also written to benchmarks/results/rollouts.md
    python benchmarks/rollouts.py --json      one final JSON line: ours, peer (seconds), ratio, bound, over_bound
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import command, machine, publish, spread, table
from _rollout_sides import ACTION, ANSWER, RULES, Case, Ours, Peer, question

from rollwright.generation import make_engine
from rollwright.models import make_tiny_model


def heavy_tailed(seed: int, *, episodes: int = 64, turns: int = 4) -> tuple[tuple[float, ...], ...]:
    """Half log-normal (median 30 ms, sigma 1), half Pareto (from 20 ms, shape 1.5), no call above 2 s."""
    rng = random.Random(seed)

    def wait() -> float:
        drawn = rng.lognormvariate(-3.5, 1.0) if rng.random() < 0.5 else 0.02 * rng.paretovariate(1.5)
        return min(drawn, 2.0)

    return tuple(tuple(wait() for _ in range(turns)) for _ in range(episodes))


def cases(seed: int) -> list[Case]:
    flat, tail = ((0.1,),) * 64, heavy_tailed(seed)
    return [
        Case(name="64 x 0.1 s", kind="blocking", latencies=flat),
        Case(name="64 x 0.1 s", kind="async", latencies=flat),
        Case(name="heavy tail, 4 turns, 64 slots", kind="blocking", latencies=tail),
        Case(name="heavy tail, 4 turns, 64 slots", kind="async", latencies=tail),
        Case(name="heavy tail, 4 turns, 16 slots", kind="blocking", latencies=tail, slots=16),
        Case(name="64 x 0.1 s, tiny model samples", kind="blocking", latencies=flat, model=True),
    ]


def measure(case: Case, folder: Path, repeats: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Medians over pairs; the first pair of each side makes threads and environments, and is left out."""
    engine = make_engine("transformers", model_path=folder, context_length=512) if case.model else None
    ours, peer = Ours(case, folder, engine), Peer(case, folder)
    times: dict[str, list[float]] = {"ours": [], "peer": [], "ours_generation": [], "peer_generation": [], "idle": []}
    try:
        for repeat in range(repeats + 1):
            for name, side in (("ours", ours), ("peer", peer))[:: 1 if repeat % 2 else -1]:
                if name == "peer" and repeat == 0 and not case.model:
                    continue  # nothing to warm up: it sleeps
                idle = ours.seconds()[0] if name == "ours" else 0.0
                took, generated = side.seconds()
                if repeat and idle:
                    times["idle"].append(idle)
                if repeat:
                    times[name].append(took)
                    times[f"{name}_generation"].append(generated)
    finally:
        ours.close()
        if engine is not None:
            engine.close()
    row = _row(case, times)
    log(f"{case.name}, {case.kind}: {row}")
    return row


def _row(case: Case, times: dict[str, list[float]]) -> dict[str, Any]:
    ours, peer = spread(times["ours"]), spread(times["peer"])
    free = [t - g for t, g in zip(times["ours"], times["ours_generation"], strict=True)]
    return {
        "case": case.name,
        "kind": case.kind,
        "slots": case.slots,
        "ours": round(ours["median"], 4),
        "ours_after_idleness": round(spread(times["idle"])["median"], 4),
        "ours_low": round(ours["low"], 4),
        "ours_high": round(ours["high"], 4),
        "ours_without_generation": round(spread(free)["median"], 4),
        "ours_generation": round(spread(times["ours_generation"])["median"], 4),
        "peer": round(peer["median"], 4),
        "peer_generation": round(spread(times["peer_generation"])["median"], 4),
        "ratio": round(spread([p / o for o, p in zip(times["ours"], times["peer"], strict=True)])["median"], 2),
        "bound": round(case.bound, 4),
        "first_come": round(case.first_come, 4),
        "over_bound": round(spread(free)["median"] / case.bound, 3),
    }


def report(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    columns = ["case", "call", "ours s [low, high]", "after idleness s", "of it generation"]
    columns += ["TRL s", "of it generation", "TRL / ours"]
    columns += ["bound s", "ours without generation / bound", "first come, no overhead s"]
    lines = [
        [
            r["case"],
            r["kind"],
            f"{r['ours']:.3f} [{r['ours_low']:.3f}, {r['ours_high']:.3f}]",
            f"{r['ours_after_idleness']:.3f}",
            f"{r['ours_generation']:.3f}",
            f"{r['peer']:.2f}",
            f"{r['peer_generation']:.2f}",
            r["ratio"],
            f"{r['bound']:.3f}",
            r["over_bound"],
            f"{r['first_come']:.3f}",
        ]
        for r in rows
    ]
    return "\n".join(
        [
            "# Rollouts: against TRL's tool loop and the queueing bound",
            "",
            f"`{command()}`",
            "",
            f"{machine('torch', 'transformers', 'trl')}.",
            f"Medians of {arguments.repeats} pairs after one warm-up; latencies from seed {arguments.seed}.",
            "",
            table(columns, lines),
            "",
            "Each of our timings follows on an untimed one; that one, the first after the peer's seconds of sleep, is "
            "the time after idleness.",
            "",
            "The bound: the longest episode, or all latencies over the slots, whichever is more; with fewer slots than "
            "episodes no on-line scheduler can promise it, so the last column gives what the order asked for costs "
            "without any overhead.",
            "",
            "TRL 1.16 waits for the tools of one episode before it starts those of the next, async or not (it gathers "
            "only the parallel calls of a single answer), so its time is the sum of all latencies. Every answer counts "
            "as a tool call on its side (a tokenizer that parses it so); its sample after the last tool answer is "
            "free. Its time runs from tokenised prompts to complete episodes; environments are reset before it starts.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name contains this text; writes no result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        texts = [ANSWER, ACTION, RULES, *(question(index) for index in range(64))]
        folder = make_tiny_model(Path(scratch) / "model", texts=texts, hidden=64, layers=2, context_length=512)
        chosen = [case for case in cases(arguments.seed) if arguments.only in case.name]
        rows = [measure(case, folder, arguments.repeats, lambda line: print(line, flush=True)) for case in chosen]
    if arguments.only:
        return
    head = rows[0]
    summary = {"unit": "seconds for 64 episodes of one blocking 0.1 s call, generation free"}
    summary |= {key: head[key] for key in ("ours", "ours_after_idleness", "peer", "ratio", "bound", "over_bound")}
    summary |= {"target_ours": 0.15, "target_over_bound": 1.1, "cases": rows}
    publish("rollouts", report(rows, arguments), summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
