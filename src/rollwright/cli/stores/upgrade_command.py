"""`rollwright upgrade`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rollwright.cli.argument_types import store_folder
from rollwright.contracts import DataError


def run(arguments: argparse.Namespace) -> None:
    """Bring a store, or the one of a run folder, to the present version and print the counts.

    Raises:
        DataError: no store, or one of an unknown version; or nothing but damaged files.
        RunFolderError: a running process holds the folder, or it cannot be written.
    """
    from rollwright.run_io import Progress, held
    from rollwright.store import TABLES, shard_files, upgrade_store

    given: Path = arguments.store
    store = store_folder(given)
    if not store.is_dir():
        raise DataError(f"there is no store or run folder {given}")
    total = sum(len(shard_files(store / table)) for table in TABLES if (store / table).is_dir())
    with held(given), Progress("files upgraded", total=total) as bar:  # a run holds its folder, and so its store
        found = upgrade_store(store, progress=bar.advance)
    for line in found.left:
        print(f"warning: left as it was: {line}", file=sys.stderr)
    print(f"{store}: {found}")


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright upgrade`."""
    parser.add_argument("store", metavar="STORE|RUN", type=Path, help="a trajectory store or a run folder")
