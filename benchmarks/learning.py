"""Methods against each other: one world, one start, one budget of episodes, several seeds, held-out success.

    python benchmarks/learning.py --methods grpo ppo filtered_bc digirl archer --world maze --seeds 5
    python benchmarks/learning.py --methods digirl digirl_both --world maze --seeds 5      offline, then online
    python benchmarks/learning.py --methods bc filtered_bc_offline archer_offline --world maze --seeds 5   from a store
    python benchmarks/learning.py --methods bc filtered_bc_offline mc ilql --world maze_parts --seeds 5    walks to join
    python benchmarks/learning.py --methods grpo grpo_snapshots --world lock --seeds 5       starts in mid-episode
    python benchmarks/learning.py --methods grpo filtered_bc digirl webrl archer --world miniwob --seeds 1 \
        --episodes 576 --evaluations 3 --eval-seeds 20       SmolLM2 on web pages: one confirmation each, no statistics

Every run is a recipe with its own YAML, started as a user would start it. Online methods get the same number of
episodes; offline methods the same store and the same number of optimiser steps of the policy. The table gives the
interquartile mean of held-out success with its 95% stratified bootstrap interval over seeds (of one seed alone: the
mean, and an interval that speaks of other held-out starts, not of other runs), the mean return, the probability that a
run of the method beats one of the baseline (the first method named), and the episodes and minutes until an evaluation
first reached the threshold. Finished runs are not repeated: --folder keeps them.

    python benchmarks/learning.py --world maze --from-runs --methods grpo ppo

writes the same table from the run folders alone, as `rollwright runs` finds them, and starts nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _common import RESULTS, command, machine, table
from _learning_worlds import WORLDS, Method, World

from rollwright.evaluation import load_evaluation
from rollwright.maths.statistics import (
    Interval,
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap,
    stratified_bootstrap_pair,
)
from rollwright.run_io import read_metrics
from rollwright.view import query_runs

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One finished run: success of every held-out start per task, mean return, when it first reached the threshold."""

    success: dict[str, list[float]]
    mean_return: float
    episodes_to: float | None
    minutes_to: float | None
    minutes: float


def launch(recipe: str, settings: str, *words: str) -> None:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    subprocess.run([*accelerate, f"recipes/{recipe}", f"recipes/{settings}", *words], cwd=ROOT, check=True)


def prepare(world: World, folder: Path) -> tuple[Path, Path]:
    """The common start and the common store, made once."""
    start, data = folder / "start", folder / "data"
    stored, model = f"data.stores=[{data / 'trajectories'}]", f"model.path={start / 'policy'}"
    if world.data_first:
        launch(*world.data, f"run.folder={data}")
    if not (start / "policy" / "config.json").exists():
        launch(*world.start, f"run.folder={start}", *([stored] if world.data_first else []))
    if not world.data_first:
        launch(*world.data, f"run.folder={data}", model)
    return start / "policy", data / "trajectories"


def train(name: str, seed: int, folder: Path, start: Path, store: Path, arguments: argparse.Namespace) -> None:
    """One run, unless it is finished."""
    world = WORLDS[arguments.world]
    method = world.methods[name]
    if (folder / "eval" / "final.json").exists():
        return
    online = arguments.episodes // method.per_step if method.per_step else arguments.offline_steps
    steps = method.offline + online
    launch(
        method.recipe,
        method.settings,
        f"run.folder={folder}",
        f"run.seed={seed}",
        f"run.steps={steps}",
        f"model.path={start}",
        f"evaluation.every={max(1, steps // arguments.evaluations)}",
        f"evaluation.seeds_per_task={arguments.eval_seeds}",
        *world.judged,
        *method.words,
        *([f"replay.stores=[{store}]"] if method.needs_store else []),
    )


def read(folder: Path, threshold: float) -> Outcome:
    """What a finished run left behind."""
    rows = load_evaluation(folder / "eval" / "final.json").rows
    tasks: dict[str, list[float]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(float(bool(row.success)))
    episodes = minutes = 0.0
    first: tuple[float, float] | None = None
    for line in read_metrics(folder / "metrics.jsonl"):
        episodes += line.get("rollout/episodes_count", 0.0)
        minutes += line.get("time/step_s", 0.0) / 60
        if first is None and line.get("eval/success_frac", 0.0) >= threshold:
            first = (episodes, minutes)
    return Outcome(
        success=tasks,
        mean_return=float(np.mean([row.total_return for row in rows])),
        episodes_to=first[0] if first else None,
        minutes_to=first[1] if first else None,
        minutes=minutes,
    )


def from_runs(folder: Path, methods: list[str], threshold: float) -> dict[str, list[Outcome]]:
    """method -> its finished runs, found below `<method>/<seed>` and sorted by seed; methods in the order given."""
    found: dict[str, list[Outcome]] = {}
    for method in methods:
        runs = query_runs([folder / method], where=["state=finished"], sort=["seed"]).records
        found[method] = [read(run.folder, threshold) for run in runs]
    return found


def scores(outcomes: list[Outcome]) -> np.ndarray:
    """[seeds, tasks] success."""
    return np.array([[np.mean(o.success[task]) for task in sorted(o.success)] for o in outcomes])


def success_of(outcomes: list[Outcome], generator: np.random.Generator) -> Interval:
    """The interquartile mean over seeds and tasks; of one seed the mean, with an interval over its held-out starts."""
    if len(outcomes) > 1:
        return stratified_bootstrap(scores(outcomes), interquartile_mean, generator=generator)
    starts = np.array([wins for _, wins in sorted(outcomes[0].success.items())]).T
    return stratified_bootstrap(starts, lambda drawn: float(np.mean(drawn)), generator=generator)


def better_than(results: dict[str, list[Outcome]], name: str, generator: np.random.Generator) -> Interval | None:
    """Probability that a run of this method beats one of the baseline's; None where there are no runs to compare."""
    baseline = next(iter(results))
    if name == baseline or len(results[name]) == 1:
        return None
    pair = scores(results[name]), scores(results[baseline])
    return stratified_bootstrap_pair(*pair, probability_of_improvement, generator=generator)


def median_or_never(values: list[float | None]) -> str:
    """The median over the runs that got there, and how many did."""
    reached = [value for value in values if value is not None]
    return f"{np.median(reached):.3g} ({len(reached)}/{len(values)})" if reached else f"never (0/{len(values)})"


def report(results: dict[str, list[Outcome]], generator: np.random.Generator) -> tuple[str, dict[str, object]]:
    """The table, and the same as data."""
    baseline = next(iter(results))
    rows, data = [], {}
    for name, outcomes in results.items():
        iqm, better = success_of(outcomes, generator), better_than(results, name, generator)
        rows.append(
            [
                name,
                f"{iqm.point:.3f} [{iqm.low:.3f}, {iqm.high:.3f}]",
                f"{np.mean([o.mean_return for o in outcomes]):.1f}",
                "-" if better is None else f"{better.point:.2f} [{better.low:.2f}, {better.high:.2f}]",
                median_or_never([o.episodes_to for o in outcomes]),
                median_or_never([o.minutes_to for o in outcomes]),
                f"{np.mean([o.minutes for o in outcomes]):.1f}",
            ]
        )
        data[name] = {"iqm": iqm.point, "low": iqm.low, "high": iqm.high, "seeds": len(outcomes)}
    number = "IQM" if max(map(len, results.values())) > 1 else "mean"
    heads = ["method", f"{number} success, 95%", "mean return", f"P(better than {baseline})", "episodes to threshold"]
    return table([*heads, "minutes to threshold", "minutes"], rows), data


def keep(path: Path, section: list[str]) -> None:
    """Put the section into the file, in place of the one with the same heading."""
    before = path.read_text(encoding="utf-8") if path.exists() else "# Methods against each other\n"
    head, *others = before.split("\n## ")
    others = [other for other in others if other.splitlines()[0] != section[0].removeprefix("## ")]
    parts = [head.strip(), *(f"## {other.strip()}" for other in others), "\n".join(section)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def group_of(methods: list[Method]) -> str:
    """What a table of these methods is called: by where they learn from."""
    if all(method.per_step and not method.needs_store for method in methods):
        return "online"
    return "from both" if any(method.per_step for method in methods) else "from a store"


def train_all(world: World, folder: Path, arguments: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Every method from every seed, from a common start."""
    start, store = prepare(world, folder)
    results: dict[str, list[Outcome]] = {}
    for name in arguments.methods:
        for seed in range(arguments.seeds):
            train(name, seed, folder / name / str(seed), start, store, arguments)
            results.setdefault(name, []).append(read(folder / name / str(seed), world.threshold))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=sorted(WORLDS), default="maze")
    parser.add_argument("--methods", nargs="+", default=["grpo", "ppo", "filtered_bc", "digirl", "archer"])
    parser.add_argument("--seeds", type=int, default=5, help="how many training seeds, from 0")
    parser.add_argument("--episodes", type=int, default=1280, help="budget of an online run")
    parser.add_argument("--offline-steps", type=int, default=20, help="steps of an offline run")
    parser.add_argument("--evaluations", type=int, default=10, help="about how many evaluations on the way")
    parser.add_argument("--eval-seeds", type=int, default=8, help="held-out starts per task")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "learning", help="where the runs are kept")
    parser.add_argument("--from-runs", action="store_true", help="start nothing: the table of the runs in --folder")
    parser.add_argument("--title", default="", help="of the table; by default where the methods learn from")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    world = WORLDS[arguments.world]
    if unknown := [name for name in arguments.methods if name not in world.methods]:
        parser.error(f"no method {', '.join(unknown)} for {arguments.world}; there are {', '.join(world.methods)}")
    folder = arguments.folder.resolve() / arguments.world
    if arguments.from_runs:
        results = from_runs(folder, arguments.methods, world.threshold)
    else:
        results = train_all(world, folder, arguments)
    text, data = report(results, np.random.default_rng(0))
    group = arguments.title or group_of([world.methods[name] for name in arguments.methods])
    judged = f"Judged with `{' '.join(world.judged)}`." if world.judged else ""
    about = [f"`{command()}`", "", f"{machine('torch', 'transformers')}. {judged}".strip()]
    lines = [f"## {arguments.world}, {group}", "", *about, "", text]
    print("\n".join(lines))
    keep(RESULTS / f"learning_{arguments.world}.md", lines)
    if arguments.json:
        print(json.dumps({"benchmark": "learning", "world": arguments.world, "methods": data}), flush=True)


if __name__ == "__main__":
    main()
