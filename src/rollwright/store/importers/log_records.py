"""What an importer makes of a row: an episode in plain text, or the reason why the row is left out. No tokens yet."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollwright.contracts import MAX_REWARD, SPLITS, Message, Split, StopReason, Task

Values = Mapping[str, Any]


class RowError(ValueError):
    """A row that cannot be imported.

    Args:
        kind: the reason, the same words for every row that has it: rows are counted by it.
        detail: what it is in this row.
    """

    def __init__(self, kind: str, detail: object = "") -> None:
        # The kind is a key of the report, so nothing of the row may stand in it; the detail may be a whole document.
        self.kind, self.detail = kind, str(detail)[:200]
        super().__init__(f"{kind}: {self.detail}" if self.detail else kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One row of a file. `place` names it for a person; `split` is that of a `datasets` folder; `bad` says why it could
    not even be read."""

    place: str
    value: Values = field(default_factory=dict)
    split: Split | None = None
    bad: RowError | None = None


LeftOut = Callable[[LogRow, RowError], None]
"""Told of each row that is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was shown since the step before, and what was answered. `trained` False: shown, but never imitated."""

    observed: tuple[Message, ...]
    action: str
    reward: float | None = None
    trained: bool = True
    state_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEpisode:
    """One logged episode. `name` is unique within its file; `notes` count what was read but is not learned from."""

    name: str
    task: Task
    steps: tuple[Step, ...]
    success: bool | None = None
    stop_reason: StopReason = StopReason.TERMINATED
    seed: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Format:
    """How the rows of one kind of file become records.

    Args:
        says: one line for `--help`.
        convert: the rows of one unit -> its records; raises RowError.
        unit: the unit that a row belongs to, such as its episode; rows of one unit stand together. None: each is one,
            and so is a row for which it gives None.
        alone: each row is a unit, and `unit` only names it.
        tasks: records are tasks (plain maps for a file of JSON lines), not episodes.
        takes_repositories: `convert` takes a folder of repositories as well.
    """

    says: str
    convert: Callable[..., Sequence[Any]]
    unit: Callable[[Values], Hashable] | None = None
    alone: bool = False
    tasks: bool = False
    takes_repositories: bool = False


@dataclass
class Report:
    """How many rows were read, used and left out, and why: the counts always add up."""

    read: int = 0
    used: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    records: int = 0
    turns: int = 0

    def leave_out(self, row: LogRow, error: RowError) -> None:
        """Count a row that is not used."""
        self.left_out[error.kind] += 1
        shown = f"{error.detail} ({row.place})" if error.detail else row.place
        self.examples.setdefault(error.kind, shown)

    def __str__(self) -> str:
        lines = [f"{self.read} rows read, {self.used} used, {self.left_out.total()} left out"]
        lines += [f"  {count:6d} left out: {kind}, such as {self.examples[kind]}" for kind, count in self._sorted()]
        lines += [f"  {count:6d} used, but: {note}" for note, count in sorted(self.notes.items())]
        return "\n".join(lines)

    def _sorted(self) -> list[tuple[str, int]]:
        return sorted(self.left_out.items(), key=lambda entry: (-entry[1], entry[0]))


def whole_text(value: Any, what: str) -> str:
    """A text; half a surrogate pair, which JSON can spell and no tokenizer takes, becomes U+FFFD.

    Raises:
        RowError: it is no text.
    """
    if not isinstance(value, str):
        raise RowError(f"{what} is not text", repr(value))
    # UTF-16 joins two halves that JSON spelt apart, and replaces one that is alone.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def whole_json(value: Any) -> Any:
    """JSON with every text in it made whole. Raises RowError for what JSON does not have (a date, bytes, NaN)."""
    if isinstance(value, str):
        return whole_text(value, "a text")
    if isinstance(value, Mapping):
        return {whole_text(key, "a key"): whole_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [whole_json(inner) for inner in value]
    # NaN and infinity pass `json.dumps`, and no strict reader takes back what it writes.
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise RowError("a value that JSON does not have", repr(value))


def strict_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError or RecursionError; for NaN and Infinity too, which JSON lacks."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"JSON has no {constant}")

    # Python's own reader takes NaN and Infinity; `parse_constant` is called for these alone.
    return json.loads(text, parse_constant=refuse)


def number(value: Any, what: str) -> float:
    """A finite number. Raises RowError."""
    # `bool` is a subclass of `int`: true is no reward of 1.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{what} is not a number", repr(value))
    try:
        found = float(value)
    except OverflowError:  # an int beyond float64
        found = math.inf
    # `not (x <= y)` refuses NaN too, which a Parquet column may bring; 1e999 in JSON is infinity.
    if not abs(found) <= MAX_REWARD:
        raise RowError(f"{what} is not a finite number", repr(value))
    return found


def whole_number(value: Any, what: str) -> int:
    """A whole number, 0 or more. Raises RowError."""
    # A seed is an int64 column: a larger one would fail when the shard is written, long after its row.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise RowError(f"{what} is not a whole number of 0 or more", repr(value))
    return value


def verdict(value: Any, what: str) -> bool | None:
    """True, False (1 and 0 count), or None where there is none. Raises RowError."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise RowError(f"{what} is neither true nor false", repr(value))


def split_of(row: LogRow, values: Values) -> Split:
    """The row's own `split`, else that of its folder, else train. Raises RowError."""
    # `or`: Arrow gives a row without a split a null, other tools an empty text.
    given = values.get("split") or row.split or "train"
    found = next((split for split in SPLITS if split == given), None)
    if found is None:
        raise RowError(f"`split` is none of {', '.join(SPLITS)}", repr(given))
    return found


def listed(value: Any, what: str) -> list[Any]:
    """A list that is not empty. Raises RowError."""
    if not isinstance(value, list | tuple):
        raise RowError(f"{what} is not a list", repr(value))
    if not value:
        raise RowError(f"{what} is empty")
    return list(value)


def texts(value: Any, what: str) -> list[str]:
    """A list of texts; empty where there is none. Raises RowError."""
    return [] if value is None or value == [] else [whole_text(text, what) for text in listed(value, what)]


def mapping(value: Any, what: str) -> Values:
    """A map. Raises RowError."""
    if not isinstance(value, Mapping):
        raise RowError(f"{what} is not an object", repr(value))
    return value
