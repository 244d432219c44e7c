"""Rows of a file into a trajectory store, or into a file of tasks: streamed, and every row accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollwright.codec import ChatCodec
from rollwright.errors import DataError, RunFolderError
from rollwright.importers.encode import encode
from rollwright.importers.files import read_rows
from rollwright.importers.records import Episode, Format, LeftOut, Report, Row, RowError
from rollwright.run_lock import held
from rollwright.store import TrajectoryStore
from rollwright.store_rows import unpack_text
from rollwright.types import Trajectory

SHARD = 256
MAX_UNIT = 10_000
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
    if folder is None:
        return _read(path, form, codec, lambda batch: None, set(), demonstrations, left_out)
    if codec is None:
        raise DataError("a store holds token ids: name the model that will learn from it (--model)")
    store = TrajectoryStore(folder)
    with held(store.folder):
        store.rescan()
        there = {unpack_text(row["id"]) for _, row in store.headers()}
        return _read(path, form, codec, lambda batch: store.append(batch, tag=tag), there, demonstrations, left_out)


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
    stored = frozenset(there)

    def take(rows: Sequence[Row], name: str) -> None:
        episodes: Sequence[Episode] = converted(form, rows, name)
        _require_unique([episode.name for episode in episodes], stored, there)
        if demonstrations:
            episodes = [replace(e, success=True) if e.success is None else e for e in episodes]
        if codec is not None:
            batch.extend([encode(episode, codec, name=episode.name) for episode in episodes])
        there.update(episode.name for episode in episodes)
        report.records += len(episodes)
        report.turns += sum(len(episode.steps) for episode in episodes)
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
    if target is not None and target.exists():
        raise RunFolderError(f"{target} is there already: name another file, or delete it")
    report, lines, names = Report(), list[str](), set[str]()

    def take(rows: Sequence[Row], name: str) -> None:
        tasks: Sequence[dict[str, Any]] = converted(form, rows, name)
        _require_unique([task["id"] for task in tasks], frozenset(), names)
        lines.extend([json.dumps(task) for task in tasks])
        names.update(task["id"] for task in tasks)
        report.records += len(tasks)

    each_unit(path, form, take, report, left_out)
    if target is not None and lines:
        beside = target.with_name(f".{target.name}.writing")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
            beside.replace(target)
        except OSError as error:
            raise RunFolderError(f"{target} cannot be written: {error.strerror or error}") from error
    return report


def converted(form: Format, rows: Sequence[Row], name: str) -> Sequence[Any]:
    """The records of a unit.

    Raises:
        RowError: it has none; also where the format itself fails on it, which is then said in these words.
    """
    try:
        return form.convert(rows, name)
    except RowError:
        raise
    except RecursionError as error:
        raise RowError("nested too deep") from error
    except Exception as error:  # a format of the user's own may meet what it did not expect
        raise RowError(UNEXPECTED, f"{type(error).__name__}: {error}") from error


def _require_unique(names: Sequence[str], stored: frozenset[str], there: set[str]) -> None:
    for at, name in enumerate(names):
        if name in stored:
            raise RowError("the store holds it already", repr(name))
        if name in there or name in names[:at]:
            raise RowError("its id was there before", repr(name))


def each_unit(
    path: Path, form: Format, take: Callable[[Sequence[Row], str], None], report: Report, left_out: LeftOut
) -> None:
    """Give the rows of each unit to `take`; a unit that it refuses costs all of its rows, each counted."""

    def drop(rows: Sequence[Row], error: RowError) -> None:
        for row in rows:
            report.leave_out(row, error)
            left_out(row, error)

    source = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    for rows in _units(read_rows(path), form, report, drop):
        try:
            take(rows, f"{source}/{_name_of(rows, form)}")
            report.used += len(rows)
        except RowError as error:
            drop(rows, error)


def _name_of(rows: Sequence[Row], form: Format) -> str:
    given = form.unit(rows[0].value) if form.unit else None
    given = rows[0].value.get("id") if given is None else given
    if isinstance(given, str | int) and not isinstance(given, bool) and given != "":
        return str(given).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if given not in (None, ""):
        raise RowError("an id that is neither text nor a whole number", repr(given))
    return rows[0].place


def _units(
    rows: Iterator[Row], form: Format, report: Report, drop: Callable[[Sequence[Row], RowError], None]
) -> Iterator[list[Row]]:
    """Rows that belong together, in order. What cannot be read is dropped here; it does not part a unit."""
    unit: list[Row] = []
    key: Hashable = None
    for row in rows:
        report.read += 1
        try:
            if row.bad is not None:
                raise row.bad
            found = form.unit(row.value) if form.unit else None
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
