"""`rollwright export`: stored episodes in the form of others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rollwright.cli.argument_types import store_folder
from rollwright.contracts import RunFolderError


def run(arguments: argparse.Namespace) -> None:
    """Write a store as messages, to a file or standard output."""
    from rollwright.store import TrajectoryStore
    from rollwright.store.importers import export_messages

    store = TrajectoryStore(store_folder(arguments.store), mode="read")
    # Stays 0 where the store holds nothing to export.
    count = 0
    if arguments.out is None:
        for line in export_messages(store):
            print(line)
    else:
        try:
            # "x" looks and creates in one step, so that no file is ever overwritten.
            with arguments.out.open("x", encoding="utf-8") as file:
                for count, line in enumerate(export_messages(store), start=1):  # noqa: B007
                    file.write(line + "\n")
        except FileExistsError:
            raise RunFolderError(f"{arguments.out} is there already: name another file, or delete it") from None
        except OSError as error:
            raise RunFolderError(f"{arguments.out} cannot be written: {error.strerror or error}") from error
        print(f"{count} conversations: {arguments.out}")
    # Last, since damaged shards are met while the store is read.
    for warning in store.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright export`."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a trajectory store or a run folder")
    parser.add_argument("--as", dest="form", choices=("messages",), default="messages", help="OpenAI messages (JSONL)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file to write (standard output)")
