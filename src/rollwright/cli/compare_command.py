"""`rollwright compare`: which of two evaluations is better."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rollwright.contracts import ConfigError, DataError

if TYPE_CHECKING:
    from rollwright.evaluation import Evaluation


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright compare`."""
    for name, which in (("a", "the baseline"), ("b", "the one judged against it")):
        parser.add_argument(name, metavar=name.upper(), type=Path, help=f"{which}: a run folder or an eval JSON")
    parser.add_argument(
        "--eval", metavar="NAME", help="which eval/<NAME>.json of a run folder (final, else the latest)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="of the interval (0.95)")
    parser.add_argument(
        "--target",
        choices=("these", "like-these"),
        help="speak about exactly these tasks, or about tasks like these (default: these, where tasks have 2 starts)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print both tables and the paired difference.

    Raises:
        ConfigError, DataError: an option or a file is wrong.
    """
    from rollwright.evaluation import compare, format_comparison, format_table

    if not 0 < arguments.confidence < 1:
        raise ConfigError(f"--confidence is {arguments.confidence}; it lies between 0 and 1, such as 0.95")
    a, b = _find_evaluation(arguments.a, arguments.eval), _find_evaluation(arguments.b, arguments.eval)
    name_a, name_b = _labels(arguments.a, a, arguments.b, b)
    print(format_table(a, title=name_a), end="\n\n")
    print(format_table(b, title=name_b), end="\n\n")
    found = compare(a, b, name_a=name_a, name_b=name_b, target=arguments.target, confidence=arguments.confidence)
    print(format_comparison(found))


def _find_evaluation(path: Path, name: str | None) -> Evaluation:
    """The evaluation in a file, or the chosen one of a run folder."""
    from rollwright.evaluation import load_evaluation

    if not path.is_dir():
        return load_evaluation(path)
    files = {file.stem: file for file in sorted((path / "eval").glob("*.json"))}
    if not files:
        raise DataError(f"{path} holds no evaluation: expected files eval/*.json in it. Is it a run folder?")
    if name is not None and name not in files:
        raise DataError(f"{path} has no evaluation {name!r}; it has: {', '.join(files)}")
    latest = max(files.values(), key=lambda file: file.stat().st_mtime)
    return load_evaluation(files[name] if name is not None else files.get("final", latest))


def _labels(path_a: Path, a: Evaluation, path_b: Path, b: Evaluation) -> tuple[str, str]:
    """The shortest names that tell the two apart."""
    runs = [path.resolve() if path.is_dir() else path.resolve().parent.parent for path in (path_a, path_b)]
    full = [f"{run.name}/{evaluation.name}" for run, evaluation in zip(runs, (a, b), strict=True)]
    for first, second in ((a.name, b.name), (runs[0].name, runs[1].name), (full[0], full[1])):
        if first != second:
            return first, second
    return "A", "B"
