"""Running ahead of a slow world: GRPO on the maze with heavy-tailed delays (0 to 2 s), staleness 0, 1, 2 side by side.

    python benchmarks/async.py --json
    python benchmarks/async.py --staleness 0 2 --seeds 0 --steps 5 --keep /tmp/async    a quick look

Every run makes the same number of updates from the same imitated policy; the runs of one seed follow each other, so
that a busy hour hits all settings alike. Success is judged without delays, on held-out starts, by sampled episodes. The
table goes to benchmarks/results/async.md; `--json` prints one object as the last line.
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from _common import command, machine, publish, spread, table

from rollwright.evaluation import load_evaluation
from rollwright.maths.statistics import Interval, clustered_bootstrap
from rollwright.recipes import grpo, sft
from rollwright.rollout import shares
from rollwright.run_io import read_metrics

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "world.name=_latency:build",
    "rollout.max_turns=15",
    "rollout.groups_per_step=4",
    "rollout.group_size=6",
    "evaluation.seeds_per_task=20",
    "evaluation.temperature=1.0",
    "evaluation.max_turns=20",
    "run.transcripts_every=0",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One training run, read from its folder. Seconds are of its steps alone, evaluation and start-up left out."""

    staleness: int
    seed: int
    successes: list[float]
    mean_return: float
    wall_s: float
    lanes: Mapping[str, Mapping[str, float]]
    staleness_mean: float
    stale_frac: float
    weight_capped_frac: float


def run(folder: Path, policy: Path, *, staleness: int, seed: int, steps: int, scale: float) -> Outcome:
    """Train once, or read a run that is finished already."""
    name = folder / f"k{staleness}_seed{seed}"
    if not (name / "eval" / "final.json").exists():
        words = [*SETTINGS, f"run.folder={name}", f"model.path={policy}", f"run.steps={steps}", f"run.seed={seed}"]
        more = [f"rollout.max_staleness={staleness}", f"world.options.scale={scale}"]
        grpo.main([str(ROOT / "recipes/text/maze_grpo.yaml"), *words, *more])
    return read(name, staleness=staleness, seed=seed)


def read(name: Path, *, staleness: int, seed: int) -> Outcome:
    rows = [row for row in read_metrics(name / "metrics.jsonl") if "time/step_s" in row]
    judged = load_evaluation(name / "eval" / "final.json").rows

    def mean(metric: str) -> float:
        values = [float(row[metric]) for row in rows if row.get(metric) is not None]
        return fmean(values) if values else 0.0

    return Outcome(
        staleness=staleness,
        seed=seed,
        successes=[float(row.success) for row in judged if row.success is not None],
        mean_return=fmean(row.total_return for row in judged),
        wall_s=sum(row["time/step_s"] for row in rows),
        lanes=shares(rows),
        staleness_mean=mean("rollout/staleness_mean"),
        stale_frac=mean("rollout/stale_frac"),
        weight_capped_frac=mean("policy/weight_capped_frac"),
    )


def success(runs: Sequence[Outcome]) -> Interval:
    """Over runs: one training run is one draw, its episodes are draws within it."""
    scores = {f"seed {one.seed}": one.successes for one in runs}
    generator = np.random.default_rng(0)
    return clustered_bootstrap(scores, generator=generator, fixed_tasks=len(scores) == 1)


def share(runs: Sequence[Outcome], lane: str, *parts: str) -> float:
    """Mean over runs of the share that these parts have of a lane's time."""
    return fmean(sum(one.lanes[lane].get(part, 0.0) for part in parts) for one in runs)


def row(staleness: int, runs: Sequence[Outcome]) -> list[object]:
    found, wall = success(runs), spread([one.wall_s for one in runs])
    return [
        staleness,
        f"{found.point:.2f} [{found.low:.2f}, {found.high:.2f}]",
        f"{fmean(one.mean_return for one in runs):.1f}",
        f"{wall['median']:.0f} [{wall['low']:.0f}, {wall['high']:.0f}]",
        *(f"{share(runs, 'generator', *parts):.0%}" for parts in (("prefill", "decode", "engine"), ("environment",))),
        f"{share(runs, 'generator', 'queue'):.0%}",
        *(f"{share(runs, 'learner', part):.0%}" for part in ("wait", "learn", "sync", "other")),
        f"{fmean(one.staleness_mean for one in runs):.2f}",
        f"{fmean(one.stale_frac for one in runs):.3f}",
    ]


HEADER = (
    "staleness k", "success [95%]", "return", "steps, s [low, high]", "generator: engine", "generator: environment",
    "generator: waits for learner", "learner: waits for episodes", "learner: learns", "learner: syncs",
    "learner: other", "age used, versions", "dropped as too old",
)  # fmt: skip


NOTES = """Success: sampled episodes of at most 20 moves from held-out starts, no delays; the interval takes training
runs as the units. Shares are of each lane's wall time (`ledger/` in docs/metrics.md). Running ahead also fills the
engine's batch: 24 episodes are in flight at most with k = 0, 48 with 1, 64 with 2; and on a machine that others use,
two busy threads get more of it than one. Compare settings, which took turns, not seconds."""


def report(by_setting: Mapping[int, Sequence[Outcome]], args: argparse.Namespace) -> str:
    minutes = sum(one.wall_s for runs in by_setting.values() for one in runs) / 60
    rows = [row(staleness, runs) for staleness, runs in by_setting.items()]
    return "\n".join(
        [
            "# Running ahead of a slow world",
            "",
            f"`{command()}`",
            "",
            f"{machine('torch', 'transformers')}; seeds {', '.join(map(str, args.seeds))}; steps: {minutes:.0f} "
            "minutes together.",
            f"GRPO on the maze, {args.steps} updates of 4 groups of 6 episodes, 15 moves at most; each move of a "
            f"training episode takes 10 ms to 2 s (Pareto 0.8, times {args.scale:g}). One process, tiny model, engine "
            "`transformers`: engine and learner share the processor, so only waiting for the world can be saved.",
            "",
            table(HEADER, rows),
            "",
            NOTES,
        ]
    )


def summary(by_setting: Mapping[int, Sequence[Outcome]]) -> dict[str, Any]:
    """What `--json` prints: per setting the means, and the wall time against the first setting's, seed by seed."""
    settings = list(by_setting)
    base = {one.seed: one.wall_s for one in by_setting[settings[0]]}
    found: dict[str, Any] = {}
    for staleness, runs in by_setting.items():
        interval = success(runs)
        found[str(staleness)] = {
            "success": interval.point,
            "success_low": interval.low,
            "success_high": interval.high,
            "mean_return": fmean(one.mean_return for one in runs),
            "wall_s": [one.wall_s for one in runs],
            "speed_up": spread([base[one.seed] / one.wall_s for one in runs]),
            "stale_frac": fmean(one.stale_frac for one in runs),
            "weight_capped_frac": fmean(one.weight_capped_frac for one in runs),
            "lanes": {lane: {p: share(runs, lane, p) for p in runs[0].lanes[lane]} for lane in runs[0].lanes},
        }
    return {"settings": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=16, help="updates of each run")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every delay")
    parser.add_argument("--keep", type=Path, help="folder for the runs; finished ones in it are only read")
    parser.add_argument("--no-file", action="store_true", help="print only")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        policy = folder / "sft" / "policy"
        if not (policy / "config.json").exists():
            sft.main([str(ROOT / "recipes/text/maze_sft.yaml"), f"run.folder={folder / 'sft'}"])
        settings = {"steps": args.steps, "scale": args.scale}
        runs = [run(folder, policy, staleness=k, seed=s, **settings) for s in args.seeds for k in args.staleness]
    by_setting = {k: [one for one in runs if one.staleness == k] for k in args.staleness}
    text = report(by_setting, args)
    publish("async", text, summary(by_setting), as_json=args.json, keep=not args.no_file)


if __name__ == "__main__":
    main()
