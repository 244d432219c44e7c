"""What reading somebody else's log gives: an evaluation, a report of what was read, and marks of the questions."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollwright.contracts import DataError, StopReason, episode_seed
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation

Key = tuple[str, int, int]
"""Task, seed and attempt of a row: what pairs it with a row of another evaluation."""

NOT_SAID = -1.0
"""The temperature of an evaluation whose log does not state one."""

# Narrower than `float`, which takes 1_000 and infinity as well.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRow:
    """One judged sample of a foreign log. `score` is None where the log holds no number for it.

    `question` is a hash of what was asked and of the expected answer; `prompt` one of the prompt. "" where not logged.
    """

    task: str
    seed: int
    attempt: int = 0
    score: float | None
    num_turns: int = 1
    stop_reason: StopReason = StopReason.TERMINATED
    fault: str = ""
    edited: bool = False
    question: str = ""
    prompt: str = ""

    @property
    def key(self) -> Key:
        """What pairs it with the same sample of another log."""
        return self.task, self.seed, self.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport:
    """What was read, so that a verdict on somebody else's log can be checked. `str` gives the lines to print.

    `choice` is the scorer, filter and metric that the scores came from. `facts` are settings that should agree between
    two logs (task version, epochs, limits ...), `warnings` what makes the scores less trustworthy.
    """

    file: str
    sha256: str
    reader: str
    rows_read: int
    num_scored: int
    num_faults: int
    num_unscored: int
    num_limited: int
    num_edited: int
    choice: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        chosen = "".join(f", {what} {name!r}" for what, name in self.choice.items() if name)
        counts = (
            f"{self.num_scored} scored, {self.num_faults} faulted, {self.num_unscored} unscored, "
            f"{self.num_limited} cut by a limit, {self.num_edited} with an edited score"
        )
        head = f"{self.file} ({self.reader}, sha256 {self.sha256[:12]}): {self.rows_read} rows read{chosen}"
        return "\n".join([head, f"  {counts}", *(f"  warning: {warning}" for warning in self.warnings)])


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReading:
    """An evaluation from any source. `report` and `rows` are None and empty for a record of our own."""

    evaluation: Evaluation
    report: LogReport | None = None
    rows: Mapping[Key, JudgedRow] = field(default_factory=dict)


def reading_of(
    rows: Sequence[JudgedRow],
    *,
    path: Path,
    sha256: str,
    reader: str,
    policy: str = "",
    world: str = "",
    world_version: str = "",
    temperature: float = NOT_SAID,
    choice: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> EvaluationReading:
    """Turn the rows of one log into an evaluation of origin "foreign".

    Scores that are all 0 or 1 become successes; other numbers are returns without a verdict. Unscored rows are counted
    and left out, because an absent score is not a score of 0. Faulted rows stay, as faults.

    Raises:
        DataError: no row was scored, or two rows have the same key.
    """
    by_key = {row.key: row for row in rows}
    if len(by_key) < len(rows):
        task, seed, attempt = next(key for key, count in Counter(row.key for row in rows).items() if count > 1)
        raise DataError(
            f"{path} holds {task!r} (attempt {attempt}) twice, under seed {seed}: one of the two is left over from "
            "another run. Remove it, or write the log anew"
        )
    faulted = [row for row in rows if row.stop_reason.is_fault]
    scored = [row for row in rows if row.score is not None and not row.stop_reason.is_fault]
    if not scored:
        raise DataError(
            f"{path} holds no score: of {len(rows)} rows {len(faulted)} faulted and {len(rows) - len(faulted)} are "
            "unscored. Name another scorer or metric, or score the log first"
        )
    # With one score in between, none of them is a verdict.
    binary = all(row.score in (0.0, 1.0) for row in scored)
    evaluation = Evaluation(
        # A file may have a name that an evaluation cannot have.
        name=re.sub(r"[^\w.-]+", "-", path.stem) or "log",
        # Seeds of foreign keys lie in the range of this split (`key_seed`).
        split="test",
        policy=policy,
        version=-1,
        temperature=temperature,
        rows=tuple(_episode(row, binary) for row in rows if row.stop_reason.is_fault or row.score is not None),
        sampling={},
        world=world,
        world_version=world_version,
        origin="foreign",
    )
    report = LogReport(
        file=path.name,
        sha256=sha256,
        reader=reader,
        rows_read=len(rows),
        num_scored=len(scored),
        num_faults=len(faulted),
        num_unscored=len(rows) - len(faulted) - len(scored),
        num_limited=sum(row.stop_reason.is_truncation for row in rows),
        num_edited=sum(row.edited for row in rows),
        choice=dict(choice or {}),
        facts=dict(facts or {}),
        warnings=tuple(warnings),
    )
    return EvaluationReading(evaluation=evaluation, report=report, rows=by_key)


def exact_number(value: object, *, what: str, words: Mapping[str, float] | None = None) -> float | None:
    """One score as a number; None where it is absent or NaN.

    Args:
        value: a number, a truth value, or text that is exactly a number, "True"/"False", or one of `words`.
        what: which score of which sample, for the error.
        words: further words with their values, such as C and I; compared as they are written.

    Raises:
        DataError: anything else. A guess would be a wrong score.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        known = {"True": 1.0, "False": 0.0, **(words or {})}
        if text in known:
            return known[text]
        if text.lower() == "nan" or not text:
            return None
        if not _NUMBER.fullmatch(text) or len(text) > 64:
            raise DataError(f"{what} is the text {text[:60]!r}; expected a number. {_OTHER}")
        value = float(text)
    if not isinstance(value, bool | int | float):
        raise DataError(f"{what} is a {type(value).__name__}; expected one number. {_OTHER}")
    try:
        number = float(value)
    # An int may be larger than any float.
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise DataError(f"{what} is infinite; expected a finite number. {_OTHER}")
    return None if math.isnan(number) else number


_OTHER = "Name another scorer or metric, or convert the scores to a CSV of task, seed and score"


def key_seed(*key: object) -> int:
    """A seed of the test split for a foreign key: the same key gives the same seed in every log."""
    return episode_seed("test", "foreign", *map(str, key))


def json_value(content: bytes, where: str) -> Any:
    """The value in a JSON text. Half a character (a lone surrogate) becomes "?", since no terminal can write it.

    Raises:
        DataError: it is not JSON, or nested too deeply.
    """
    try:
        found = json.loads(content)
        # Looks for the escapes of surrogates first, so that most logs are parsed once.
        if b"\\ud" in content.lower():
            found = json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    return found


def temperature_of(value: object) -> float:
    """The temperature that a log states; `NOT_SAID` where it states no finite number."""
    # A NaN fails both comparisons.
    if isinstance(value, int | float) and 0 <= value < 1e6:
        return float(value)
    return NOT_SAID


def content_hash(value: object) -> str:
    """A hash of any JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _episode(row: JudgedRow, binary: bool) -> EpisodeRow:
    score = 0.0 if row.score is None or row.stop_reason.is_fault else row.score
    return EpisodeRow(
        task=row.task,
        seed=row.seed,
        attempt=row.attempt,
        success=bool(score) if binary and not row.stop_reason.is_fault else None,
        total_return=score,
        num_turns=max(1, row.num_turns),  # an episode cut at 0 turns would count as one without room to act
        stop_reason=row.stop_reason,
        fault=row.fault,
    )
