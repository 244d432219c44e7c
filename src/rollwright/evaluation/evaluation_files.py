"""Evaluations as JSON files: the head, the figures, and one row per episode."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from rollwright.contracts import DataError, RunFolderError, StopReason
from rollwright.evaluation.attempt_figures import attempt_figures
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.evaluation.evaluation_summary import summarise
from rollwright.run_io import open_regular, seal_fault, sealed

EVALUATION_VERSION = 1
_OF_ATTEMPTS = ("attempt_rewards", "attempt_edits")


def save_evaluation(evaluation: Evaluation, run_folder: str | Path) -> Path:
    """Write `eval/<name>.json` in the run folder; the file is whole or absent.

    Raises:
        RunFolderError: it cannot be written.
    """
    path = Path(run_folder) / "eval" / f"{evaluation.name}.json"
    # With the process id two processes never write into each other's half.
    temporary = path.with_suffix(f".tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(to_json(evaluation))
            file.flush()
            # A loss of power could otherwise leave the new name on an empty file.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(
            f"the evaluation {path} cannot be written: {error.strerror}. Evaluations written before are safe"
        ) from error
    return path


def load_evaluation(path: str | Path) -> Evaluation:
    """Read what `save_evaluation` wrote. Figures are computed from the rows, never read.

    Raises:
        DataError: no such file, not an evaluation, one of another version, or one that was changed since.
    """
    try:
        with open_regular(Path(path)) as file:
            document = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no evaluation {path}") from None
    # RecursionError: JSON may be nested thousands deep.
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as an evaluation: {error}") from error
    if not isinstance(document, dict) or "evaluation_version" not in document:
        raise DataError(
            f"{path} is not an evaluation: expected a file eval/*.json that a run or recipes/evaluate.py wrote"
        )
    found = document["evaluation_version"]
    if found != EVALUATION_VERSION:
        raise DataError(f"{path} has evaluation version {found}; this release reads version {EVALUATION_VERSION}")
    if fault := seal_fault(document):
        raise DataError(f"{path} is damaged or was edited: {fault}; evaluate again")
    try:
        return _from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} lacks a field of an evaluation or has an odd one: {error!r}") from error


def to_json(evaluation: Evaluation) -> str:
    """Head, `summary`, a seal over all of it, `columns`, and one list per episode under `episodes`, a line each."""
    head = {field.name: getattr(evaluation, field.name) for field in fields(Evaluation) if field.name != "rows"}
    by_attempt = attempt_figures(evaluation)
    # Where the world has one attempt, the file is the same as before there were figures by attempt.
    idle = () if by_attempt else _OF_ATTEMPTS
    # The same where nothing was searched.
    idle = idle if any(row.env_calls is not None for row in evaluation.rows) else (*idle, "env_calls")
    columns = [field.name for field in fields(EpisodeRow) if field.name not in idle]
    document = {
        "evaluation_version": EVALUATION_VERSION,
        **head,
        "summary": without_infinity(asdict(summarise(evaluation))),
        **({"by_attempt": without_infinity(asdict(by_attempt))} if by_attempt else {}),
        "columns": columns,
    }
    rows = [[found[name] for name in columns] for found in map(asdict, evaluation.rows)]
    # The seal covers the episodes as well; they are then written by hand, one to a line.
    whole = sealed({**document, "episodes": rows})
    del whole["episodes"]
    episodes = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    # The last two characters are the line break and the brace that close the document.
    return json.dumps(whole, indent=1, allow_nan=False)[:-2] + f',\n "episodes": [\n{episodes}\n]}}\n'


def _from_json(document: Mapping[str, Any]) -> Evaluation:
    rows = [dict(zip(document["columns"], values, strict=True)) for values in document["episodes"]]
    head = {
        # Records of older releases lack the fields that came later, and those have defaults.
        field.name: document[field.name] if field.default is MISSING else document.get(field.name, field.default)
        for field in fields(Evaluation)
        if field.name != "rows"
    }
    for row in rows:
        # JSON has lists alone, and rows are compared with rows that hold tuples.
        row |= {name: tuple(map(float, row[name])) for name in _OF_ATTEMPTS if name in row}
    episodes = (EpisodeRow(**(row | {"stop_reason": StopReason(row["stop_reason"])})) for row in rows)
    return Evaluation(rows=tuple(episodes), **head)


def without_infinity(value: Any) -> Any:
    """JSON has no infinity: the open ends of an interval become null."""
    if isinstance(value, dict):
        return {key: without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinity(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
