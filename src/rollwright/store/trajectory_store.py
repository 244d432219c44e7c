"""Trajectories on disk: Parquet shards that are either whole or absent.

Layout of a store's folder; a shard is the pair of files of one number:

    trajectories/000000.parquet    one row per trajectory
    turns/000000.parquet           one row per turn, in the order of the trajectories

    attachments/<sha256>.png       the pictures that turns name

Row group i of one file holds the turns of row group i of the other, so any trajectory is found from (shard, row) and
two row groups read, and a walk over a million turns keeps one row group in memory. Both folders are plain data sets:
`datasets.load_dataset("parquet", data_files="run/trajectories/turns/*.parquet")`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from rollwright.contracts import DataError, Origin, RunFolderError, Split, Trajectory
from rollwright.store.attachments import Pictures
from rollwright.store.store_checks import SCHEMAS, TABLES, require_header
from rollwright.store.store_files import (
    Shard,
    check_columns,
    check_rows,
    new_mark,
    open_table,
    pair_mark,
    read_block,
    reason_of,
    shard_files,
    stored_version,
    without_empty_columns,
    write_pair,
)
from rollwright.store.store_rows import encode_shard, read_trajectory
from rollwright.store.turn_rows import pack_text, unpack_text

log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Ref(NamedTuple):
    """The place of one trajectory: number of its shard, row within the shard."""

    shard: int
    row: int


class TrajectoryStore:
    """A folder of trajectories: append, count, filter, read one or all.

    One process writes (rank 0); any number may read. A shard that is half-written, corrupt, lacks its other half or a
    column, whose halves are not of one shard, or that is a copy of another is passed over and named in `warnings`, and
    so is a number that is missing; everything else stays readable. Within a shard damage costs a block, and a row that
    is no trajectory (see `store_checks`: a log-prob that is not a number, the turns of another trajectory) costs that
    row: a walk passes over it with a warning, asking for it by its place is an error. A reader sees the shards that
    were there when it was made, and those it appended itself.

    Args:
        folder: the store's folder. With mode "append" it is made where it does not exist.
        mode: "read" never writes and refuses a folder that holds no store.

    Raises:
        RunFolderError: the folder cannot be created.
        DataError: no store in the folder (mode "read"), or a shard of another schema version.
    """

    def __init__(self, folder: str | Path, *, mode: Literal["append", "read"] = "append") -> None:
        self.folder = Path(folder)
        self.warnings: list[str] = []
        self.lacking = ""  # by who knows that episodes are missing: whoever learns from the store must refuse it
        self._mode = mode
        self._pictures = Pictures(self.folder, self.warn)
        self._cache: tuple[tuple[int, int], list[Row], list[list[Row]]] | None = None
        if mode == "append":
            self._make_folders()
        elif not all((self.folder / table).is_dir() for table in TABLES):
            raise DataError(
                f"{self.folder} holds no trajectory store: expected the folders {' and '.join(TABLES)} in it"
            )
        self._shards: dict[int, Shard] = {}
        self._alike: dict[str | tuple[int, ...], list[int]] = {}  # likeness of shards -> their numbers
        self.rescan()

    def __len__(self) -> int:
        """Trajectories in whole shards."""
        return sum(shard.num_trajectories for shard in self._shards.values())

    @property
    def turn_count(self) -> int:
        """Turns in whole shards."""
        return sum(shard.num_turns for shard in self._shards.values())

    @property
    def position(self) -> int:
        """The number that the next shard will get. A checkpoint keeps it; `rewind` takes it."""
        # Of either table: half a shard has taken its number too, and `write_pair` would refuse it.
        numbers = [number for table in TABLES for number in shard_files(self.folder / table)]
        return max(numbers, default=-1) + 1

    def census(self, position: int) -> dict[str, Any]:
        """What the whole shards before a position hold: how many there are, their trajectories, and a digest of both.

        A checkpoint keeps it, to tell later whether a shard is gone or is another.
        """
        shards = [self._shards[number] for number in self.shard_numbers() if number < position]
        alike = json.dumps([[shard.number, shard.num_trajectories, shard.likeness] for shard in shards])
        return {
            "shards": len(shards),
            "trajectories": sum(shard.num_trajectories for shard in shards),
            "digest": hashlib.sha256(alike.encode()).hexdigest(),
        }

    def rescan(self) -> None:
        """See the shards that another process has written since this reader was made."""
        for number in sorted(self._whole_numbers() - self._shards.keys()):
            shard = self._open_or_warn(number)
            if shard is not None:
                self._take_in(shard)

    def shard_numbers(self) -> list[int]:
        """Numbers of the whole shards, ascending."""
        return sorted(self._shards)

    def append(self, trajectories: Sequence[Trajectory], *, tag: str = "") -> int | None:
        """Write one shard and the pictures of its turns; both are on the disk, whole, when this returns.

        Returns:
            The shard's number; None where there was nothing to write.

        Raises:
            RunFolderError: the disk is full or the folder not writable; the message names what is safe.
            DataError: the store was opened for reading, or a task's parameters are not JSON.
        """
        if self._mode == "read":
            raise DataError(f"{self.folder} was opened for reading; open it with mode='append' to add trajectories")
        if not trajectories:
            return None
        number = self.position
        mark = new_mark((len(trajectories), sum(len(trajectory.turns) for trajectory in trajectories)))
        try:
            kept = self._pictures.take_in(
                trajectories
            )  # before the rows: a row never names a picture that is not there
            contents = dict(zip(TABLES, encode_shard(kept, tag, mark), strict=True))
            write_pair({self._path(table, number): content for table, content in contents.items()})
        except OSError as error:
            raise RunFolderError(
                f"{len(trajectories)} trajectories could not be written to {self.folder}: {error.strerror or error}. "
                f"The {len(self)} trajectories of the {len(self._shards)} shards written before are safe; "
                f"free space or fix the permissions, then resume"
            ) from error
        self._take_in(self._open(number))
        return number

    def headers(self) -> Iterator[tuple[Ref, Row]]:
        """Every trajectory's place and its row (`TRAJECTORY_SCHEMA`), in the order written. Opens no turns."""
        for shard in list(self._shards.values()):
            for block in range(len(shard.first_rows) - 1):
                yield from self._block_headers(shard, block)

    def columns(self, number: int, table: str, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Some columns of one shard, block after block: an overview of many trajectories that reads none of them whole.

        A damaged block is passed over with a warning.

        Args:
            table: one of `TABLES`.
            names: those that the shard lacks, being of an older version, are left out.

        Yields:
            The row, among the shard's trajectories, that the block begins with; the columns.
        """
        shard = self._shards[number]
        path = shard.paths[TABLES.index(table)]
        with open_table(path) as file:
            known = frozenset(file.schema_arrow.names)
            there = [name for name in names if name in known]
            for block, first in enumerate(shard.first_rows[:-1]):
                try:
                    yield first, read_block(path, block, there, file=file)
                except DataError as error:
                    self.warn(str(error))

    def refs(
        self,
        *,
        tag: str | None = None,
        origin: Origin | None = None,
        task: str | None = None,
        split: Split | None = None,
        where: Callable[[Row], bool] | None = None,
    ) -> Iterator[Ref]:
        """Places of the trajectories that match, in the order written. Opens no turns.

        Args:
            where: judges a row of the trajectories' table (its columns: `TRAJECTORY_SCHEMA`).
        """
        wanted: dict[str, Any] = {"tag": tag, "origin": origin, "task_id": task, "task_split": split}
        exact = {key: pack_text(value) for key, value in wanted.items() if value is not None}
        for ref, row in self.headers():
            if all(row[key] == value for key, value in exact.items()) and (where is None or where(row)):
                yield ref

    def iter_trajectories(
        self,
        *,
        tag: str | None = None,
        origin: Origin | None = None,
        task: str | None = None,
        split: Split | None = None,
        where: Callable[[Row], bool] | None = None,
    ) -> Iterator[Trajectory]:
        """The trajectories that match, in the order written, one block in memory at a time.

        A block whose turns turn out to be damaged is passed over with a warning, and so is a row that is no trajectory.
        """
        for ref in self.refs(tag=tag, origin=origin, task=task, split=split, where=where):
            try:
                yield self.read(ref)
            except DataError as error:
                self.warn(str(error))

    def read(self, ref: Ref) -> Trajectory:
        """One trajectory by its place.

        Raises:
            DataError: no such place, its block is damaged, or the row is no trajectory (a NaN among the rewards, say).
        """
        shard = self._shards.get(ref.shard)
        if shard is None or not 0 <= ref.row < shard.num_trajectories:
            raise DataError(f"{self.folder} has no trajectory at shard {ref.shard}, row {ref.row}")
        block = sum(first <= ref.row for first in shard.first_rows[1:])
        rows, turns = self._block(shard, block)
        offset = ref.row - shard.first_rows[block]
        try:
            return self._pictures.located(read_trajectory(rows[offset], turns[offset]))
        except Exception as error:  # a foreign writer's row fails wherever its first odd value is met
            raise DataError(_unusable(shard, ref.row, error)) from error

    def tags(self) -> Counter[str]:
        """How many trajectories each tag has."""
        return Counter(unpack_text(row["tag"]) for _, row in self.headers())

    def rewind(self, position: int) -> int:
        """Set aside the shards from `position` on, as a resumed run writes them anew. Nothing is deleted.

        They move to `superseded/`, under a name that no later rewind takes.

        Returns:
            How many shards were set aside.
        """
        numbers = {number for table in TABLES for number in shard_files(self.folder / table) if number >= position}
        return self._set_aside(numbers)

    def replace(self, trajectories: Sequence[Trajectory], *, tag: str) -> int | None:
        """Append, and set aside what was stored under this tag before: an evaluation that is made again.

        Returns, raises: as `append`.
        """
        tags: dict[int, set[str]] = {}
        for ref, row in self.headers():
            tags.setdefault(ref.shard, set()).add(unpack_text(row["tag"]))
        number = self.append(trajectories, tag=tag)
        self._set_aside({shard for shard, found in tags.items() if found == {tag}})
        return number

    def _set_aside(self, numbers: set[int]) -> int:
        """Move these shards to `superseded/`; -> how many of them were whole."""
        attempt = sum(1 for _ in (self.folder / "superseded").glob("*"))
        aside = self.folder / "superseded" / f"{attempt:04d}"
        for table in reversed(TABLES):  # as `write_pair`: the first table makes a shard count
            for number, path in shard_files(self.folder / table).items():
                if number in numbers:
                    (aside / table).mkdir(parents=True, exist_ok=True)
                    path.rename(aside / table / path.name)
        whole = numbers & self._shards.keys()
        for number in whole:
            del self._shards[number]
        self._cache = None  # its key may name another shard from now on
        return len(whole)

    def warn(self, message: str) -> None:
        """Keep what was passed over in `warnings`, and log it: once, however often it is met."""
        if message not in self.warnings:
            self.warnings.append(message)
            log.warning(message)

    def _make_folders(self) -> None:
        try:
            for table in TABLES:
                (self.folder / table).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"the trajectory store {self.folder} cannot be created: {error.strerror}. Choose a writable run folder"
            ) from error

    def _path(self, table: str, number: int) -> Path:
        return self.folder / table / f"{number:06d}.parquet"

    def _whole_numbers(self) -> set[int]:
        """Numbers that both tables have a file for; what lacks its other half or is missing altogether is said."""
        one, two = (set(shard_files(self.folder / table)) for table in TABLES)
        for table, lacking in zip(TABLES, (two - one, one - two), strict=True):
            for number in sorted(lacking):
                self.warn(f"shard {number} of {self.folder} has no file in {table}/: passed over")
        superseded = self.folder.glob(f"superseded/*/{TABLES[1]}/*.parquet")
        known = one | two | {int(path.stem) for path in superseded if path.stem.isdecimal()}
        if gone := sorted(set(range(max(one | two, default=-1))) - known):
            self.warn(f"{self.folder} lacks the shards {', '.join(map(str, gone))}: what they held is lost")
        return one & two

    def _take_in(self, shard: Shard) -> None:
        alike = self._alike.setdefault(shard.likeness, [])
        twins = [n for n in alike if n in self._shards and shard.is_copy_of(self._shards[n])]
        if twins:
            return self.warn(f"shard {shard.number} of {self.folder} is a copy of shard {twins[0]}: passed over")
        alike.append(shard.number)
        self._shards[shard.number] = shard

    def _open_or_warn(self, number: int) -> Shard | None:
        try:
            return self._open(number)
        except DataError:  # another schema version
            raise
        except Exception as error:  # a footer has no checksum: flipped bits fail wherever they are read
            self.warn(f"shard {number} of {self.folder} is half-written or corrupt, passed over: {reason_of(error)}")
            return None

    def _open(self, number: int) -> Shard:
        paths = [self._path(table, number) for table in TABLES]
        metadata = []
        for table, path in enumerate(paths):
            with open_table(path) as file:
                metadata.append(file.metadata)
            version = stored_version(path, metadata[-1].metadata or {})
            check_columns(path, metadata[-1], SCHEMAS[version][table])
        counts = [meta.num_row_groups for meta in metadata]
        if counts[0] != counts[1]:
            raise pa.ArrowInvalid(f"{counts[0]} blocks of trajectories but {counts[1]} of turns")
        mark = pair_mark(*(meta.metadata or {} for meta in metadata))
        check_rows(mark, [meta.num_rows for meta in metadata])
        sizes = [metadata[0].row_group(block).num_rows for block in range(counts[0])]
        first_rows = tuple(accumulate(sizes, initial=0))
        return Shard(
            number=number,
            trajectories=paths[0],
            turns=paths[1],
            first_rows=first_rows,
            num_turns=metadata[1].num_rows,
            mark=mark,
        )

    def _block(self, shard: Shard, block: int) -> tuple[list[Row], list[list[Row]]]:
        """The rows of one block and, for each, its turns. The latest block is kept: neighbours are read together."""
        key = (shard.number, block)
        if self._cache is None or self._cache[0] != key:
            rows = read_block(shard.trajectories, block).to_pylist()
            found = without_empty_columns(read_block(shard.turns, block)).to_pylist()
            counts = [row["num_turns"] or 0 for row in rows]
            if min(counts, default=0) < 0 or sum(counts) != len(found):
                raise DataError(
                    f"block {block} of {shard.turns} is damaged, passed over: "
                    f"{len(found)} turns, its trajectories name {sum(counts)}"
                )
            turns = iter(found)
            per_row = [list(islice(turns, count)) for count in counts]
            self._cache = (key, rows, per_row)
        return self._cache[1], self._cache[2]

    def _block_headers(self, shard: Shard, block: int) -> Iterator[tuple[Ref, Row]]:
        try:
            rows = read_block(shard.trajectories, block).to_pylist()
        except DataError as error:
            return self.warn(str(error))
        for number, row in enumerate(rows, shard.first_rows[block]):
            try:
                require_header(row)
            except ValueError as error:
                self.warn(_unusable(shard, number, error))
            else:
                yield Ref(shard.number, number), row


def _unusable(shard: Shard, row: int, error: Exception) -> str:
    return f"row {row} of {shard.trajectories} is no usable trajectory, passed over: {reason_of(error)}"
