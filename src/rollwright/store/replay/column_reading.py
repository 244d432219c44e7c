"""A shard read, checked and laid out: a damaged block costs its trajectories, an odd row the one it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rollwright.contracts import DataError
from rollwright.store.replay.replay_checks import faults, owners_of
from rollwright.store.replay.turn_columns import (
    HEADER_COLUMNS,
    IDS,
    TURN,
    TURN_COLUMNS,
    Array,
    no_trajectories,
    trajectory_arrays,
    turn_arrays,
)
from rollwright.store.store_checks import TABLES
from rollwright.store.store_files import open_table, read_block

_NAMED_ROWS = 3


class Note(NamedTuple):
    """What is said of one of the shard's files: its path belongs between `before` and `after`, and may change."""

    table: str
    before: str
    after: str


class ColumnBlock(NamedTuple):
    """The trajectories of a block that can be replayed. owners: [turns] the trajectory of each, as a row of these."""

    trajectories: pa.Table
    turns: pa.Table
    owners: Array


@dataclass(slots=True)
class _Shard:
    paths: Mapping[str, Path]
    notes: list[Note] = field(default_factory=list)
    odd: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # table and fault -> rows of the file

    def blocks(self) -> Iterator[ColumnBlock]:
        """What can be replayed, block after block: one of them is in memory at a time."""
        with ExitStack() as stack:
            files = [stack.enter_context(_opened(self.paths[table])) for table in TABLES]
            for block, first_rows in enumerate(zip(*map(_first_rows, files), strict=True)):
                tables = self._read(files, block)
                if tables is not None:
                    yield self._usable(*tables, dict(zip(TABLES, first_rows, strict=True)))

    def _read(self, files: list[pq.ParquetFile], block: int) -> ColumnBlock | None:
        # `path` follows what is being read, so that the handlers below name the right file.
        path = self.paths[TABLES[0]]
        try:
            headers = read_block(path, block, HEADER_COLUMNS, file=files[0])
            path = self.paths[TABLES[1]]
            turns = read_block(path, block, TURN_COLUMNS, file=files[1])
            return ColumnBlock(headers, turns, owners_of(headers, turns))
        except DataError as error:
            self._note(path, str(error))
        # Of `owners_of`: the blocks are sound one by one and do not fit each other.
        except ValueError as error:
            self._note(path, f"block {block} of {path} is damaged, passed over: {error}")
        return None

    def _note(self, path: Path, message: str) -> None:
        # Notes are kept in the index, which outlives a move of the store: the path is put in when they are read.
        before, _, after = message.partition(str(path))
        self.notes.append(Note(path.parent.name, before, after))

    def _usable(self, headers: pa.Table, turns: pa.Table, owners: Array, first_rows: Mapping[str, int]) -> ColumnBlock:
        kept = np.ones(headers.num_rows, np.bool_)
        for fault in faults(headers, turns, owners):
            # A trajectory goes as a whole: without one of its turns its returns and next prompts would be others.
            kept[fault.trajectories] = False
            # Rows of the file, as a person can look them up, and not of the block.
            rows = (fault.rows + first_rows[fault.table]).tolist()
            self.odd.setdefault((fault.table, fault.reason), []).extend(rows)
        if kept.all():
            return ColumnBlock(headers, turns, owners)
        with_owner = kept[owners]
        places = np.cumsum(kept) - 1
        return ColumnBlock(
            headers.filter(pa.array(kept)), turns.filter(pa.array(with_owner)), places[owners[with_owner]]
        )


def read_shard(paths: Mapping[str, Path]) -> tuple[dict[str, Array], dict[str, list[str]], list[Note]]:
    """The arrays of a shard's index by name, the names behind the codes, and what was passed over.

    Args:
        paths: of both tables, by the table's name.

    Raises:
        DataError: a file of the shard cannot be opened.
    """
    shard = _Shard(paths)
    headers, parts, num_trajectories, num_ids = [], [], 0, 0
    for block in shard.blocks():
        if block.turns.num_rows:
            # Both counts run over the shard: owners and places in `ids` are of the shard, not of the block.
            parts.append(turn_arrays(block.turns, block.owners + num_trajectories, num_ids))
            num_ids += len(parts[-1]["ids"])
        headers.append(block.trajectories)
        num_trajectories += block.trajectories.num_rows
    # For a shard without a turn that can be replayed; otherwise only the names are used.
    arrays = {"turns": np.zeros(0, TURN)} | {name: np.zeros(0, dtype) for name, dtype in IDS.items()}
    if parts:
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in arrays}
    # Encoded once for the shard and not per block: the codes of names must agree over all of them.
    found = trajectory_arrays(pa.concat_tables(headers)) if num_trajectories else no_trajectories()
    arrays["trajectories"], names, arrays["next_ids"] = found
    return arrays, names, shard.notes + [_odd_rows(*key, rows) for key, rows in shard.odd.items()]


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return open_table(path)
    except Exception as error:
        raise DataError(f"{path} was whole when its store was opened and is not now: {error}. Open it anew") from error


def _first_rows(file: pq.ParquetFile) -> list[int]:
    """The row of the file that each block begins with."""
    sizes = [file.metadata.row_group(block).num_rows for block in range(file.num_row_groups)]
    return list(accumulate(sizes, initial=0))[:-1]


def _odd_rows(table: str, reason: str, rows: list[int]) -> Note:
    named = ", ".join(str(row) for row in rows[:_NAMED_ROWS])
    more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    many = len(rows) > 1
    whose = "their trajectories are" if many else "its trajectory is"
    return Note(table, f"row{'s' * many} {named}{more} of ", f" cannot be replayed, {whose} passed over: {reason}")
