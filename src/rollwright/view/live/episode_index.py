"""The episodes of a run as one small table: what a list shows and a filter asks, read from the light columns alone.

Ten thousand episodes are a few megabytes here; their turns stay on the disk. The table grows with the store and is made
anew where a resumed run has set shards aside.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rollwright.contracts import DataError
from rollwright.store import TABLES, Ref, TrajectoryStore, shard_files, unpack_text

# Light columns only: a list needs no turn.
_COLUMNS = (
    *("id", "tag", "task_id", "task_split", "seed", "num_turns", "stop_reason", "success", "score", "total_reward"),
    *("origin", "policy", "version", "start", "branch", "temperature", "fault", "retries", "wall_s"),
)
# To find the names of rewards by reading every shard would take as long as a search.
SAMPLED_SHARDS = 8
_STEP = re.compile(r"(?:step|dropped)_(\d{1,15})")
# What takes part in a filter repeats itself: as dictionary codes it is small, and quick to compare.
_REPEATED = ("tag", "task", "split", "stop", "origin", "policy", "start")


class EpisodeIndex:
    """The table of one store, refreshed on demand.

    Attributes:
        table: one row per episode in the order written; see `_tabulated` for its columns.
        notes: what of the store cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = _EMPTY
        self.notes: list[str] = []
        self.store: TrajectoryStore | None = None
        self._seen: dict[int, tuple[int, int]] = {}  # shard -> file and time of writing
        self._stamp: tuple[int, ...] = ()
        self._channels: dict[int, dict[str, np.ndarray[Any, Any]]] = {}

    def refresh(self) -> None:
        """Take in the shards that were written since the last call."""
        stamp = self._folder_stamp()
        # A few calls of stat, which is all that most requests cost.
        if not stamp or stamp == self._stamp:
            return
        # Taken before the listing: what is written meanwhile changes the stamp, and the next call sees it.
        self._stamp = stamp
        files = shard_files(self.folder / TABLES[0])
        seen = {number: _file_stamp(path) for number, path in files.items()}
        # A known shard that is another file now was set aside and written anew by a resumed run.
        if any(seen.get(number) != stamp for number, stamp in self._seen.items()):
            self._forget()
        try:
            if self.store is None:
                self.store = TrajectoryStore(self.folder, mode="read")
            else:
                self.store.rescan()
            added = [number for number in self.store.shard_numbers() if number not in self._seen]
            parts = [self.table, *(self._tabulated(self.store, number) for number in added)]
        except DataError as error:
            self.notes = [str(error)]
            return
        except (OSError, pa.ArrowException) as error:  # a shard that went, or was cut, since it was listed
            self.notes = [f"episodes of {self.folder} cannot be read: {error}"]
            # Forgotten, so that the next call tries again: the shard may just have been moved.
            self._stamp = ()
            return
        # Each part has dictionary codes of its own, and filters compare over the whole column.
        self.table = pa.concat_tables(parts).unify_dictionaries()
        self._seen |= {number: seen[number] for number in added if number in seen}
        self.notes = list(self.store.warnings)

    def place_of(self, ref: Ref) -> int | None:
        """The row of the table that an episode has; None where there is none."""
        found = pc.and_(pc.equal(self.table["shard"], ref.shard), pc.equal(self.table["row"], ref.row))
        place = pc.index(found, True).as_py()
        # Arrow says -1 for not found.
        return None if place < 0 else int(place)

    def channel_names(self) -> list[str]:
        """The rewards and costs that episodes have, sorted: those of a few shards, until a filter has read them all."""
        numbers = sorted(self._seen)
        # The newest shard is always among them: new rewards appear there.
        self._read_channels([*numbers[:: max(1, len(numbers) // SAMPLED_SHARDS)], *numbers[-1:]])
        return sorted({name for sums in self._channels.values() for name in sums})

    def channel(self, name: str) -> np.ndarray[Any, Any]:
        """[episodes] the sum of one named reward or cost over each episode; NaN where it has no such part."""
        parts = []
        self._read_channels(sorted(self._seen))
        for number, sums in sorted(self._channels.items()):
            size = int(pc.sum(pc.equal(self.table["shard"], number)).as_py() or 0)
            # A shard without the channel still has its episodes, or the rows would shift against the table.
            parts.append(sums[name] if name in sums else np.full(size, np.nan))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _read_channels(self, numbers: Sequence[int]) -> None:
        """Read the sums of these shards, where they are not known: name -> [episodes of the shard in the table]."""
        shards = self.table["shard"].to_numpy()
        for number in numbers:
            if self.store is not None and number not in self._channels:
                # By the table and not by the file: the shard may have grown since it was read.
                mine = self.table.filter(pa.array(shards == number))
                self._channels[number] = _channel_sums(self.store, number, mine)

    def _forget(self) -> None:
        self.store, self.table, self._seen, self._channels = None, _EMPTY, {}, {}

    def _folder_stamp(self) -> tuple[int, ...]:
        """What changes whenever a file of the store is added or goes; () where there is no store."""
        try:
            # A folder's time changes when a file in it comes or goes.
            return tuple((self.folder / table).stat().st_mtime_ns for table in TABLES)
        except OSError:
            return ()

    def _tabulated(self, store: TrajectoryStore, number: int) -> pa.Table:
        parts = [_rows(number, first, block) for first, block in store.columns(number, TABLES[0], _COLUMNS)]
        return pa.concat_tables(parts) if parts else _EMPTY


def _rows(shard: int, first: int, block: pa.Table) -> pa.Table:
    """The index rows of one block of headers."""
    ids, tags, tasks = (block[name].to_pylist() for name in ("id", "tag", "task_id"))
    seeds = block["seed"].to_pylist()
    places = [_placed(*named) for named in zip(ids, tags, tasks, seeds, strict=True)]
    # Stores of earlier versions lack the column.
    branch = block["branch"] if "branch" in block.column_names else None
    columns = {
        "shard": pa.array([shard] * len(ids), pa.int32()),
        "row": pa.array(range(first, first + len(ids)), pa.int32()),
        "id": block["id"],
        "tag": block["tag"],
        "task": block["task_id"],
        "split": block["task_split"],
        "seed": block["seed"],
        "turns": block["num_turns"],
        "stop": block["stop_reason"],
        "success": block["success"],
        "score": pc.struct_field(block["score"], "value"),
        "reward": block["total_reward"],
        "origin": block["origin"],
        "policy": block["policy"],
        "version": block["version"],
        "start": pc.struct_field(block["start"], "kind"),
        "branch": pa.nulls(len(ids), pa.string()) if branch is None else pc.struct_field(branch, "parent"),
        "temperature": block["temperature"],
        "fault": block["fault"],
        "retries": block["retries"],
        "seconds": block["wall_s"],
        "group": pa.array([group for group, _, _ in places], pa.string()),
        "member": pa.array([member for _, member, _ in places], pa.int64()),
        "step": pa.array([step for _, _, step in places], pa.int64()),
    }
    return _SCHEMA.empty_table() if not ids else _typed(columns)


def _placed(name: str, tag: str, task: str, seed: int) -> tuple[str, int | None, int | None]:
    """The group of an episode, its number in it, and the step that collected it, as far as its names say.

    A run names its episodes `<group>/<member>`. Where the names say nothing, task, seed and tag make the group.
    """
    before, slash, last = unpack_text(name).rpartition("/")
    # Nine digits stay far below what an int64 column holds.
    numbered = bool(slash) and last.isdecimal() and len(last) < 10
    # NUL between the parts, so that no two lists of parts make one text.
    what = "\0".join((tag, task, str(seed), before if numbered else ""))
    # A digest, since names may hold anything and this becomes part of an address.
    digest = hashlib.blake2b(what.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    step = _STEP.fullmatch(tag)
    return digest, int(last) if numbered else None, int(step[1]) if step else None


def _typed(columns: dict[str, Any]) -> pa.Table:
    arrays = []
    for field in _SCHEMA:
        column = columns[field.name]
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        arrays.append(column.dictionary_encode() if field.name in _REPEATED else column.cast(field.type))
    return pa.table(dict(zip(_SCHEMA.names, arrays, strict=True)), schema=_SCHEMA)


_CODES = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("id", pa.string()),
        ("tag", _CODES),
        ("task", _CODES),
        ("split", _CODES),
        ("seed", pa.int64()),
        ("turns", pa.int64()),
        ("stop", _CODES),
        ("success", pa.bool_()),
        ("score", pa.float64()),
        ("reward", pa.float64()),
        ("origin", _CODES),
        ("policy", _CODES),
        ("version", pa.int64()),
        ("start", _CODES),
        ("branch", pa.string()),
        ("temperature", pa.float64()),
        ("fault", pa.string()),
        ("retries", pa.int64()),
        ("seconds", pa.float64()),
        ("group", pa.string()),
        ("member", pa.int64()),
        ("step", pa.int64()),
    ]
)
_EMPTY = _SCHEMA.empty_table()


def _channel_sums(store: TrajectoryStore, number: int, mine: pa.Table) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> [episodes] the sum of a reward or cost over an episode's turns, NaN where no turn has it."""
    rows, turns = mine["row"].to_numpy(), mine["turns"].to_numpy()
    sums: dict[str, np.ndarray[Any, Any]] = {}
    for first, block in store.columns(number, TABLES[1], ("rewards", "costs")):
        owners = owners_of_block(rows, turns, first, block.num_rows)
        for name in block.column_names:
            column = block[name].combine_chunks()
            parts, parents = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy()
            names, values = pc.struct_field(parts, "name"), pc.struct_field(parts, "value").to_numpy()
            for key in pc.unique(names).to_pylist():
                chosen = pc.equal(names, key).to_numpy(zero_copy_only=False)
                total = sums.setdefault(unpack_text(key), np.full(len(rows), np.nan))
                places = owners[parents[chosen]]
                kept = places >= 0
                # NaN means "no such part" and becomes 0 as soon as one is found.
                total[np.unique(places[kept])] = np.nan_to_num(total[np.unique(places[kept])])
                # `total[places] += ...` would add only one of several turns of the same episode.
                np.add.at(total, places[kept], values[chosen][kept])
    return sums


def owners_of_block(
    rows: np.ndarray[Any, Any], turns: np.ndarray[Any, Any], first: int, num_turns: int
) -> np.ndarray[Any, Any]:
    """The episode that each turn of a block belongs to, -1 where none of those given.

    Args:
        rows: [E] rows of a shard's episodes, ascending.
        turns: [E] how many turns each has.
        first: the row of the first episode of the block.
        num_turns: turns in the block.

    Returns:
        [num_turns] places among the E.
    """
    # Blocks hold whole episodes in the order of rows, so counting turns from `first` on names their owners.
    begin = int(np.searchsorted(rows, first))
    owners = np.repeat(np.arange(begin, len(rows)), turns[begin:])[:num_turns]
    return np.concatenate([owners, np.full(num_turns - len(owners), -1, owners.dtype)])


def _file_stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
