"""Rows of a file into a trajectory store, or into a file of tasks: streamed, and every row accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from rollwright.contracts import DataError, RunFolderError, Trajectory
from rollwright.models import ChatCodec
from rollwright.run_io import held
from rollwright.store.importers.encode_logs import encode
from rollwright.store.importers.log_files import read_rows
from rollwright.store.importers.log_records import Format, LeftOut, LoggedEpisode, LogRow, Report, RowError
from rollwright.store.store_checks import TABLES
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.store.turn_rows import unpack_text

# Episodes in memory at once; an import that is killed loses the ones that were not written yet, and reads them again.
SHARD = 256
# A unit is held in memory whole: without a limit one id on every row of a large file would take all of it.
MAX_UNIT = 10_000
ALREADY = "the store holds it already"
UNEXPECTED = "the format did not expect it"


def import_episodes(
    path: Path,
    form: Format,
    codec: ChatCodec | None,
    folder: Path | None,
    *,
    tag: str = "import",
    demonstrations: bool = False,
    left_out: LeftOut = lambda row, error: None,
) -> Report:
    """Append the episodes of a file to a store.

    Args:
        codec: writes the ids; None only reads, so that nothing can be stored.
        folder: the store's; None stores nothing (a dry run).
        demonstrations: an episode that the file gives no verdict of counts as a success.
        left_out: told of each row that is not used.

    Raises:
        DataError: the file cannot be read, or a store is named and no codec.
        RunFolderError: the store cannot be written; what was written before stays, and the same import goes on.
    """
    if folder is not None and codec is None:
        raise DataError("a store holds token ids: name the model that will learn from it (--model)")
    with ExitStack() as stack:
        # A stack, as the lock of a new store is taken at the first write and held to the end of the import.
        target = Target(folder, tag, stack)
        return _read(path, form, codec, target.write, target.names(), demonstrations, left_out)


class Target:
    """The store that is appended to, and held against other processes. A new one is made when there is something to
    keep, so that a mistaken command leaves no folder behind.

    Args:
        folder: None keeps nothing.
        stack: holds the store's lock.
    """

    def __init__(self, folder: Path | None, tag: str, stack: ExitStack) -> None:
        self._folder, self._tag, self._stack = folder, tag, stack
        self._store: TrajectoryStore | None = None
        if folder is not None and (folder / TABLES[0]).is_dir():
            self._open(folder)

    def _open(self, folder: Path) -> TrajectoryStore:
        self._stack.enter_context(held(folder))
        self._store = TrajectoryStore(folder)
        return self._store

    def names(self) -> set[str]:
        """The episodes that are there already."""
        return {unpack_text(row["id"]) for _, row in self._store.headers()} if self._store else set()

    def write(self, batch: Sequence[Trajectory]) -> None:
        """Append; whole on the disk when this returns."""
        if self._folder is not None and batch:
            store = self._store if self._store is not None else self._open(self._folder)
            store.append(batch, tag=self._tag)


def _read(
    path: Path,
    form: Format,
    codec: ChatCodec | None,
    write: Callable[[Sequence[Trajectory]], Any],
    there: set[str],
    demonstrations: bool,
    left_out: LeftOut,
) -> Report:
    report, batch = Report(), list[Trajectory]()
    # What the store held before is another reason to leave a row out than an id that the file holds twice.
    stored = frozenset(there)

    def take(rows: Sequence[LogRow], name: str) -> None:
        # Each step below may refuse the unit: nothing is counted before the last of them is done.
        episodes: Sequence[LoggedEpisode] = converted(form, rows, name)
        _require_unique([episode.name for episode in episodes], stored, there)
        if demonstrations:
            episodes = [replace(e, success=True) if e.success is None else e for e in episodes]
        if codec is not None:
            # A list and not a generator: if the second of a preference is refused, the first must not be in the batch.
            batch.extend([encode(episode, codec, name=episode.name) for episode in episodes])
        there.update(episode.name for episode in episodes)
        report.records += len(episodes)
        report.turns += sum(len(episode.steps) for episode in episodes)
        # Once per episode, however many of its messages have it.
        report.notes.update(note for episode in episodes for note in dict.fromkeys(episode.notes))
        if len(batch) >= SHARD:
            write(batch)
            batch.clear()

    each_unit(path, form, take, report, left_out)
    write(batch)
    return report


def import_tasks(
    path: Path, form: Format, target: Path | None, *, left_out: LeftOut = lambda row, error: None
) -> Report:
    """Write the tasks of a file as JSON lines, for a world that reads them; the file appears whole or not at all.

    Raises:
        DataError: the file cannot be read. RunFolderError: the target is there already, or cannot be written.
    """
    # Before anything is read, which may take long.
    if target is not None and target.exists():
        raise RunFolderError(f"{target} is there already: name another file, or delete it")
    report, names = Report(), set[str]()

    def take(rows: Sequence[LogRow], name: str) -> None:
        tasks: Sequence[dict[str, Any]] = converted(form, rows, name)
        _require_unique([task["id"] for task in tasks], frozenset(), names)
        write([json.dumps(task) for task in tasks])
        names.update(task["id"] for task in tasks)
        report.records += len(tasks)

    with _new_file(target) as write:
        each_unit(path, form, take, report, left_out)
    return report


@contextmanager
def _new_file(target: Path | None) -> Iterator[Callable[[Sequence[str]], None]]:
    """Writes lines beside the target, which is there at the end: whole, and only where there was a line."""
    if target is None:
        yield lambda lines: None
        return
    beside = target.with_name(f".{target.name}.writing")
    # Opened at the first line, so that a file without a task leaves nothing behind.
    opened: list[IO[str]] = []

    def write(lines: Sequence[str]) -> None:
        if not opened:
            target.parent.mkdir(parents=True, exist_ok=True)
            opened.append(beside.open("w", encoding="utf-8"))
        opened[0].writelines(f"{line}\n" for line in lines)

    try:
        yield write
        if opened:
            opened[0].close()
            beside.replace(target)
    except OSError as error:
        raise RunFolderError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        for file in opened:
            file.close()
        beside.unlink(missing_ok=True)


def converted(form: Format, rows: Sequence[LogRow], name: str) -> Sequence[Any]:
    """The records of a unit.

    Raises:
        RowError: it has none; also where the format itself fails on it, which is then said in these words.
    """
    try:
        return form.convert(rows, name)
    except RowError:
        raise
    # What the reader of JSON just managed may still be too deep for the walks over it (`whole_json`).
    except RecursionError as error:
        raise RowError("nested too deep") from error
    except Exception as error:  # a format of the user's own may meet what it did not expect
        raise RowError(UNEXPECTED, f"{type(error).__name__}: {error}") from error


def _require_unique(names: Sequence[str], stored: frozenset[str], there: set[str]) -> None:
    for at, name in enumerate(names):
        if name in stored:
            raise RowError(ALREADY, repr(name))
        if name in there or name in names[:at]:
            raise RowError("its id was there before", repr(name))


def each_unit(
    path: Path, form: Format, take: Callable[[Sequence[LogRow], str], None], report: Report, left_out: LeftOut
) -> None:
    """Give the rows of each unit to `take`; a unit that it refuses costs all of its rows, each counted."""

    def drop(rows: Sequence[LogRow], error: RowError) -> None:
        for row in rows:
            report.leave_out(row, error)
            left_out(row, error)

    # Part of every name: otherwise line 1 of a second file would be in the store already.
    source = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    for rows in _units(read_rows(path), form, report, drop):
        try:
            take(rows, f"{source}/{_name_of(rows, form)}")
            report.used += len(rows)
        except RowError as error:
            drop(rows, error)


def _name_of(rows: Sequence[LogRow], form: Format) -> str:
    given = form.unit(rows[0].value) if form.unit else None
    given = rows[0].value.get("id") if given is None else given
    # True and False are ints in Python; 0 is an id, the empty text is none.
    if isinstance(given, str | int) and not isinstance(given, bool) and given != "":
        # As `whole_text`: names are stored and printed, and half a surrogate pair is neither.
        return str(given).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if given not in (None, ""):
        raise RowError("an id that is neither text nor a whole number", repr(given))
    return rows[0].place


def _units(
    rows: Iterator[LogRow], form: Format, report: Report, drop: Callable[[Sequence[LogRow], RowError], None]
) -> Iterator[list[LogRow]]:
    """Rows that belong together, in order. What cannot be read is dropped here; it does not part a unit."""
    unit: list[LogRow] = []
    key: Hashable = None
    for row in rows:
        report.read += 1
        try:
            if row.bad is not None:
                raise row.bad
            found = form.unit(row.value) if form.unit else None
            # TypeError where a format gave a list or a map as the id of a unit.
            hash(found)
        except RowError as error:
            drop([row], error)
            continue
        except TypeError:
            drop([row], RowError("an id that is neither text nor a whole number"))
            continue
        if unit and (form.alone or found is None or found != key):
            yield unit
            unit = []
        if len(unit) == MAX_UNIT:
            drop([*unit, row], RowError(f"an episode of more than {MAX_UNIT} rows"))
            unit = []
            continue
        key = found
        unit.append(row)
    if unit:
        yield unit
