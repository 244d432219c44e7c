"""The files of a trajectory store: written whole or not at all, opened with their version, columns and sums checked."""

from __future__ import annotations

import errno
import filecmp
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rollwright.contracts import DataError
from rollwright.store.store_checks import NULLABLE, PAIR_KEY, SCHEMAS, VERSION_KEY, schema_fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One shard that could be opened: its two files, and what their footers say."""

    number: int
    trajectories: Path
    turns: Path
    first_rows: tuple[int, ...]  # [num_blocks + 1] the row each block begins with; the last entry is the row count
    num_turns: int
    mark: str  # "" where it was written before shards had one

    @property
    def num_trajectories(self) -> int:
        """Trajectories of the shard."""
        return self.first_rows[-1]

    @property
    def paths(self) -> tuple[Path, Path]:
        """Its files, by table."""
        return self.trajectories, self.turns

    @property
    def likeness(self) -> str | tuple[int, ...]:
        """What two copies of one shard have in common."""
        # Sizes alone may agree by chance: `is_copy_of` then compares the contents.
        return self.mark or tuple(path.stat().st_size for path in self.paths)

    def is_copy_of(self, other: Shard) -> bool:
        """Of two that are alike: whether they are the same."""
        # Without `shallow=False` equal sizes and times are enough. Nothing is opened where there are marks.
        same = (filecmp.cmp(*pair, shallow=False) for pair in zip(self.paths, other.paths, strict=True))
        return self.mark == other.mark if self.mark else all(same)


def shard_files(folder: Path) -> dict[int, Path]:
    """Finished shards by number; temporary files have another ending."""
    return {int(path.stem): path for path in sorted(folder.glob("*.parquet")) if path.stem.isdecimal()}


def stored_version(path: Path, metadata: Mapping[bytes, bytes]) -> str:
    """The schema version of one file, one of `SCHEMAS`. The two files of a shard may differ: see `upgrade`.

    Raises:
        DataError: this release does not read that version.
    """
    # `replace`: the footer may be a foreign writer's, whose bytes need not be UTF-8.
    found = metadata.get(VERSION_KEY, b"none").decode(errors="replace")
    if found not in SCHEMAS:
        raise DataError(
            f"{path} has trajectory schema version {found}; this release reads versions {' and '.join(SCHEMAS)}. "
            f"Read it with the release that wrote it, or write the trajectories anew"
        )
    return found


def pair_mark(trajectories: Mapping[bytes, bytes], turns: Mapping[bytes, bytes]) -> str:
    """The mark that both files of a shard carry; "" for one that was written before there were marks.

    Args:
        trajectories, turns: the metadata of the two files.

    Raises:
        pa.ArrowInvalid: they carry different ones: a file was swapped, or copied from elsewhere.
    """
    # "" on both sides is an older shard and passes; "" on one side alone is a swapped file.
    one, two = (metadata.get(PAIR_KEY, b"").decode(errors="replace") for metadata in (trajectories, turns))
    if one != two:
        raise pa.ArrowInvalid(
            f"its two files were not written together (their marks are {one or 'none'} and {two or 'none'}): one of "
            "them was swapped or copied from another shard"
        )
    return one


def new_mark(rows: Sequence[int]) -> str:
    """A mark that no other shard has; it names the rows of both files, so that one that was taken out is missed."""
    return "-".join((uuid.uuid4().hex, *map(str, rows)))


def check_rows(mark: str, rows: Sequence[int]) -> None:
    """Raises pa.ArrowInvalid where the files hold other numbers of rows than their mark names, if it names any."""
    # The hex digits of a UUID hold no dash, so that what follows are the counts, if any.
    _, *named = mark.split("-")
    if named and named != [str(count) for count in rows]:
        raise pa.ArrowInvalid(
            f"it was written with {' trajectories and '.join(named)} turns and holds {rows[0]} and {rows[1]}: rows "
            "were added or taken out"
        )


def check_columns(path: Path, metadata: pq.FileMetaData, schema: pa.Schema) -> None:
    """The footer must describe the columns that are going to be read, and agree with itself."""
    name = f"{path.parent.name}/{path.name}"
    if fault := schema_fault(metadata.schema.to_arrow_schema(), schema):
        raise pa.ArrowInvalid(f"{name} {fault}")
    # The footer has no checksum. Flipped bits in its counts would shift every later row to another trajectory.
    sizes = [metadata.row_group(block).num_rows for block in range(metadata.num_row_groups)]
    if min(sizes, default=0) < 0 or sum(sizes) != metadata.num_rows:
        raise pa.ArrowInvalid(f"{name} names {metadata.num_rows} rows but has blocks of {sizes}")


def reason_of(error: Exception) -> str:
    """An error in words: some (a KeyError's) say nothing without their kind."""
    return str(error) if isinstance(error, OSError | pa.ArrowException) else f"{type(error).__name__}: {error}"


def open_table(path: Path) -> pq.ParquetFile:
    """One file of a shard, to read its blocks with their checksums verified."""
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(errno.ENOENT, "there is no file", str(path))
    # Off by default in pyarrow: without it a flipped bit in a page comes back as another number.
    return pq.ParquetFile(path, page_checksum_verification=True)


def read_block(
    path: Path, block: int, columns: Sequence[str] | None = None, *, file: pq.ParquetFile | None = None
) -> pa.Table:
    """One block of a shard's file, checksums verified and contents valid.

    Args:
        file: of that path, opened by `open_table`: reading a footer takes as long as reading a small block.

    Raises:
        DataError: it is damaged. Flipped bits fail in many ways: in Arrow's, and in Python's for sizes and names.
    """
    try:
        with open_table(path) if file is None else nullcontext(file) as opened:
            table = opened.read_row_group(block, columns=columns, use_threads=False)
        # Sound checksums do not make sound offsets; without `full` Arrow looks at the layout and not at the values.
        table.validate(full=True)
    except Exception as error:
        raise DataError(f"block {block} of {path} is damaged, passed over: {reason_of(error)}") from error
    return table


def without_empty_columns(table: pa.Table) -> pa.Table:
    """The table without the columns that may be empty and are, in every row: most stores use few of them."""
    # Before `to_pylist`: each empty column would become a Python None in the dict of every row.
    return table.drop_columns([n for n in table.column_names if n in NULLABLE and table[n].null_count == len(table)])


def write_pair(contents: Mapping[Path, memoryview]) -> None:
    """All files or none: each under a temporary name and on the disk first, then the renames.

    The first table is renamed last: it is what makes the shard count.
    """
    # In the same folder, as a rename is atomic only within one file system.
    temporary = {path: path.with_suffix(f".tmp-{os.getpid()}") for path in contents}
    renamed: list[Path] = []
    try:
        for path, content in contents.items():
            with open(temporary[path], "wb") as file:
                file.write(content)
                file.flush()
                # Without it a crash of the machine may keep the rename and lose the contents.
                os.fsync(file.fileno())
        for path in reversed(list(contents)):
            # `rename` replaces in silence on POSIX: a second writer would lose a shard of the first.
            if path.exists():
                raise FileExistsError(17, f"{path} was written by another process: one process writes a store")
            temporary[path].rename(path)
            renamed.append(path)
            _sync_folder(path.parent)
    # Ctrl-C too. A half that was renamed is taken back, or the number would be half a shard for ever.
    except BaseException:
        for path in [*temporary.values(), *renamed]:
            path.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename last: the entry lives in the folder, which has its own place on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
