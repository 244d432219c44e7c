"""Do two commits compute the same? Runs every method on both and counts what differs in any bit.

    python benchmarks/same_run.py aff348e HEAD
    python benchmarks/same_run.py HEAD . --only grpo,ppo --json

Each commit (`.` is the working tree) is installed into a folder of its own. The old one teaches a tiny policy to walk
the maze and one to click, and collects a store; both sides then run every method from these for three steps, on one
thread, with the transformers engine and `rollout.schedule=rounds`. Compared are all tensors of the final policy and of
the last checkpoint (critics and optimisers too), every stored episode, and every line of metrics but what the clock
says. What only the new side has is listed, not counted. A run in which a step taught nothing is an error: two such runs
are the same whatever the code does. The exit status is 1 unless nothing differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import command, machine, publish, table
from _same_compare import Difference, compare_runs, metric_lines
from _same_sides import Run, Side, module_that_defines

STEPS = 3
SMALL = (
    *(f"run.steps={STEPS}", "rollout.schedule=rounds", "engine=transformers", "engine.dtype=float32"),
    *("learner.precision=float32", "run.transcripts_every=0", "evaluation.seeds_per_task=1", "evaluation.max_turns=4"),
)
GROUPS = ("rollout.groups_per_step=6", "rollout.group_size=4", "rollout.max_turns=12")
ALONE = ("rollout.groups_per_step=16", "rollout.group_size=1", "rollout.max_turns=16")
STORED = "replay.stores=[{store}]"
OFFLINE_FIRST = (STORED, "algorithm.offline_steps=1")
TOKEN_Q = (STORED, "algorithm.updates=3", "algorithm.trajectories=8", "algorithm.width=16")
EASY = ("algorithm.min_groups=1", "curriculum=uniform", "learner.warmup_steps=0", "learner.learning_rate=1e-3")
KL = ("algorithm.kl_coef=0.04", "algorithm.kl_in_reward=0.01")
CLICKS = "world.options.tasks=[click-test-2, click-button]"


def fit(critic: str, updates: int = 3) -> tuple[str, ...]:
    """A small critic of turns."""
    return tuple(f"{critic}.{word}" for word in (f"updates={updates}", "batch_size=16", "width=16"))


def actor(updates: int = 2) -> tuple[str, ...]:
    """Few small updates of a policy that learns from turns."""
    return (f"algorithm.actor_updates={updates}", "algorithm.batch_size=16")


@dataclass(frozen=True)
class Case:
    """One run that both sides make.

    Args:
        config: the YAML file below `recipes/`.
        words: what makes it small; `{store}` is the store that the old side has collected.
        start: whose policy it begins with, the walker's or the clicker's.
    """

    recipe: str
    config: str
    words: tuple[str, ...]
    start: str = "maze"


ARCHER = ("algorithm.warmup_steps=0", *ALONE, *OFFLINE_FIRST, *actor(), *fit("critic"))
WEBRL = (*ALONE, STORED, "algorithm.batch_size=32", *fit("step_critic", 1), "replay.low=0", "replay.high=1")
CASES: dict[str, Case] = {
    "grpo": Case("grpo", "text/maze_grpo.yaml", (*GROUPS, "learner.minibatches=2")),
    "grpo_kl": Case("grpo", "text/maze_grpo.yaml", (*GROUPS, "algorithm.preset=grpo", *KL)),
    "gigpo": Case("grpo", "text/maze_grpo.yaml", (*GROUPS, "algorithm.preset=gigpo")),
    "ppo": Case("ppo", "text/maze_ppo.yaml", (*ALONE, "algorithm.bootstrap_truncated=true", "learner.minibatches=2")),
    "digirl": Case(
        "digirl",
        "text/maze_digirl.yaml",
        (*ALONE, *OFFLINE_FIRST, *actor(), *fit("instruction_critic"), *fit("step_critic"), "algorithm.top_frac=1"),
    ),
    "archer": Case("archer", "text/maze_archer.yaml", ARCHER),
    "archer_token": Case("archer", "text/maze_archer.yaml", (*ARCHER, "algorithm.baseline=token")),
    "archer_iql": Case("archer", "text/maze_archer.yaml", (*ARCHER, "algorithm.critic=iql", "algorithm.actor=awr")),
    "webrl": Case("webrl", "text/maze_webrl.yaml", WEBRL),
    "webrl_released": Case("webrl", "text/maze_webrl.yaml", (*WEBRL, "algorithm.form=released")),
    "ilql": Case("ilql", "text/maze_ilql.yaml", TOKEN_Q),
    "mc": Case("mc", "text/maze_mc.yaml", TOKEN_Q),
    "hnpg": Case(
        "hnpg",
        "text/maze_hnpg.yaml",
        (*ALONE, STORED, *fit("critic"), "algorithm.samples=2", "algorithm.logged_states=8"),
    ),
    "filtered": Case(
        "filtered_bc",
        "text/maze_filtered.yaml",
        (*ALONE, *OFFLINE_FIRST, "algorithm.updates=3", "algorithm.batch_size=16", "algorithm.top_frac=0.3"),
    ),
    "miniwob": Case(
        "grpo",
        "web/miniwob_grpo.yaml",
        ("rollout.groups_per_step=4", "rollout.group_size=6", CLICKS, "world.options.max_turns=3", *EASY),
        start="clicks",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", nargs="?", default="HEAD", help="a commit (HEAD)")
    parser.add_argument("new", nargs="?", default=".", help="a commit, or . for the working tree (.)")
    parser.add_argument("--only", default=",".join(CASES), help=f"which runs: {', '.join(CASES)} (all)")
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="a setting, metric or column of another name"
    )
    parser.add_argument("--folder", type=Path, help="keep the runs there, for comparisons with a third commit")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    chosen = parser.parse_args()
    if unknown := set(chosen.only.split(",")) - set(CASES):
        parser.error(f"no run is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    with tempfile.TemporaryDirectory(prefix="rollwright-same-") as folder:
        raise SystemExit(measure(chosen, chosen.folder or Path(folder)))


def measure(chosen: argparse.Namespace, folder: Path) -> int:
    """Both sides, all runs, the report. -> the exit status."""
    renamed = dict(word.split("=", 1) for word in chosen.rename)
    old, new = Side("old", folder.resolve() / "old"), Side("new", folder.resolve() / "new", renamed)
    names = chosen.only.split(",")
    if old.install(chosen.old):
        shutil.rmtree(new.folder, ignore_errors=True)  # its runs began with the policies of another old side
    new.install(chosen.new)
    starts = prepare(old, {CASES[name].start for name in names})
    with ThreadPoolExecutor(2) as pool:
        ends = pool.map(lambda side: play(side, names, starts), (old, new))
        failed = {
            (name, side.name): text for side, end in zip((old, new), ends, strict=True) for name, text in end.items()
        }
    found = {
        name: compare_runs(old.run_folder(name), new.run_folder(name), names=renamed)
        for name in names
        if not failed.keys() & {(name, "old"), (name, "new")}
    }
    return report(chosen, found, failed)


def prepare(side: Side, starts: set[str]) -> dict[str, str]:
    """What the runs begin with, made once by the old side. -> the policies by name, and the store."""
    runs = side.folder / "work" / "runs"
    wanted: list[Run] = []
    if "maze" in starts:
        small = ("model.tiny_hidden=32", "data.per_task=8", "sft.epochs=2")
        wanted.append(Run("start_maze", "sft", "text/maze_sft.yaml", small))
        walker = f"model.path={runs / 'start_maze' / 'policy'}"
        wanted.append(Run("data", "collect", "text/maze_collect.yaml", ("collect.per_task=4", walker)))
    if "clicks" in starts:
        empty = side.folder / "work" / "empty"
        if not empty.exists():
            babbling_clicker(side)
        shown = (f"model.path={empty}", CLICKS, "data.per_task=24")
        fast = ("sft.learning_rate=3e-3", "sft.epochs=3", "sft.precision=float32")
        wanted.append(Run("start_clicks", "sft", "web/miniwob_sft.yaml", (*shown, *fast)))
    if failed := side.make(wanted):
        raise SystemExit("\n".join(f"{name} failed, which the runs begin with:\n{failed[name]}" for name in failed))
    return {name: str(runs / f"start_{name}/policy") for name in starts} | {"store": str(runs / "data/trajectories")}


def babbling_clicker(side: Side) -> None:
    """A random policy that has words for two MiniWoB++ tasks; it earns the same everywhere until it is taught."""
    said = ["Reply: click N or fill N text", "Task: Click button ONE. Click the button.", "1 button ONE\n2 button TWO"]
    said += ["Click Me!", "Did: click 1; click 2", "click 1 click 2 click 3 click 4", "Error: there is no element"]
    module = module_that_defines("make_tiny_model", side.package)
    made = f"make_tiny_model('empty', texts={said!r}, hidden=64, layers=2, context_length=1024)"
    side.python("-c", f"from {module} import make_tiny_model; {made}")


def play(side: Side, names: Sequence[str], starts: Mapping[str, str]) -> dict[str, str]:
    """The runs of one side. -> for each that failed, or in which a step taught nothing, what it printed."""
    runs = []
    for name in names:
        case = CASES[name]
        words = [*SMALL, f"model.path={starts[case.start]}", *(w.format(store=starts["store"]) for w in case.words)]
        runs.append(Run(name, case.recipe, case.config, tuple(words)))
    failed = side.make(runs)
    for name in set(names) - failed.keys():
        rows = [row for row in metric_lines(side.run_folder(name)) if "optim/taught_count" in row]
        if len(rows) != STEPS or not all(row["optim/taught_count"] for row in rows):
            failed[name] = f"a step taught nothing, so the run says little:\n{side.said(name)}"
    return failed


def report(
    chosen: argparse.Namespace, found: Mapping[str, Mapping[str, Difference]], failed: Mapping[tuple[str, str], str]
) -> int:
    """Print what differs. -> 0 where nothing does and no run failed, else 1."""
    kinds = ("tensors", "episodes", "metrics")
    rows = [[name, *(f"{d[kind].count} of {d[kind].of}" for kind in kinds), _firsts(d)] for name, d in found.items()]
    totals = {kind: sum(d[kind].count for d in found.values()) for kind in kinds}
    lines = [
        f"# {chosen.old} and {chosen.new}: what differs\n",
        f"`{command()}`\n",
        table(["run", "differing tensors", "episodes", "lines of metrics", "first difference"], rows),
        f"\nTotal: {', '.join(f'{totals[kind]} {kind}' for kind in kinds)}; {len(failed)} runs failed.",
    ]
    lines += [f"\nAdded to {kind}: {', '.join(sorted(new))}." for kind in kinds if (new := _added(found, kind))]
    if moved := sum(d["tensors"].moved for d in found.values()):
        lines.append(f"\n{moved} tensors lie at another place in their checkpoint and are the same.")
    lines += [f"\n{name}, {side} side failed: {text}" for (name, side), text in failed.items()]
    lines.append(f"\nMachine: {machine('torch', 'transformers')}")
    summary: dict[str, Any] = {
        "differences": totals,
        "runs": {name: {kind: d[kind].count for kind in kinds} for name, d in found.items()},
        "compared": {name: {kind: d[kind].of for kind in kinds} for name, d in found.items()},
        "added": {kind: sorted(_added(found, kind)) for kind in kinds},
        "failed": [f"{name}/{side}" for name, side in failed],
    }
    publish("same_run", "\n".join(lines), json.loads(json.dumps(summary)), as_json=chosen.json, keep=False)
    return int(any(totals.values()) or bool(failed))


def _added(found: Mapping[str, Mapping[str, Difference]], kind: str) -> set[str]:
    return {name for differences in found.values() for name in differences[kind].added}


def _firsts(differences: Mapping[str, Difference]) -> str:
    """Metrics first: they say in which step the runs part."""
    shown = (differences[kind].first for kind in ("metrics", "episodes", "tensors"))
    return next((text for text in shown if text), "")


if __name__ == "__main__":
    main()
