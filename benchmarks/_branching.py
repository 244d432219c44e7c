"""What the parts of `learning_branching.py` share: a claim, a recipe in a forked process, the figures of its run."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from rollwright.evaluation import load_evaluation
from rollwright.run_io import read_metrics

ROOT = Path(__file__).resolve().parents[1]


class Claim(NamedTuple):
    """`metric` of arm `higher` is above that of arm `lower`, by more than `-margin`.

    A margin above 0 says "not lower by as much as this". Where fewer is better (episodes to a threshold), the arm with
    more of it is `higher`.
    """

    higher: str
    lower: str
    metric: str
    sentence: str
    margin: float = 0.0


def apart(work: Callable[[], None], log: Path) -> float:
    """Run `work` in a forked process, its output in `log`; the seconds that it took.

    Torch and transformers are imported here once, not once for each run, and a run leaves nothing behind in this
    process.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(work, log)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{log} ends with:\n{log.read_text(errors='replace')[-1500:]}")
    return time.monotonic() - begun


def _child(work: Callable[[], None], log: Path) -> None:
    """Never returns."""
    status = 1
    try:
        with open(log, "a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        status = 0
    except SystemExit as end:
        status = 0 if not end.code else 1
        print(end)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(status)


def play_recipe(name: str, settings: str, *words: str, folder: Path, key: str = "run.folder") -> float:
    """Run `recipes/<name>.py` with `recipes/<settings>` and these words, as a command line would; the seconds it took.

    A run that is complete is not repeated. Two runs never share a folder. `key` is the setting that names it.

    Raises:
        RuntimeError: the run failed; with the end of its log.
    """
    done = folder / "finished.txt"
    if done.exists():
        return float(done.read_text())
    line = [str(ROOT / "recipes" / settings), f"{key}={folder}", *words]
    # The module is imported before the fork: all later runs of it then start at once.
    recipe = importlib.import_module(f"rollwright.recipes.{name}")
    seconds = apart(lambda: recipe.main(line), folder.with_suffix(".log"))
    done.write_text(f"{seconds:.3f}\n")
    return seconds


def held_out_success(folder: Path, name: str = "final") -> float:
    """Share of solved episodes in `eval/<name>.json`, of those with a verdict."""
    rows = load_evaluation(folder / "eval" / f"{name}.json").scored
    return fmean(float(bool(row.success)) for row in rows)


def training_total(folder: Path, metric: str) -> float:
    """Sum of a metric over the steps of a run, such as `rollout/episodes_count`."""
    return sum(row.get(metric, 0.0) for row in read_metrics(folder / "metrics.jsonl"))
