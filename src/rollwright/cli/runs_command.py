"""`rollwright runs`: a table of run folders that can be filtered, sorted, grouped, plotted and exported."""

from __future__ import annotations

import argparse
from pathlib import Path

from rollwright.contracts import ConfigError, RunFolderError


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright runs`."""
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="*", type=Path, help="run folders, or folders of them (runs)"
    )
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="only runs that meet it, such as 'algorithm.preset=grpo' or 'success>0.5'; may be given again",
    )
    parser.add_argument("--sort", metavar="NAME[,NAME]", default="", help="sort by these; --sort=-NAME sorts downwards")
    parser.add_argument(
        "--group-by", metavar="NAME[,NAME]", default="", help="one line per group: mean, IQM and interval over its runs"
    )
    parser.add_argument("--columns", metavar="NAME[,NAME]", default="", help="columns; settings and metrics by name")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the table as CSV")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--plot", metavar="FILE.svg", type=Path, help="draw --metric over steps; bands over groups")
    parser.add_argument("--metric", metavar="NAME", default="rollout/success_frac", help="what --plot draws")


def run(arguments: argparse.Namespace) -> None:
    """Print the table, and write what was asked for.

    Raises:
        DataError: no run, an unknown name, or a condition that is none. ConfigError: the plot is to be no SVG.
        RunFolderError: a file cannot be written.
    """
    from rollwright.view import query_runs

    # Before the folders are read, which may be many.
    if arguments.plot and arguments.plot.suffix != ".svg":
        raise ConfigError(f"--plot {arguments.plot}: the picture is an SVG; give the file a name that ends in .svg")
    found = query_runs(
        arguments.folders or [Path("runs")],
        where=arguments.where,
        sort=_names(arguments.sort),
        group_by=_names(arguments.group_by),
        columns=_names(arguments.columns),
    )
    print(found.json() if arguments.json else found.text())
    if arguments.csv:
        _write(arguments.csv, found.csv())
    if arguments.plot:
        _write(arguments.plot, found.plot(arguments.metric))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}") from error
