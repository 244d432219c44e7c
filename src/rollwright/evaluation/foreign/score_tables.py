"""Scores in a CSV file with the columns task, seed and score: the way in for every other tool."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rollwright.contracts import SEEDS_PER_SPLIT, DataError
from rollwright.evaluation.foreign.log_reading import (
    EvaluationReading,
    JudgedRow,
    exact_number,
    file_hash,
    key_seed,
    reading_of,
)

READER = "table of scores"
MAX_ROWS = 5_000_000
_NEEDED = ("task", "seed")


def read_score_table(path: Path, *, metric: str | None = None) -> EvaluationReading:
    """One row per line; `attempt` is an optional column, and further columns are ignored.

    Args:
        path: comma-separated, or tab-separated where the name ends in `.tsv`; the first line names the columns.
        metric: the column of the scores (`score`).

    Raises:
        DataError: a column is missing, a score is not a number, or a start occurs twice.
    """
    column = metric or "score"
    rows = [_row(line, column, f"{path}, line {number}") for number, line in _lines(path, column)]
    return reading_of(rows, path=path, sha256=file_hash(path), reader=READER, choice={"metric": column})


def _lines(path: Path, column: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        # Some spreadsheets write a byte order mark; `csv` itself reads line breaks within quotes, hence newline="".
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict, for a quote without an end would swallow the rest of the file as one value.
            reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            names = list(reader.fieldnames or ())
            for name in (*_NEEDED, column):
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    hint = f" Is it {near[0]!r}? Rename it." if near else ""
                    raise DataError(f"{path} has no column {name!r}; its columns: {', '.join(names) or 'none'}.{hint}")
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise DataError(f"{path} has two columns {twice!r}: which of them counts cannot be said; rename one")
            for line in reader:
                if reader.line_num > MAX_ROWS:
                    raise DataError(f"{path} has more than {MAX_ROWS:,} lines")
                # DictReader keeps surplus values under the key None, and gives None for missing ones.
                if None in line or None in line.values():
                    raise DataError(f"{path}, line {reader.line_num}: expected {len(names)} values, as in the heading")
                # The line of the file and not the number of the row: a quoted value may span lines.
                yield reader.line_num, line
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error


def _row(line: Mapping[str, str], column: str, where: str) -> JudgedRow:
    # Blanks around a name would make another task of it.
    task, seed, attempt = line["task"].strip(), line["seed"].strip(), line.get("attempt", "0").strip()
    if not task or not seed:
        raise DataError(f"{where}: task and seed must not be empty, as they say which rows belong together")
    if not re.fullmatch(r"\d{1,9}", attempt):
        raise DataError(f"{where}: attempt is {attempt[:40]!r}; expected 0, 1, 2, ...")
    return JudgedRow(
        task=task,
        seed=_seed(task, seed),
        attempt=int(attempt),
        score=exact_number(line[column], what=f"{where}: {column}"),
    )


def _seed(task: str, seed: str) -> int:
    """A number keeps its distance to others, so that no two of a task can fall together; text is hashed."""
    # Eight digits stay within the range of the split; with leading zeros 01 and 1 would fall together.
    if re.fullmatch(r"0|[1-9]\d{0,7}", seed):
        return 2 * SEEDS_PER_SPLIT + int(seed)
    return key_seed(task, seed)
