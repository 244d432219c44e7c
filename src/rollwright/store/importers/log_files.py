"""The rows of a file: JSON lines, JSON, Parquet, a `datasets` folder, or a folder of such files. Read as a stream.

What cannot be read costs its row: a torn line, bytes that are no UTF-8, a value that JSON does not have (NaN). Nothing
that a row holds is ever evaluated.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from rollwright.contracts import SPLITS, DataError, MissingDependency, Split
from rollwright.store.importers.log_records import LogRow, RowError, strict_json
from rollwright.store.importers.tfrecord import tfrecord_rows

LINES, WHOLE, PARQUET, RECORDS = (".jsonl", ".ndjson"), (".json",), (".parquet",), (".tfrecord", ".tfrecords")
LIST = "[]"
"""The one key of a row that is a list in its file."""
# A file without a line feed would otherwise be read into memory whole.
MAX_LINE = 64 * 2**20
ROW_KEYS = ("data", "rows", "train", "examples", "episodes")
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_SPLIT_WORDS: dict[str, Split] = {**{split: split for split in SPLITS}, "dev": "validation", "valid": "validation"}


def read_rows(path: Path) -> Iterator[LogRow]:
    """Every row of a file or folder, in order.

    Raises:
        DataError: there is no such file, or nothing in it can be read as rows.
    """
    if not path.exists():
        raise DataError(f"there is no file {path}: name a .jsonl, .json or .parquet file, or a folder of `datasets`")
    if not path.is_dir():
        yield from _file_rows(path, prefix="")
    # What `save_to_disk` leaves: the first of a DatasetDict, the second of a Dataset.
    elif any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        yield from _dataset_rows(path)
    else:
        # Sorted, as a folder lists its files in any order and a store keeps the order of the import.
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and _kind(file)]
        if not files:
            raise DataError(f"{path} holds no file of rows: expected .jsonl, .json or .parquet, or a `datasets` folder")
        for file in files:
            yield from _file_rows(file, prefix=f"{file.relative_to(path)} ")


def _kind(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    if _PART.search(name):  # as data sets of TensorFlow are cut up
        return RECORDS[0]
    return next((kind for kind in (*LINES, *WHOLE, *PARQUET, *RECORDS) if name.endswith(kind)), "")


def _file_rows(path: Path, prefix: str) -> Iterator[LogRow]:
    kind = _kind(path)
    if kind in PARQUET:
        yield from _parquet_rows(path, prefix)
    elif kind in LINES:
        with _opened(path) as file:
            yield from _line_rows(file, prefix)
    elif kind in RECORDS:
        with _opened(path) as file:
            yield from tfrecord_rows(file, prefix)
    elif kind in WHOLE:
        yield from _json_rows(path, prefix)
    else:
        raise DataError(
            f"{path}: expected a file that ends in {', '.join((*LINES, *WHOLE, *PARQUET, *RECORDS))} (or .gz)"
        )


def _opened(path: Path) -> IO[bytes]:
    """The file, unpacked where it is packed: the published TFRecord files are, without an ending that says so."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


def _line_rows(file: IO[bytes], prefix: str) -> Iterator[LogRow]:
    number = 0
    try:
        # One byte more than is allowed, which tells a line that is too long from one that just fits.
        while line := file.readline(MAX_LINE + 1):
            number += 1
            place = f"{prefix}line {number}"
            if len(line) > MAX_LINE:
                # The rest of the line is thrown away in pieces, so that the next row begins at its own line.
                while not line.endswith(b"\n") and (line := file.readline(MAX_LINE)):
                    pass
                yield LogRow(place=place, bad=RowError(f"a line of more than {MAX_LINE} bytes"))
            elif line.strip().removeprefix(b"\xef\xbb\xbf"):  # a byte-order mark, as some editors write it
                yield _parsed(line.removeprefix(b"\xef\xbb\xbf"), place)
    except (OSError, EOFError, zlib.error) as error:  # a .gz that is torn: what came before it is read
        yield LogRow(place=f"{prefix}line {number + 1}", bad=RowError("the file is damaged from here on", error))


def _parsed(line: bytes, place: str) -> LogRow:
    try:
        # Decoded by hand: `json.loads` of bytes guesses UTF-16 and UTF-32 from their zeros.
        return _row(strict_json(line.decode().strip()), place)
    except UnicodeDecodeError as error:
        return LogRow(place=place, bad=RowError("not UTF-8", error))
    # This and UnicodeDecodeError are ValueErrors: both must stand before the last handler.
    except json.JSONDecodeError as error:
        return LogRow(place=place, bad=RowError("not JSON", f"{error.msg}: character {error.pos + 1}"))
    except (ValueError, RecursionError) as error:
        return LogRow(place=place, bad=RowError("not JSON", error))


def _row(value: Any, place: str, split: Split | None = None) -> LogRow:
    # Chess and mazes of LMRL-Gym are bare lists of steps; a row is a map everywhere else.
    if isinstance(value, list):
        return LogRow(place=place, value={LIST: value}, split=split)
    if not isinstance(value, Mapping):
        return LogRow(place=place, bad=RowError("the row is not an object", repr(value)[:80]))
    return LogRow(place=place, value=value, split=split)


def _json_rows(path: Path, prefix: str) -> Iterator[LogRow]:
    try:
        with _opened(path) as file:
            found = strict_json(file.read().removeprefix(b"\xef\xbb\xbf").decode())
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}. Are these JSON lines? Then name it .jsonl") from error
    if isinstance(found, Mapping):
        found = next((found[key] for key in ROW_KEYS if isinstance(found.get(key), list)), None)
    if not isinstance(found, list):
        raise DataError(f"{path} holds no list of rows: expected [...] or an object with one of {', '.join(ROW_KEYS)}")
    for number, value in enumerate(found, start=1):
        yield _row(value, f"{prefix}row {number}")


def _parquet_rows(path: Path, prefix: str) -> Iterator[LogRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for value in batch.to_pylist():
                    number += 1
                    yield _row(value, f"{prefix}row {number}")
    except (pa.ArrowException, OSError, ValueError) as error:
        # Nothing was read: the file as a whole is no Parquet. Later it is damage, which costs only the rest.
        if not number:
            raise DataError(f"{path} cannot be read as Parquet: {error}") from error
        yield LogRow(place=f"{prefix}row {number + 1}", bad=RowError("the file is damaged from here on", error))


def _dataset_rows(path: Path) -> Iterator[LogRow]:
    try:
        from datasets import Dataset, load_from_disk
    except ImportError as error:
        raise MissingDependency("a folder of `datasets` needs the package: pip install datasets") from error
    try:
        found = load_from_disk(str(path))
    except Exception as error:  # a foreign folder fails in any way
        raise DataError(f"{path} cannot be opened by `datasets`: {type(error).__name__}: {error}") from error
    parts = {"": found} if isinstance(found, Dataset) else dict(found)
    for name, part in parts.items():
        split = _SPLIT_WORDS.get(name)
        if name and split is None:
            # Not read as train, as the part may be held out; counted row by row, so that the report adds up.
            bad = RowError("a part of the data set that is no known split", name)
            yield from (LogRow(place=f"{name} row {number}", bad=bad) for number in range(1, len(part) + 1))
            continue
        # By number and not by iteration: one row that cannot be decoded would end an iterator for the rest.
        for number in range(len(part)):
            place = f"{name} row {number + 1}".strip()
            try:
                yield _row(part[number], place, split)
            except Exception as error:  # a picture that cannot be decoded, say
                yield LogRow(place=place, bad=RowError("the row cannot be read", error))
