"""`rollwright show`: stored episodes in a terminal."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from rollwright.cli.argument_types import natural_number, store_folder
from rollwright.contracts import SPLITS, DataError


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright show`."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a trajectory store or a run folder")
    parser.add_argument("--task", help="only this task")
    parser.add_argument("--tag", help="only trajectories stored under this tag")
    parser.add_argument("--split", choices=SPLITS, help="only tasks of this split")
    parser.add_argument("--origin", choices=("policy", "scripted", "human", "teacher", "log"), help="only from there")
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument("--solved", action="store_true", help="only successes")
    outcome.add_argument("--unsolved", action="store_true", help="only the others, faults included")
    parser.add_argument("--limit", metavar="N", type=natural_number, default=10, help="episodes printed at most (10)")
    parser.add_argument("--brief", action="store_true", help="one line per episode")


def run(arguments: argparse.Namespace) -> None:
    """Print the episodes that match.

    Raises:
        DataError: there is no store, or nothing in it matches.
    """
    from rollwright.store import TrajectoryStore
    from rollwright.view import format_trajectory, headline

    store = TrajectoryStore(store_folder(arguments.store), mode="read")

    def wanted(row: Any) -> bool:
        solved = bool(row["success"])
        return solved if arguments.solved else not (arguments.unsolved and solved)

    chosen = {key: getattr(arguments, key) for key in ("task", "tag", "split", "origin")}
    # Counted apart, as --limit ends the printing early.
    found = sum(1 for _ in store.refs(**chosen, where=wanted))
    for trajectory in islice(store.iter_trajectories(**chosen, where=wanted), arguments.limit):
        print(headline(trajectory) if arguments.brief else format_trajectory(trajectory) + "\n")
    # Last, since damaged shards are met while the store is read.
    for warning in store.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not found:
        tags = ", ".join(f"{tag or '(none)'} {count}" for tag, count in store.tags().items())
        raise DataError(f"none of the {len(store)} trajectories matches; tags here: {tags or 'none'}")
    if found > arguments.limit:
        print(f"{arguments.limit} of {found} episodes; --limit shows more", file=sys.stderr)
