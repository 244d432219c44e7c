"""What the learner found out about action tokens, beside the store: advantages, log-prob differences, masks.

A run folder has `token_log/step_000012.parquet`, one row per turn, for a bounded number of episodes of each step, and
`token_log/tokenizer.json`, which turns ids into strings. The trajectories' store keeps what was sampled; what is here
was computed by the update of that step and is needed by nobody but a reader of the run. Each file is whole or absent.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rollwright.store.turn_rows import pack_text, unpack_text

log = logging.getLogger(__name__)

FOLDER = "token_log"
_FLOATS = pa.list_(pa.float32())
_SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("turn", pa.int64()),
        ("num_ids", pa.int64()),  # of the action; a row of the lists below has one entry per scored token
        ("positions", pa.list_(pa.int32())),  # which of the action ids those are
        ("advantages", _FLOATS),
        ("diffs", _FLOATS),
        ("entropies", _FLOATS),
        ("masks", pa.list_(pa.bool_())),
        ("weights", _FLOATS),
        ("values", _FLOATS),
        ("returns", _FLOATS),
    ]
)
PER_TOKEN = ("advantages", "diffs", "entropies", "masks", "weights", "values", "returns")
"""Columns of a token: the advantage that the loss took; the log-prob by the learner before the update minus the one
that the engine reported; the policy's entropy in nats; false where the loss left the token out; the factor of the loss;
the token critic's value, and what that critic is fitted to. Those that an update did not compute are null."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenColumns:
    """What an update knew about N action tokens of U turns, flat in the order of the turns.

    Attributes:
        trajectory_ids: [U] ids of the trajectories.
        turns: [U] number of each turn in its trajectory.
        num_ids: [U] action ids of each turn, scored or not.
        counts: [U] scored tokens of each turn; they add up to N.
        columns: name of `PER_TOKEN` -> [N]; `positions` places each token among the action ids of its turn. A column
            that nobody computed is left out.
    """

    trajectory_ids: Sequence[str]
    turns: Sequence[int]
    num_ids: Sequence[int]
    counts: Sequence[int]
    columns: Mapping[str, Array]


class TokenLog:
    """The token log of one run folder. The run's first rank writes; any number of processes may read.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        # The step, the time of its file in ns, and what `read` gave for it.
        self._kept: tuple[int, int, dict[tuple[str, int], dict[str, Any]]] | None = None

    def steps(self) -> list[int]:
        """The steps that have a file, ascending."""
        return sorted(self._files())

    def write(self, step: int, parts: Sequence[TokenColumns]) -> None:
        """Write the file of one step, in place of one that is there. A full disk costs the file, not the run."""
        if not parts:
            return
        target = self.folder / f"step_{step:06d}.parquet"
        temporary = target.with_suffix(f".tmp-{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A reader, such as the page of a run that is going on, sees the old file or the whole new one.
            pq.write_table(pa.concat_tables(map(_table, parts)), temporary, compression="zstd")
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            log.warning("the token log of step %d could not be written: %s", step, error.strerror or error)

    def write_tokenizer(self, text: str) -> None:
        """Keep the tokenizer's own JSON once, so that ids can be shown as strings while the run goes on."""
        target = self.folder / "tokenizer.json"
        if target.exists():
            return
        temporary = target.with_suffix(f".tmp-{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            log.warning("the tokenizer could not be kept for `rollwright view`: %s", error.strerror or error)

    def read(self, step: int) -> Mapping[tuple[str, int], Mapping[str, Any]]:
        """(id of the trajectory, number of the turn) -> its columns, one entry per action id, None where unscored.

        Empty where the step has no file, or none that can be read. The latest step is kept in memory.
        """
        path = self._files().get(step)
        if path is None or not path.is_file():
            return {}
        try:
            stamp = path.stat().st_mtime_ns
            # A resumed run writes a step anew under its old name, so the number alone does not tell.
            if self._kept is None or self._kept[:2] != (step, stamp):
                rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
                found = {
                    (unpack_text(row["trajectory_id"]), row["turn"]): _spread(row) | {"step": step} for row in rows
                }
                self._kept = (step, stamp, found)
        # A foreign file may hold positions beyond `num_ids`, or lists of unequal length (`_spread`).
        except (OSError, pa.ArrowException, ValueError, TypeError, IndexError) as error:
            log.warning("%s cannot be read and is left out: %s", path, error)
            return {}
        return self._kept[2]

    def rewind(self, step: int) -> int:
        """Set aside the files from `step` on, as a resumed run writes them anew; -> how many. Nothing is deleted."""
        later = {number: path for number, path in self._files().items() if number >= step}
        if later:
            aside = self.folder / "superseded" / f"{sum(1 for _ in self.folder.glob('superseded/*')):04d}"
            # Without `exist_ok`: a folder that is there holds an earlier rewind, whose files a rename would replace.
            aside.mkdir(parents=True)
            for path in later.values():
                path.rename(aside / path.name)
        return len(later)

    def _files(self) -> dict[int, Path]:
        paths = self.folder.glob("step_*.parquet")
        return {int(path.stem[5:]): path for path in paths if path.stem[5:].isdecimal()}


def _table(part: TokenColumns) -> pa.Table:
    # [U + 1]: row u of every list column is [offsets[u], offsets[u + 1]) of the flat arrays.
    offsets = pa.array(np.concatenate([[0], np.cumsum(part.counts)]), pa.int32())
    arrays = {
        "trajectory_id": pa.array([pack_text(name) for name in part.trajectory_ids], pa.string()),
        "turn": pa.array(part.turns, pa.int64()),
        "num_ids": pa.array(part.num_ids, pa.int64()),
    }
    for field in _SCHEMA:
        if field.name in arrays:
            continue
        if field.name in part.columns:
            values = pa.array(part.columns[field.name], field.type.value_type)
            arrays[field.name] = pa.ListArray.from_arrays(offsets, values)
        else:
            # Every file has every column, so that the parts of a step can be concatenated.
            arrays[field.name] = pa.nulls(len(part.turns), field.type)
    return pa.table([arrays[name] for name in _SCHEMA.names], schema=_SCHEMA)


def _spread(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row laid out over all action ids."""
    spread: dict[str, Any] = {}
    for name in PER_TOKEN:
        if row[name] is None:
            spread[name] = None
            continue
        # None and not NaN, which JSON does not have: the page of a run is sent these columns.
        whole: list[float | None] = [None] * row["num_ids"]
        for place, value in zip(row["positions"], row[name], strict=True):
            if math.isfinite(value):
                whole[place] = int(value) if name == "masks" else float(f"{value:.6g}")
        spread[name] = whole
    return spread
