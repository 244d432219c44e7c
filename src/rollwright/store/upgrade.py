"""A store of an older version brought to the version that is written now. Nothing is computed anew, nothing is lost.

Each file of a shard is written anew beside the old one and takes its place by one rename. Every file says its own
version and the two of a shard keep their common mark, so a shard of which one file is new and the other old is whole:
a kill between any two steps leaves a store that can be read, and the next call does what is left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rollwright.contracts import DataError, RunFolderError
from rollwright.run_io import held
from rollwright.store.store_checks import SCHEMA_VERSION, SCHEMAS, TABLES, VERSION_KEY
from rollwright.store.store_files import check_columns, open_table, read_block, reason_of, shard_files, stored_version
from rollwright.store.store_rows import table_writer

ENDING = ".upgrading"
"""Of a file that is being written: no reader takes it for a shard."""


@dataclass(kw_only=True)
class Upgraded:
    """What an upgrade came to: files written anew, files that were new already, and those left as they are."""

    written: int = 0
    current: int = 0
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.written} files upgraded, {self.current} were of version {SCHEMA_VERSION}, {len(self.left)} left"


def upgrade_store(folder: Path, *, progress: Callable[[int], None] = lambda _: None) -> Upgraded:
    """Bring every shard of a store to the present version, its marks, numbers and blocks as they were.

    A file that is damaged is left as it is and named: what of it can be read now can be read later too.

    Args:
        progress: told how many more files are done.

    Raises:
        DataError: no store in the folder, or a shard of a version that this release does not know; nothing is changed.
        RunFolderError: a running process writes the store, or a file cannot be written.
    """
    if not all((folder / table).is_dir() for table in TABLES):
        raise DataError(f"{folder} holds no trajectory store: expected the folders {' and '.join(TABLES)} in it")
    # A run that is resumed meanwhile would set aside the very files that are being replaced.
    with held(folder):
        files = [(path, table) for table in range(len(TABLES)) for path in shard_files(folder / TABLES[table]).values()]
        found = Upgraded()
        versions = {path: _version(path, found) for path, _ in files}  # all of them before the first is changed
        for path, table in files:
            if version := versions[path]:
                _bring_up(path, table, version, found)
            progress(1)
        # Those of a call that was killed: under the lock nobody else can be writing one.
        for name in TABLES:
            for rest in (folder / name).glob(f"*{ENDING}"):
                rest.unlink()
    return found


def _version(path: Path, found: Upgraded) -> str:
    """The file's version, "" where it is damaged."""
    try:
        return stored_version(path, pq.read_metadata(path).metadata or {})
    # A version that is not known stops everything, while damage costs its file.
    except DataError:
        raise
    except Exception as error:  # a footer has no checksum: flipped bits fail wherever they are read
        found.left.append(f"{path}: {reason_of(error)}")
        return ""


def _bring_up(path: Path, table: int, version: str, found: Upgraded) -> None:
    if version == str(SCHEMA_VERSION):
        found.current += 1
        return
    beside = path.with_suffix(ENDING)
    try:
        _write_anew(path, beside, table, version)
    except (DataError, pa.ArrowInvalid) as error:  # damaged: half of it must not take its place
        beside.unlink(missing_ok=True)
        found.left.append(f"{path}: {reason_of(error)}")
        return
    except OSError as error:
        raise RunFolderError(
            f"{beside} cannot be written: {error.strerror or error}. What was upgraded before is whole, the rest is as "
            "it was: free space or fix the permissions, then upgrade again"
        ) from error
    # `_write_anew` has synced it, so that the name never stands on a file whose contents are not on the disk.
    beside.rename(path)
    found.written += 1


def _write_anew(path: Path, beside: Path, table: int, version: str) -> None:
    """The rows of one file under the present columns, block by block, on the disk when this returns."""
    with open_table(path) as old:
        metadata = old.metadata
        check_columns(path, metadata, SCHEMAS[version][table])
        schema = _target(old.schema_arrow, SCHEMAS[str(SCHEMA_VERSION)][table])
        # The pair's mark is among it: the other file of the shard may still be of the old version.
        kept = {**(metadata.metadata or {}), VERSION_KEY: str(SCHEMA_VERSION).encode()}
        with open(beside, "wb") as file:
            # `ARROW:schema` describes the old columns; pyarrow adds that of the new ones by itself.
            with table_writer(file, schema, {k: v for k, v in kept.items() if k != b"ARROW:schema"}) as writer:
                for block in range(metadata.num_row_groups):
                    # By way of Python: `from_pylist` fills new columns and nested fields with null, a cast does not.
                    rows = read_block(path, block, file=old).to_pylist()
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            file.flush()
            os.fsync(file.fileno())


def _target(found: pa.Schema, present: pa.Schema) -> pa.Schema:
    """The present columns, and those beyond them that somebody added."""
    return pa.schema([*present, *(field for field in found if field.name not in present.names)])
