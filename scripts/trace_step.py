"""Prints the files of ours that one training step enters, in order, by stage, and how often the walk comes back.

    python scripts/trace_step.py recipes/grpo.py recipes/text/maze_grpo.yaml
    python scripts/trace_step.py recipes/archer.py recipes/text/maze_archer.yaml algorithm.warmup_steps=0 --json

The recipe runs two small steps (transformers engine, `rollout.schedule=rounds`) and the second is traced: the first
also sets things up. Words after the configuration win over these. Where no `model.path` is given, a tiny policy first
imitates the world's teachers by `<world>_sft.yaml` beside the configuration; stores that are not there are collected
by `<world>_collect.yaml`.

What is counted, the same for every recipe and every commit:

- A *function* is a `def` that begins to run during the step, in any thread. Lambdas and comprehensions are part of it.
- A *file* is one of the core or of the recipe in which two functions or more run. Files of which a single function runs
  are *passed*: they are listed and counted apart, as are worlds and rewards. `entered` is the sum of files and passed.
- A *stage* begins with a call that the loop makes; the name of the called function says which (`STAGE_OF`). The loop is
  what leads to the call of `finish`. What other threads do belongs to the stage in which the main thread waits.
- The *walk* is the main thread's: its functions in the order in which each is first entered, as a reader reads each of
  them once. A *return* is a move to a file that the walk had been in before.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import yaml

STAGES = ("begin", "collect", "score", "credit", "update", "sync", "finish")
STAGE_OF = {
    **dict.fromkeys(("collect", "draw", "play"), "collect"),
    **dict.fromkeys(("score", "judge"), "score"),
    **dict.fromkeys(("credit", "advantages", "targets", "flatten"), "credit"),
    **dict.fromkeys(("update", "fit", "improve", "imitate", "learn", "train"), "update"),
    "sync": "sync",
    **dict.fromkeys(("finish", "remember"), "finish"),
}
"""First word of the name of a function that the loop calls, and the stage that begins there."""
TO_THE_ENGINE = ("score", "credit", "update", "sync")
APART = ("envs/", "rewards/")
SMALL = (
    *("run.steps=2", "rollout.schedule=rounds", "engine=transformers", "engine.dtype=float32"),
    *("rollout.groups_per_step=6", "rollout.group_size=4", "rollout.max_turns=8"),
    *("evaluation.seeds_per_task=1", "evaluation.max_turns=2"),
)


@dataclass(eq=False, slots=True)
class Call:
    """One entry into a function of ours; in the main thread with the call of ours that it was made from."""

    file: str
    name: str
    line: int
    caller: Call | None = None
    stage: str = ""

    @property
    def function(self) -> tuple[str, str, int]:
        return self.file, self.name, self.line


@dataclass
class Tracer:
    """A profile function for all threads. It records between two resumptions of the run's `steps`.

    Args:
        place: the short name of a source file of ours, None for any other.
        step: which step is recorded, counted from 1.
    """

    place: Callable[[str], str | None]
    step: int = 2
    calls: list[Call] = field(default_factory=list)
    """Of the main thread, in order."""
    elsewhere: list[tuple[int, Call]] = field(default_factory=list)
    """Of other threads, each with the number of calls that the main thread had made before."""
    begun: int = 0

    def __post_init__(self) -> None:
        self._main = threading.get_ident()
        self._open: list[tuple[int, Call]] = []  # the frames of ours in the main thread that have not returned

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        resumed = frame.f_code.co_name == "steps" and event == "call"
        if event not in ("call", "return") or not (resumed or self.begun == self.step):
            return
        file = self.place(frame.f_code.co_filename)
        if file is None:
            return
        if threading.get_ident() != self._main:
            if event == "call" and self.begun == self.step:
                self.elsewhere.append((len(self.calls), Call(file, *_named(frame))))
        elif event == "return":
            self._leave(frame)
        else:
            self.begun += resumed
            if self.begun == self.step:
                self._enter(file, frame, first=resumed)

    def _enter(self, file: str, frame: FrameType, *, first: bool) -> None:
        if first:
            self._open = self._below(frame)
            self.calls += [call for _, call in self._open[-1:]]  # the loop, which runs all the time in the recipe
        call = Call(file, *_named(frame), self._open[-1][1] if self._open else None)
        self.calls.append(call)
        self._open.append((id(frame), call))

    def _leave(self, frame: FrameType) -> None:
        """Take the frame off, and what lies behind it; one that was there before the step is not among them."""
        for at in range(len(self._open) - 1, -1, -1):
            if self._open[at][0] == id(frame):
                del self._open[at:]
                return

    def _below(self, frame: FrameType) -> list[tuple[int, Call]]:
        """The frames of ours that this one was called from, the outermost first."""
        frames = []
        while frame.f_back is not None:
            frame = frame.f_back
            frames.append(frame)
        found: list[tuple[int, Call]] = []
        for one in reversed(frames):
            file = self.place(one.f_code.co_filename)
            if file is not None:
                found.append((id(one), Call(file, *_named(one), found[-1][1] if found else None)))
        return found


def _named(frame: FrameType) -> tuple[str, int]:
    return frame.f_code.co_qualname, frame.f_code.co_firstlineno


def put_stages(calls: Sequence[Call]) -> None:
    """Set the stage of every call of the main thread.

    Raises:
        SystemExit: `finish` was not called, so that there is no loop to be found.
    """
    ends: list[list[Call]] = [callers_of(call) for call in calls if call.name.split(".")[-1] == "finish"]
    if not ends:
        raise SystemExit("the traced step never called `finish`: its loop cannot be told from what the loop calls")
    loop = set(sorted(ends, key=len)[0])  # others of that name lie deeper
    stage = STAGES[0]
    for call in calls:
        if call.caller is None or call.caller in loop:
            stage = _stage_after(stage, call.name.split(".")[-1])
        call.stage = stage


def callers_of(call: Call) -> list[Call]:
    """All calls of ours that the call lies in, the nearest first."""
    found: list[Call] = []
    while call.caller is not None:
        call = call.caller
        found.append(call)
    return found


def _stage_after(stage: str, name: str) -> str:
    """Where a call of the loop belongs; one without a word of its own goes on with what is there."""
    found = STAGE_OF.get(name.strip("_").split("_")[0])
    if found is not None:
        return found
    # What stands between the episodes and the first update makes the numbers of the loss.
    return "credit" if stage in ("score", "finish") else stage


def report(tracer: Tracer) -> dict[str, Any]:
    """The files by stage and all that is counted: see the top of this file."""
    put_stages(tracer.calls)
    named = [call for call in in_order(tracer) if not call.name.endswith(">")]
    own = [call for call in named if not call.file.startswith(APART)]
    middle = [call for call in own if call.stage in TO_THE_ENGINE]
    elsewhere = {call for _, call in tracer.elsewhere}
    steps = walk(call for call in own if call not in elsewhere)
    functions = {file: len(found) for file, found in functions_by_file(own).items()}
    return {
        "stages": {stage: files_of([c for c in named if c.stage == stage]) for stage in STAGES},
        "functions": functions,
        "files": sum(count > 1 for count in functions.values()),
        "passed": sum(count == 1 for count in functions.values()),
        "entered": len(functions),
        "files_score_to_sync": sum(len(found) > 1 for found in functions_by_file(middle).values()),
        "entered_score_to_sync": len(files_of(middle)),
        "worlds_and_rewards": len(files_of(named)) - len(functions),
        "walk": steps,
        "returns": len(steps) - len(set(steps)),
    }


def in_order(tracer: Tracer) -> list[Call]:
    """The calls of all threads; those of other threads get the stage that the main thread was in.

    Of a function of another thread only the first call counts: some come by the clock, whatever the main thread does.
    """
    calls: list[Call] = []
    known: set[tuple[str, str, int]] = set()
    made = 0
    for before, call in tracer.elsewhere:
        if call.function in known:
            continue
        known.add(call.function)
        calls += tracer.calls[made:before]
        made = max(made, before)
        call.stage = tracer.calls[max(0, before - 1)].stage
        calls.append(call)
    return calls + tracer.calls[made:]


def functions_by_file(calls: Iterable[Call]) -> dict[str, set[tuple[str, str, int]]]:
    """The functions entered in each file; files in the order of their first call."""
    found: dict[str, set[tuple[str, str, int]]] = {}
    for call in calls:
        found.setdefault(call.file, set()).add(call.function)
    return found


def files_of(calls: Iterable[Call]) -> list[str]:
    """Each file once, in order."""
    return list(dict.fromkeys(call.file for call in calls))


def walk(calls: Iterable[Call]) -> list[str]:
    """The files as a reader meets them who reads every function once; never the same one twice in a row."""
    read: set[tuple[str, str, int]] = set()
    files: list[str] = []
    for call in calls:
        if call.function not in read:
            read.add(call.function)
            if files[-1:] != [call.file]:
                files.append(call.file)
    return files


def text_of(found: Mapping[str, Any]) -> str:
    """The report as a table and a line of totals."""
    before: set[str] = set()
    lines = ["| stage | files it enters, in order (*again*; `passed`) |", "| --- | --- |"]
    for stage, files in found["stages"].items():
        cells = []
        for file in files:
            shown = f"`{file}`" if found["functions"].get(file) == 1 else file
            cells.append(f"*{shown}*" if file in before else shown)
        before |= set(files)
        lines.append(f"| {stage} | {', '.join(cells)} |")
    lines.append(
        f"\nfiles {found['files']} (and {found['passed']} passed: {found['entered']} entered), "
        f"score to sync {found['files_score_to_sync']} ({found['entered_score_to_sync']} entered), "
        f"worlds and rewards {found['worlds_and_rewards']}, returns {found['returns']}"
    )
    return "\n".join(lines)


def places() -> Callable[[str], str | None]:
    """From a path to the short name of a file of ours: the core, recipes, worlds, rewards, wherever they lie."""
    roots: dict[str, str] = {}
    for name in ("rollwright.recipes", "rollwright.envs", "rollwright.rewards", "rollwright"):
        spec = importlib.util.find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or ():
            roots.setdefault(str(Path(folder).resolve()) + os.sep, name.partition(".")[2])
    known: dict[str, str | None] = {}

    def place(path: str) -> str | None:
        if path not in known:
            full = str(Path(path).resolve()) if path.startswith(os.sep) else ""
            root = next((root for root in roots if full.startswith(root)), None)
            known[path] = None if root is None else str(Path(roots[root]) / full[len(root) :])
        return known[path]

    return place


def recipe_module(recipe: str) -> ModuleType:
    """The recipe by its name or path: the installed one where it is one of ours, else the file itself."""
    path = Path(recipe)
    if importlib.util.find_spec(f"rollwright.recipes.{path.stem}") is not None:
        return importlib.import_module(f"rollwright.recipes.{path.stem}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{recipe} is neither a recipe of ours nor a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing_inputs(config: Path, words: Sequence[str], folder: Path) -> list[str]:
    """A tiny policy and a store for a recipe whose own are not there. -> the words that name them."""
    keys = {word.partition("=")[0] for word in words}
    found: list[str] = []
    beside = {kind: config.parent / f"{config.stem.split('_')[0]}_{kind}.yaml" for kind in ("sft", "collect")}
    if "model.path" not in keys and beside["sft"].exists():
        small = ("model.tiny_hidden=32", "data.per_task=8", "sft.epochs=2", f"run.folder={folder / 'start'}")
        _prepare("sft", beside["sft"], *small)
        found.append(f"model.path={folder / 'start' / 'policy'}")
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    stores = (settings.get("replay") or {}).get("stores") or []
    if "replay.stores" not in keys and not all(Path(store).exists() for store in stores):
        if not beside["collect"].exists():
            raise SystemExit(f"{config} learns from {stores}, which is not there: name another by replay.stores=[...]")
        model = found or [word for word in words if word.startswith("model.path=")]
        _prepare("collect", beside["collect"], *model, "collect.per_task=4", f"run.folder={folder / 'data'}")
        found.append(f"replay.stores=[{folder / 'data' / 'trajectories'}]")
    return found


def _prepare(recipe: str, *words: str | Path) -> None:
    """Run another recipe first, in a process of its own: it must not be traced."""
    command = [sys.executable, "-m", f"rollwright.recipes.{recipe}", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"recipes/{recipe}.py failed:\n{done.stderr[-3000:]}")


def traced(recipe: str, words: Sequence[str], *, step: int) -> Tracer:
    """Run the recipe with every thread observed. What it prints goes to stderr, so that stdout holds the report."""
    tracer = Tracer(places(), step=step)
    run = recipe_module(recipe).main
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    printed, sys.stdout = sys.stdout, sys.stderr
    try:
        run(list(words))
    finally:
        sys.stdout = printed
        sys.setprofile(None)
        threading.setprofile(None)
    return tracer


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="recipes/grpo.py, or its name")
    parser.add_argument("config", help="the YAML file of the recipe, or its first word")
    parser.add_argument("words", nargs="*", help="key=value ..., which win over the small settings")
    parser.add_argument("--step", type=int, default=2, help="the step that is traced, from 1 (2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    chosen = parser.parse_intermixed_args(argv)
    with tempfile.TemporaryDirectory(prefix="rollwright-trace-") as name:
        words = [chosen.config, *SMALL, f"run.folder={Path(name) / 'run'}"]
        if "=" not in chosen.config:
            words += missing_inputs(Path(chosen.config), chosen.words, Path(name))
        found = report(traced(chosen.recipe, [*words, *chosen.words], step=chosen.step))
    print(json.dumps(found) if chosen.json else text_of(found))


if __name__ == "__main__":
    main()
