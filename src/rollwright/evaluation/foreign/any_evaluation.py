"""One way in for every kind of evaluation: ours, inspect_ai's, lm-evaluation-harness's, or a table of scores."""

from __future__ import annotations

from pathlib import Path

from rollwright.contracts import DataError
from rollwright.evaluation.evaluation_files import load_evaluation
from rollwright.evaluation.foreign.inspect_logs import read_inspect_log
from rollwright.evaluation.foreign.lm_eval_logs import find_sample_file, read_lm_eval_log
from rollwright.evaluation.foreign.log_reading import EvaluationReading
from rollwright.evaluation.foreign.score_tables import read_score_table

SUFFIXES = (".eval", ".jsonl", ".csv", ".tsv")
"""Of files that are somebody else's logs."""


def read_any_evaluation(
    path: str | Path, *, scorer: str | None = None, filter_name: str | None = None, metric: str | None = None
) -> EvaluationReading:
    """Read an evaluation of any tool, by the ending of its name.

    Args:
        path: our `eval/*.json`, an inspect_ai `.eval`, an lm-eval `samples_*.jsonl` or the folder that holds one, or a
            `.csv` or `.tsv` with the columns task, seed and score.
        scorer: for inspect_ai, whose scores to take.
        filter_name: for lm-eval, which filter's scores to take.
        metric: for lm-eval the metric, for a table the column of the scores.

    Raises:
        DataError: no such file, not one of these kinds, an option that the kind does not have, or as the readers.
        MissingDependency: the log needs a package that is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no evaluation {path}")
    if path.is_dir():
        # Of all these kinds only lm-eval is known by its folder; of a run folder the caller picks a file.
        path = find_sample_file(path)
    # Readers open a path twice or seek in it, and the open of a pipe waits for a writer.
    if not path.is_file():
        raise DataError(f"{path} is a pipe or a device; expected a file: write the log to one first")
    given = {"scorer": scorer, "filter": filter_name, "metric": metric}
    # By the name alone: each reader checks the content itself.
    match path.suffix:
        case ".eval":
            _refuse(given, ("scorer",), path)
            return read_inspect_log(path, scorer=scorer)
        case ".jsonl":
            _refuse(given, ("filter", "metric"), path)
            return read_lm_eval_log(path, filter_name=filter_name, metric=metric)
        case ".csv" | ".tsv":
            _refuse(given, ("metric",), path)
            return read_score_table(path, metric=metric)
        case ".json":
            _refuse(given, (), path)
            return EvaluationReading(evaluation=load_evaluation(path))
    raise DataError(
        f"{path} is not an evaluation that can be read: expected eval/*.json of a run, an inspect_ai .eval, an lm-eval "
        "samples_*.jsonl, or a .csv with the columns task, seed and score"
    )


def is_foreign_log(path: str | Path) -> bool:
    """Whether a path names somebody else's log, by the ending of its name or by what lies in the folder."""
    path = Path(path)
    return path.suffix in SUFFIXES or (path.is_dir() and any(path.glob("samples_*.jsonl")))


def _refuse(given: dict[str, str | None], taken: tuple[str, ...], path: Path) -> None:
    """An option that has no effect on this kind of log is an error, not ignored."""
    for name, value in given.items():
        if value is not None and name not in taken:
            has = ", ".join(f"--{option}" for option in taken) or "none"
            raise DataError(f"--{name} has no meaning for {path.name}; options for this kind of file: {has}")
