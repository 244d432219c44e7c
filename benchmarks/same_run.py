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
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import command, machine, publish, table
from _same_compare import Difference, compare_runs, metric_lines

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    *("run.steps=3", "rollout.schedule=rounds", "engine=transformers", "engine.dtype=float32"),
    *("learner.precision=float32", "run.transcripts_every=0", "evaluation.seeds_per_task=1", "evaluation.max_turns=4"),
)
GROUPS = ("rollout.groups_per_step=6", "rollout.group_size=4", "rollout.max_turns=12")
ALONE = ("rollout.groups_per_step=16", "rollout.group_size=1", "rollout.max_turns=16")
STORED = "replay.stores=[{store}]"
OFFLINE_FIRST = (STORED, "algorithm.offline_steps=1")
TOKEN_Q = (STORED, "algorithm.updates=3", "algorithm.trajectories=8", "algorithm.width=16")
EASY = ("algorithm.min_groups=1", "curriculum=uniform", "learner.warmup_steps=0", "learner.learning_rate=1e-3")
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
    "grpo_kl": Case("grpo", "text/maze_grpo.yaml", (*GROUPS, "algorithm.preset=reinforce++", "algorithm.kl_coef=0.01")),
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
        (
            "rollout.groups_per_step=4",
            "rollout.group_size=4",
            CLICKS,
            "world.options.max_turns=3",
            "curriculum=uniform",
        ),
        start="clicks",
    ),
}


@dataclass
class Side:
    """One of the two commits: its code, installed apart, and the folder that its runs go to."""

    name: str
    folder: Path
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> Path:
        return self.folder / "package"

    def install(self, commit: str) -> bool:
        """Check the commit out and install it without its dependencies, which both sides share.

        A folder that holds the same commit from an earlier comparison stays, with the runs that were made of it.

        Returns:
            Whether the folder is new.
        """
        mark, exact = self.folder / "commit", "" if commit == "." else _output("git", "rev-parse", commit).decode()
        if exact and mark.exists() and mark.read_text() == exact:
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        source = self.folder / "source"
        source.mkdir(parents=True)
        if commit == ".":
            listed = _output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
            there = [name for name in listed.split(b"\0") if name and (ROOT / name.decode()).is_file()]
            packed = _output("tar", "--null", "--files-from=-", "-c", given=b"\0".join(there))
        else:
            packed = _output("git", "archive", commit)
        _output("tar", "-x", "-C", str(source), given=packed)
        pip = ("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index")
        _output(sys.executable, *pip, "--target", str(self.package), str(source))
        lies_at = self.python("-c", "import rollwright; print(rollwright.__file__)").strip()
        if not lies_at.startswith(str(self.package)):
            raise SystemExit(f"the {self.name} side would run {lies_at}, and not what was installed for it")
        mark.write_text(exact)
        return True

    def python(self, *words: str) -> str:
        """Run Python with this side's code. -> what it printed."""
        (self.folder / "work").mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": str(self.package),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder / "work", env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{self.name} side: {' '.join(words)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
        return done.stdout + done.stderr

    def recipe(self, recipe: str, config: str, name: str, words: Sequence[str]) -> str:
        """Run a recipe with this side's own settings file into `runs/<name>`, unless the same run was made before."""
        file = self.package / "rollwright" / "recipes" / config
        all_words = [str(file), *map(self._named, words), f"run.folder=runs/{name}"]
        folder, asked = self.run_folder(name), json.dumps([recipe, *all_words])
        mark = folder.with_suffix(".made")
        if mark.exists() and mark.read_text() == asked:
            return "made before"
        shutil.rmtree(folder, ignore_errors=True)
        said = self.python("-m", f"rollwright.recipes.{recipe}", *all_words)
        mark.write_text(asked)
        return said

    def _named(self, word: str) -> str:
        key, sign, value = word.partition("=")
        return f"{self.renamed.get(key, key)}{sign}{value}"

    def run_folder(self, case: str) -> Path:
        return self.folder / "work" / "runs" / case


def _output(*words: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(words, cwd=ROOT, input=given, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", nargs="?", default="HEAD", help="a commit (HEAD)")
    parser.add_argument("new", nargs="?", default=".", help="a commit, or . for the working tree (.)")
    parser.add_argument("--only", default=",".join(CASES), help=f"which runs: {', '.join(CASES)} (all)")
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="a setting, metric or column of another name"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
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
    with ThreadPoolExecutor(chosen.jobs) as pool:
        if old.install(chosen.old):
            shutil.rmtree(new.folder, ignore_errors=True)  # its runs began with the policies of another old side
        new.install(chosen.new)
        starts = prepare(old, {CASES[name].start for name in names}, pool)
        jobs = {(name, side.name): pool.submit(play, side, name, starts) for name in names for side in (old, new)}
        failed = {key: str(job.exception()) for key, job in jobs.items() if job.exception() is not None}
    found = {
        name: compare_runs(old.run_folder(name), new.run_folder(name), names=renamed)
        for name in names
        if not failed.keys() & {(name, "old"), (name, "new")}
    }
    return report(chosen, found, failed)


def prepare(side: Side, starts: set[str], pool: ThreadPoolExecutor) -> dict[str, str]:
    """What the runs begin with, made once by the old side. -> the policies by name, and the store."""
    runs = side.folder / "work" / "runs"
    jobs = []
    if "clicks" in starts:
        jobs.append(pool.submit(teach_clicks, side))
    if "maze" in starts:
        small = ("model.tiny_hidden=32", "data.per_task=8", "sft.epochs=2")
        side.recipe("sft", "text/maze_sft.yaml", "start_maze", small)
        words = ("collect.per_task=4", f"model.path={runs / 'start_maze/policy'}")
        side.recipe("collect", "text/maze_collect.yaml", "data", words)
    for job in jobs:
        job.result()
    return {name: str(runs / f"start_{name}/policy") for name in starts} | {"store": str(runs / "data/trajectories")}


def teach_clicks(side: Side) -> None:
    """A tiny policy that has seen two MiniWoB++ tasks solved: one that only babbles earns the same everywhere."""
    said = ["Reply: click N or fill N text", "Task: Click button ONE. Click the button.", "1 button ONE\n2 button TWO"]
    said += ["Click Me!", "Did: click 1; click 2", "click 1 click 2 click 3 click 4", "Error: there is no element"]
    module = module_that_defines("make_tiny_model", side.package)
    made = f"make_tiny_model('empty', texts={said!r}, hidden=64, layers=2, context_length=1024)"
    side.python("-c", f"from {module} import make_tiny_model; {made}")
    words = [f"model.path={side.folder / 'work' / 'empty'}", CLICKS, "data.per_task=24"]
    words += ["sft.learning_rate=3e-3", "sft.epochs=3", "sft.precision=float32"]
    side.recipe("sft", "web/miniwob_sft.yaml", "start_clicks", words)


def module_that_defines(function: str, package: Path) -> str:
    """The module of a public function, wherever that commit keeps it."""
    for path in sorted((package / "rollwright").rglob("*.py")):
        if re.search(rf"^def {function}\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            return ".".join(path.relative_to(package).with_suffix("").parts)
    raise SystemExit(f"no module of {package} defines {function}")


def play(side: Side, name: str, starts: Mapping[str, str]) -> None:
    """One run of one side; an error unless each of its steps taught something."""
    case = CASES[name]
    words = [*SMALL, f"model.path={starts[case.start]}"]
    words += [word.format(store=starts["store"]) for word in case.words]
    said = side.recipe(case.recipe, case.config, name, words)
    rows = [row for row in metric_lines(side.run_folder(name)) if "optim/taught_count" in row]
    if len(rows) != 3 or not all(row["optim/taught_count"] for row in rows):
        raise SystemExit(f"{side.name} side, {name}: a step taught nothing, so the run says little:\n{said[-2000:]}")


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
