"""`rollwright import`: logs or tasks of others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rollwright.contracts import FORMATS, ConfigError, DataError, RunFolderError

if TYPE_CHECKING:
    from rollwright.models import ChatCodec
    from rollwright.store.importers import Format, LeftOut, LogRow, RowError


def run(arguments: argparse.Namespace) -> None:
    """Import a file and print the counts.

    Raises:
        DataError: no row could be used. ConfigError: an option is missing or has no use here.
    """
    from rollwright.store.importers import ALREADY, import_episodes, import_tasks, load_format

    form = load_format(arguments.format)
    target: Path | None = None if arguments.dry_run else arguments.into
    if target is None and not arguments.dry_run:
        raise ConfigError("name the store or file to write with --into, or only read with --dry-run")
    # Before the codec is opened, which may have to read or fetch a model's files.
    _check_options(arguments, form)
    if arguments.repositories:
        # The importer knows of no repositories, so the folder is bound here.
        form = replace(form, convert=partial(form.convert, repositories=arguments.repositories))
    with _left_out_to(arguments.left_out) as left_out:
        if form.tasks:
            report = import_tasks(arguments.file, form, target, left_out=left_out)
        else:
            report = import_episodes(
                arguments.file,
                form,
                _codec(arguments.model),
                target,
                tag=arguments.tag,
                demonstrations=arguments.demonstrations,
                left_out=left_out,
            )
    print(report)
    # The same file imported again uses no row, and nothing is wrong with it.
    if not report.used and ALREADY not in report.left_out:
        raise DataError(f"none of the {report.read} rows of {arguments.file} could be used: is it {arguments.format}?")
    what = f"{report.records} tasks" if form.tasks else f"{report.records} episodes of {report.turns} turns"
    print(f"{what} would be written" if target is None else f"{what}: {target}")


def _check_options(arguments: argparse.Namespace, form: Format) -> None:
    if arguments.repositories and not form.takes_repositories:
        raise ConfigError(f"--repositories is for swe-bench; {arguments.format} reads none")
    if arguments.repositories and not arguments.repositories.is_dir():
        raise ConfigError(f"--repositories {arguments.repositories} is not a folder")
    if form.tasks and (arguments.model or arguments.demonstrations):
        raise ConfigError(f"--model and --demonstrations are about episodes; {arguments.format} holds tasks")
    if not form.tasks and not arguments.model and not arguments.dry_run:
        raise ConfigError(
            "a store holds token ids: name the model that will learn from it with --model (a folder, a hub name, or "
            "smollm2)"
        )


def _codec(model: str | None) -> ChatCodec | None:
    if not model:
        return None
    from rollwright.models import open_codec, resolve_model

    return open_codec(resolve_model(model))


@contextmanager
def _left_out_to(path: Path | None) -> Iterator[LeftOut]:
    """Writes a JSON line for each row left out."""
    if path is None:
        yield lambda row, error: None
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield lambda row, error: _write(file, row, error)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}") from error


def _write(file: IO[str], row: LogRow, error: RowError) -> None:
    file.write(json.dumps({"place": row.place, "reason": error.kind, "detail": error.detail}) + "\n")


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright import`."""
    names = ", ".join(FORMATS)
    parser.add_argument("format", metavar="FORMAT", help=f"{names}, or package.module:Attribute of your own")
    parser.add_argument("file", metavar="FILE", type=Path, help=".jsonl, .json or .parquet, or a folder of `datasets`")
    parser.add_argument("--into", metavar="STORE", type=Path, help="the store; for tasks, the file to write")
    parser.add_argument("--model", metavar="MODEL", help="whose tokenizer and chat template write the ids")
    parser.add_argument("--repositories", metavar="FOLDER", type=Path, help="swe-bench: where the repositories lie")
    parser.add_argument("--tag", default="import", help="the tag of the episodes in the store (import)")
    parser.add_argument(
        "--demonstrations", action="store_true", help="episodes without a verdict count as successes, for SFT"
    )
    parser.add_argument("--dry-run", action="store_true", help="read and count, write nothing")
    parser.add_argument("--left-out", metavar="FILE", type=Path, help="write each row left out, with the reason")
