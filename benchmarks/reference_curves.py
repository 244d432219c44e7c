"""The usual learning curve of a shipped recipe over several training seeds, as `rollwright view` shows it.

    python benchmarks/reference_curves.py text/maze_grpo --recipe grpo --seeds 0 1 2 3 4 --into runs/reference
    python benchmarks/reference_curves.py text/maze_grpo --runs runs/reference/text_maze_grpo_*      reads runs alone

The first form trains what is missing; a recipe that begins with another one's policy is given it with
`--set model.path=runs/maze_sft/policy`. The curve of each metric is the mean over seeds with the 95 % interval of
Student's t. It goes into src/rollwright/view/reference/curves.json, beside those of other recipes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _common import commit

from rollwright.maths.statistics.rates import student_quantile
from rollwright.run_io import read_facts, read_metrics

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "src" / "rollwright" / "view" / "reference" / "curves.json"
METRICS = ("rollout/success_frac", "reward/total_mean", "rollout/nll_mean", "rollout/num_turns_mean")
CONFIDENCE = 0.95


def curve(runs: Sequence[Mapping[int, float]], *, share: bool = False) -> dict[str, list[float]]:
    """Mean and interval by step over runs, at the steps that all of them have.

    Args:
        runs: step -> value of one metric, of each run.
        share: the metric lies between 0 and 1, and so does its interval.
    """
    least, most = (0.0, 1.0) if share else (-math.inf, math.inf)
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    found: dict[str, list[float]] = {"steps": [float(step) for step in steps], "mean": [], "low": [], "high": []}
    reach = student_quantile(0.5 + CONFIDENCE / 2, len(runs) - 1) / math.sqrt(len(runs))
    for step in steps:
        values = [run[step] for run in runs]
        mean, half = statistics.fmean(values), reach * statistics.stdev(values)
        for name, value in (("mean", mean), ("low", mean - half), ("high", mean + half)):
            found[name].append(float(f"{min(most, max(least, value)):.5g}"))
    return found


def reference(name: str, folders: Sequence[Path], words: str) -> dict[str, Any]:
    """The entry of a recipe from its finished runs."""
    rows = [read_metrics(folder / "metrics.jsonl") for folder in folders]
    curves = {}
    for metric in METRICS:
        runs = [{row["step"]: row[metric] for row in run if row.get(metric) is not None} for run in rows]
        if all(runs):
            curves[metric] = curve(runs, share=metric.endswith("_frac"))
    commits = {(read_facts(folder)["sessions"][-1].get("commit") or {}).get("id", "")[:8] for folder in folders}
    return {
        "name": name,
        "seeds": len(folders),
        "commit": ", ".join(sorted(commits)) or commit(),
        "command": words,
        "confidence": CONFIDENCE,
        "curves": curves,
    }


def train(name: str, recipe: str, seed: int, folder: Path, words: Sequence[str]) -> None:
    """One run, unless it is finished."""
    sessions = read_facts(folder).get("sessions") or [{}]
    if sessions[-1].get("outcome") == "finished":
        return
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    own = [f"recipes/{recipe}.py", f"recipes/{name}.yaml", f"run.seed={seed}", f"run.folder={folder}", *words]
    subprocess.run([*launch, *own], cwd=ROOT, check=True)


def main() -> None:
    """Train what is missing, and write the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the YAML by its short name, such as text/maze_grpo")
    parser.add_argument("--recipe", default="grpo", help="the recipe that reads it (grpo)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="training seeds (0 1 2 3 4)")
    parser.add_argument("--into", type=Path, default=Path("runs/reference"), help="folder of the runs")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of every run")
    parser.add_argument("--runs", type=Path, nargs="+", help="read these finished runs and train nothing")
    arguments = parser.parse_args()
    folders = arguments.runs or [
        (arguments.into / f"{arguments.name.replace('/', '_')}_{seed}").resolve() for seed in arguments.seeds
    ]
    if not arguments.runs:
        for seed, folder in zip(arguments.seeds, folders, strict=True):
            train(arguments.name, arguments.recipe, seed, folder, arguments.set)
    if len(folders) < 2:
        raise SystemExit("an interval needs two runs or more")
    known = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    words = f"python benchmarks/reference_curves.py {arguments.name} --recipe {arguments.recipe}"
    known[arguments.name] = reference(arguments.name, folders, words)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.name}: {len(folders)} runs, {', '.join(known[arguments.name]['curves'])} -> {TARGET.name}")


if __name__ == "__main__":
    main()
