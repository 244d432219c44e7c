"""What the minutes of reinforcement learning would have brought as more supervised fine-tuning.

Takes a finished demo run, trains its SFT policy further on fresh demonstrations by the same teachers, as long as GRPO
collected and trained, and judges the result on the same held-out start states. Paired with both policies of the run.

    python benchmarks/demo_control.py --run runs/demo            tables; also written to benchmarks/results/
    python benchmarks/demo_control.py --run runs/demo --json     one final JSON line: ours (GRPO), peer (SFT), ratio
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rollwright.evaluation import compare, format_comparison, format_side_by_side, load_evaluation, summarise
from rollwright.run_io import read_metrics

ROOT = Path(__file__).parents[1]


def training_minutes(grpo: Path) -> float:
    """Minutes GRPO spent on its steps: episodes, updates, syncs. Evaluations are not training."""
    rows = read_metrics(grpo / "metrics.jsonl")
    return sum(row.get("time/step_s", 0.0) for row in rows) / 60


def recipe(name: str, *words: str) -> None:
    """Run a recipe as a user would."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    subprocess.run([*launch, f"recipes/{name}", *words], cwd=ROOT, check=True)


def train_control(run: Path, control: Path, minutes: float, demos: int, engine: str, seeds: int) -> None:
    """More SFT from the run's own SFT policy, then the judgement. Skips what is there already."""
    if not (control / "policy" / "config.json").exists():
        recipe(
            "sft.py",
            "recipes/web/miniwob_sft.yaml",
            f"run.folder={control}",
            "run.seed=1000",  # other demonstrations than the first round's
            f"model.path={run / 'sft' / 'policy'}",
            f"data.per_task={demos}",
            "sft.epochs=20",
            f"sft.max_minutes={minutes}",
        )
    if not (control / "eval" / "control.json").exists():
        recipe(
            "evaluate.py",
            "recipes/web/miniwob_eval.yaml",
            f"folder={control}",
            "name=control",
            f"model.path={control / 'policy'}",
            f"engine={engine}",
            f"evaluation.seeds_per_task={seeds}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of a finished demo")
    parser.add_argument("--demos", type=int, default=60, help="fresh demonstrations per task")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    run = arguments.run.resolve()
    before = load_evaluation(run / "grpo" / "eval" / "start.json")
    after = load_evaluation(run / "grpo" / "eval" / "final.json")
    seeds = len({(row.task, row.seed) for row in before.rows}) // len(before.tasks)
    minutes = training_minutes(run / "grpo")
    control = run / "control"
    train_control(run, control, minutes, arguments.demos, arguments.engine, seeds)
    more = load_evaluation(control / "eval" / "control.json")
    print(f"{minutes:.1f} minutes of GRPO against {minutes:.1f} minutes of more SFT")
    print(format_side_by_side({"after SFT": before, "after GRPO": after, "after more SFT": more}))
    print(format_comparison(compare(more, after, name_a="more SFT", name_b="GRPO", fixed_tasks=True)))
    success = {name: _success(e) for name, e in (("sft", before), ("ours", after), ("peer", more))}
    if arguments.json:
        ratio = success["ours"] / success["peer"] if success["peer"] else None
        print(json.dumps({"benchmark": "demo_control", **success, "ratio": ratio, "minutes": round(minutes, 1)}))


def _success(evaluation: object) -> float | None:
    interval = summarise(evaluation).success  # type: ignore[arg-type]
    return None if interval is None else round(interval.point, 4)


if __name__ == "__main__":
    main()
