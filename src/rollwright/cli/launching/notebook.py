"""Rollwright from Python: `rollwright.train`, `rollwright.evaluate`, `rollwright.compare`, made for notebooks.

The last two are `judge_policy` and `compare_two` here: a public name belongs to one function of the package. A run is
a child process, as on the command line: its threads and its memory are its own, and the kernel survives it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright.cli.argument_types import store_folder
from rollwright.contracts import ConfigError, DataError, RollwrightError

if TYPE_CHECKING:
    from rollwright.contracts import Trajectory
    from rollwright.evaluation import Comparison, Evaluation

_WITHOUT_SECTION = ("evaluate", "demo")
"""Recipes whose folder is the key `folder`; that of all others is `run.folder`."""
# The exit codes of a recipe: 2 where the user has to change something, 130 after Ctrl-C.
_FAILED = {2: ConfigError, 130: KeyboardInterrupt}


@dataclass(frozen=True)
class RunHandle:
    """A run folder: what a run has left behind, or leaves behind while it goes on."""

    folder: Path

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, one per step; a line that is still being written is left out."""
        file = self.folder / "metrics.jsonl"
        found = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                found.append(json.loads(line))
            # A run that was killed leaves half a line behind as well.
            except ValueError:
                continue
        return found

    def evaluation(self, name: str = "final") -> Evaluation:
        """The evaluation of that name.

        Raises:
            DataError: there is none; the message lists those that are there.
        """
        from rollwright.evaluation import load_evaluation

        file = self.folder / "eval" / f"{name}.json"
        if not file.is_file():
            there = ", ".join(sorted(other.stem for other in file.parent.glob("*.json"))) or "none"
            raise DataError(f"{self.folder} has no evaluation {name!r}; it has: {there}")
        return load_evaluation(file)

    def episodes(self, *, task: str | None = None, tag: str | None = None) -> Iterator[Trajectory]:
        """The stored episodes, one block in memory at a time.

        Args:
            task: only those of this task.
            tag: only those stored under this tag, such as `step_3` or `eval_final`.

        Raises:
            DataError: nothing is stored there.
        """
        from rollwright.store import TrajectoryStore

        yield from TrajectoryStore(store_folder(self.folder), mode="read").iter_trajectories(task=task, tag=tag)

    def report(self) -> Path:
        """Write `report.html`, a page without network; -> its path."""
        from rollwright.view import write_report

        return write_report(self.folder)


def train(
    recipe: str,
    *words: str | Path,
    folder: str | Path,
    settings: Mapping[str, Any] | None = None,
    config_file: str | None = None,
    processes: int | None = None,
    quiet: bool = False,
) -> RunHandle:
    """Run a recipe in a process of its own, as `rollwright train` does, and wait for its end.

    Args:
        recipe: its name, such as "grpo", or the path of one of your own.
        words: YAML files by path or shipped name ("text/maze_grpo"), and `key=value`; later words win.
        folder: the run folder. A run that is there already goes on from its last checkpoint.
        settings: keys by name, such as {"run.steps": 3}; they win over the words.
        config_file: accelerate configuration, by name or path; None = the one for this machine.
        processes: processes of the learner.
        quiet: show nothing of the run's console.

    Raises:
        ConfigError: the user has to change something; the message is what the recipe says.
        RollwrightError: something broke under way. KeyboardInterrupt: the run was interrupted, and has saved.
    """
    options = ["--config-file", config_file] if config_file else []
    options += ["--processes", str(processes)] if processes else []
    key = "folder" if Path(recipe).stem in _WITHOUT_SECTION else "run.folder"
    given = [f"{name}={_as_word(value)}" for name, value in (settings or {}).items()]
    # The folder comes last and so wins over the settings: the handle below is of that folder.
    _run_child([*options, recipe, *map(str, words), *given, f"{key}={Path(folder)}"], show=not quiet)
    return RunHandle(Path(folder))


def judge_policy(
    *words: str | Path,
    folder: str | Path,
    model: str | Path | None = None,
    name: str = "evaluation",
    settings: Mapping[str, Any] | None = None,
    config_file: str | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Judge a policy on held-out tasks, as `rollwright evaluate` does; see `train` for what they share.

    Args:
        model: the policy's folder or name; None = what the settings say.
        name: of the result, `eval/<name>.json` in the folder.

    Raises:
        ConfigError, RollwrightError, KeyboardInterrupt: as `train`.
    """
    # The name comes last: the evaluation of just this name is read below.
    chosen = {**({} if model is None else {"model.path": str(model)}), **(settings or {}), "name": name}
    run = train("evaluate", *words, folder=folder, settings=chosen, config_file=config_file, quiet=quiet)
    return run.evaluation(name)


def compare_two(
    a: RunHandle | Evaluation | str | Path, b: RunHandle | Evaluation | str | Path, *, confidence: float = 0.95
) -> Comparison:
    """B against A, the baseline: the paired difference with its interval and a verdict.

    Args:
        a, b: an evaluation, its file, or a run, whose evaluation `final` is taken.

    Raises:
        DataError: an evaluation is missing, or the two have no episodes in common.
    """
    from rollwright.evaluation import compare

    (name_a, first), (name_b, second) = _named_evaluation(a), _named_evaluation(b)
    # Two runs have an evaluation `final` each, and a verdict has to tell them apart.
    if name_a == name_b:
        name_a, name_b = "A", "B"
    return compare(first, second, name_a=name_a, name_b=name_b, confidence=confidence)


def _named_evaluation(which: RunHandle | Evaluation | str | Path) -> tuple[str, Evaluation]:
    from rollwright.evaluation import load_evaluation

    # A missing path too: the reader of evaluations says what is wrong with it.
    if isinstance(which, str | Path) and not Path(which).is_dir():
        return Path(which).stem, load_evaluation(Path(which))
    if isinstance(which, str | Path):
        which = RunHandle(Path(which))
    if isinstance(which, RunHandle):
        return which.folder.name, which.evaluation()
    return which.name, which


def _as_word(value: Any) -> str:
    """A value as it stands on a command line: text bare, everything else as JSON, which YAML reads."""
    return value if isinstance(value, str) else str(value) if isinstance(value, Path) else json.dumps(value)


def _run_child(words: Sequence[str], *, show: bool) -> None:
    """`rollwright train` with these words; its console appears line by line, in a notebook's cell too.

    Raises:
        ConfigError, RollwrightError, KeyboardInterrupt: by the child's exit code, with its last paragraph.
    """
    # This interpreter: the `rollwright` on the PATH may belong to another environment.
    command = [sys.executable, "-m", "rollwright.cli", "train", *words]
    # A session of its own: an interrupt of the kernel is passed on below, once, and not by the terminal as well.
    # One stream, so that errors stand where they came up; a world may print any bytes, hence `errors`.
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    )
    said = _Paragraph()
    assert child.stdout is not None
    with child:
        try:
            _read(child.stdout, said.take, show)
            code = child.wait()
        except KeyboardInterrupt:
            # To the whole group, as a terminal sends it: the launcher leaves Ctrl-C to the recipe below it.
            os.killpg(child.pid, signal.SIGINT)
            _read(child.stdout, said.take, show)
            code = child.wait()
    if code:
        raise _FAILED.get(code, RollwrightError)(said.text or f"the run ended with exit code {code}")


def _read(lines: Iterable[str], take: Callable[[str], None], show: bool) -> None:
    for line in lines:
        take(line)
        if show:
            print(line, end="", flush=True)


class _Paragraph:
    """The last paragraph of a console that begins with the program's name: what a run says at an error."""

    def __init__(self) -> None:
        self.text = ""

    def take(self, line: str) -> None:
        name, colon, rest = line.partition(": ")
        # With several ranks the name is `rollwright, rank 1`.
        if colon and name.split(",")[0] == "rollwright":
            self.text = rest.rstrip()
        elif self.text:
            self.text = f"{self.text}\n{line.rstrip()}".rstrip()
