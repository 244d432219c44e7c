"""`rollwright report`: a run folder as one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from rollwright.cli.argument_types import natural_number
from rollwright.contracts import DataError


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright report`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    parser.add_argument("--replays", metavar="N", type=natural_number, default=24, help="episodes shown at most (24)")


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print where it is.

    Raises:
        DataError: this is not a run folder.
    """
    from rollwright.view import write_report

    run: Path = arguments.run
    # `write_report` takes any folder, and would write an empty page into a wrong one.
    traces = ("config.yaml", "metrics.jsonl", "eval", "trajectories/trajectories")
    if run.is_dir() and not any((run / trace).exists() for trace in traces):
        raise DataError(f"{run} is not a run folder: expected config.yaml, metrics.jsonl or eval/ in it")
    print(f"written to {write_report(run, num_replays=arguments.replays)}")
