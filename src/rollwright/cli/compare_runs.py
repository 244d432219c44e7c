"""What the words of `rollwright compare` name: runs, evaluations and logs, alone or in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rollwright.contracts import ConfigError, DataError

if TYPE_CHECKING:
    from rollwright.evaluation import EvaluationReading

# A shell expands patterns itself, but not behind `NAME=`.
_WILD = "*?["


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingChoice:
    """Which evaluation of a run folder, and which scores of somebody else's log."""

    name: str | None = None
    scorer: str | None = None
    filter_name: str | None = None
    metric: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedReading:
    """One evaluation and where it came from. `run` is the run folder, None for a file that lies in none."""

    path: Path
    run: Path | None
    reading: EvaluationReading


Groups = dict[str, list[NamedReading]]


def read_groups(words: Sequence[str], choice: ReadingChoice, group_by: str | None) -> Groups:
    """Name of the group -> its evaluations.

    `NAME=PATH,PATH` is a group; a path alone is a group of one, named like its run; `group_by` puts plain paths
    together that have the same value of a configuration key.

    Raises:
        ConfigError: a word that is neither, or one name twice. DataError: an evaluation cannot be read.
    """
    parts: list[tuple[str | None, list[NamedReading]]] = []  # in the order of the words: the first is the baseline
    for word in words:
        name, sign, paths = word.partition("=")
        # A path may hold the sign itself, as `runs/lr=0.1` does.
        if not sign or Path(word).exists():
            parts += [(None, [read_run(path, choice)]) for path in _expanded(word)]
            continue
        if not name or not paths:
            raise ConfigError(f"{word!r} names no group: write NAME=RUN or NAME=RUN,RUN, such as base=runs/a,runs/b")
        if name in [known for known, _ in parts]:
            raise ConfigError(f"the group {name!r} is named twice: put all its runs behind one name, {name}=RUN,RUN")
        found = [read_run(path, choice) for part in paths.split(",") if part for path in _expanded(part)]
        if not found:
            raise ConfigError(f"the group {name!r} holds no run: write {name}=RUN or {name}=RUN,RUN")
        parts.append((name, found))
    _refuse_twice([one.path for _, members in parts for one in members])
    return _by_setting(parts, group_by) if group_by is not None else _by_label(parts)


def _refuse_twice(paths: Sequence[Path]) -> None:
    """A run against itself has no difference, and counted twice it makes an interval too narrow."""
    seen: set[Path] = set()
    for path in paths:
        # Resolved, since one run can be reached by several paths.
        if path.resolve() in seen:
            raise ConfigError(f"{path} is named twice: a run belongs to one group, once. Name another run")
        seen.add(path.resolve())


def _by_setting(parts: Sequence[tuple[str | None, list[NamedReading]]], key: str) -> Groups:
    """Plain runs go together where a configuration key has one value; named groups stay."""
    found: Groups = {}
    for name, members in parts:
        for one in members:
            found.setdefault(name if name is not None else f"{key}={_setting(one, key)}", []).append(one)
    return found


def _by_label(parts: Sequence[tuple[str | None, list[NamedReading]]]) -> Groups:
    """A plain run is a group of its own, by the shortest name that tells it from the others."""
    plain = [members[0] for name, members in parts if name is None]
    policies = [one.reading.evaluation.policy for one in plain]
    # The files of other tools have long names that say little; what they judged is a model.
    foreign = all(one.reading.evaluation.origin == "foreign" for one in plain)
    labels = iter(policies if foreign and all(policies) and len(set(policies)) == len(plain) else run_names(plain))
    found: Groups = {}
    for name, members in parts:
        label = next(labels) if name is None else name
        if label in found:
            raise ConfigError(f"two groups would be called {label!r}: name them yourself, NAME={members[0].path}")
        found[label] = members
    return found


def _expanded(word: str) -> list[Path]:
    """The paths that a pattern matches; a word without wildcards is a path."""
    # The name of a folder may hold brackets.
    if not any(sign in word for sign in _WILD) or Path(word).exists():
        return [Path(word)]
    found = sorted(glob(word))
    if not found:
        raise DataError(f"no run matches {word!r}: check the folder, or name the runs one by one")
    return [Path(path) for path in found]


def read_run(path: Path, choice: ReadingChoice) -> NamedReading:
    """The evaluation in a file, or the chosen one of a run folder.

    Raises:
        DataError: there is none.
    """
    from rollwright.evaluation import is_foreign_log, read_any_evaluation

    scores = {"scorer": choice.scorer, "filter_name": choice.filter_name, "metric": choice.metric}
    if is_foreign_log(path):
        return NamedReading(path=path, run=None, reading=read_any_evaluation(path, **scores))
    file = find_evaluation(path, choice.name) if path.is_dir() else path
    # `eval/<name>.json` lies two levels below its run folder.
    run = path if path.is_dir() else file.resolve().parent.parent
    return NamedReading(path=path, run=run, reading=read_any_evaluation(file, **scores))


def find_evaluation(run: Path, name: str | None) -> Path:
    """The file of the evaluation of that name in a run folder; without a name the final one, else the latest.

    Raises:
        DataError: the folder holds none, or none of that name.
    """
    files = {file.stem: file for file in sorted((run / "eval").glob("*.json"))}
    if not files:
        raise DataError(f"{run} holds no evaluation: expected files eval/*.json in it. Is it a run folder?")
    if name is not None and name not in files:
        raise DataError(f"{run} has no evaluation {name!r}; it has: {', '.join(files)}")
    # By time: `step-000010` and names of one's own have no order in common.
    latest = max(files.values(), key=lambda file: file.stat().st_mtime)
    return files[name] if name is not None else files.get("final", latest)


def _setting(one: NamedReading, key: str) -> str:
    """The value of a dotted key in the run's config.yaml, as text."""
    file = (one.run or one.path) / "config.yaml"
    try:
        # Plain YAML is enough: a run writes its settings resolved, without `extends` and references.
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"--group-by {key}: {file} cannot be read ({error.__class__.__name__})") from error
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            keys = ", ".join(map(str, tree)) if isinstance(tree, Mapping) else "none"
            raise ConfigError(f"--group-by {key}: {file} has no key {part!r} there; keys: {keys}")
        tree = tree[part]
    return str(tree)


def _labels(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """The shortest names that tell the evaluations apart."""
    runs = [path.resolve() if path.is_dir() else path.resolve().parent.parent for path in paths]
    parents = [f"{run.parent.name}/{run.name}" for run in runs]
    full = [f"{run.name}/{name}" for run, name in zip(runs, names, strict=True)]
    files = [path.stem for path in paths]
    if len(paths) == 1:
        return [runs[0].name if paths[0].is_dir() else files[0]]
    for found in (list(names), [run.name for run in runs], parents, full, files):
        if len(set(found)) == len(found) and all(found):
            return found
    # No name tells them apart, so they get letters in the order of the words.
    return [chr(ord("A") + n) if n < 26 else f"run{n}" for n in range(len(paths))]


def run_names(members: Sequence[NamedReading]) -> list[str]:
    """A name for each run of a group."""
    return _labels([one.path for one in members], [one.reading.evaluation.name for one in members])
