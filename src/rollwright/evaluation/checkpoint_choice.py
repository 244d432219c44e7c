"""Which checkpoint of a run to keep: the one with the best score on held-out validation starts.

Choosing by the test split and then reporting that score as the result counts luck as skill, so evaluations on the test
split are never looked at here.

Sources: arXiv:2306.01324 (selection on tuning seeds only); arXiv:2311.00168 (select by score, not by reward).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rollwright.contracts import DataError
from rollwright.evaluation.attempt_figures import attempt_figures
from rollwright.evaluation.evaluation_files import load_evaluation
from rollwright.evaluation.evaluation_record import Evaluation
from rollwright.evaluation.evaluation_summary import summarise
from rollwright.maths.statistics import Interval

BEST, BEST_MARK = "best", "evaluation.txt"
"""Folder of the best policy in a run folder, and the file in it that names its evaluation."""
_STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointChoice:
    """The best of `num_candidates` evaluated checkpoints. `version` is that of its weights, `folder` where they lie,
    None where they are not kept."""

    evaluation: str
    version: int
    score: Interval
    num_candidates: int
    folder: Path | None

    def __str__(self) -> str:
        where = f"; its weights are in {self.folder}" if self.folder else "; its weights are not kept"
        if self.evaluation == "start":
            where = "; that is the policy which the run began with"
        return (
            f"best checkpoint by held-out score: {self.evaluation} with {self.score} on the validation split, of "
            f"{self.num_candidates} evaluated{where}"
        )


def best_checkpoint(run: str | Path) -> CheckpointChoice:
    """The evaluation with the highest validation score in `run/eval`, the earliest weights of equal ones.

    The score is the success rate, or the mean return where the tasks give no verdict. In a world of several attempts it
    is the accuracy of the last one.

    Raises:
        DataError: the run has no evaluation on the validation split.
    """
    folder = Path(run)
    found = [load_evaluation(path) for path in sorted((folder / "eval").glob("*.json")) if _is_evaluation(path)]
    candidates = [(one, score) for one in found if one.split == "validation" and (score := _score(one)) is not None]
    if not candidates:
        splits = ", ".join(sorted({one.split for one in found})) or "none"
        raise DataError(
            f"{folder} has no evaluation on the validation split (splits found: {splits}), so no checkpoint can be "
            "chosen. Set evaluation.split=validation and evaluation.every=N, and report the test split once"
        )
    best, score = max(candidates, key=lambda pair: (pair[1].point, -pair[0].version))
    return CheckpointChoice(
        evaluation=best.name,
        version=best.version,
        score=score,
        num_candidates=len(candidates),
        folder=_weights(folder, best),
    )


def _is_evaluation(path: Path) -> bool:
    # Other reports of a run lie in the same folder, and the reader of evaluations refuses them.
    return path.name not in ("calibration.json", "pairs.json")


def _score(evaluation: Evaluation) -> Interval | None:
    by_attempt, summary = attempt_figures(evaluation), summarise(evaluation)
    if by_attempt is not None:
        return by_attempt.accuracy[-1]
    # An interval is true whatever its numbers, so a success rate of 0 does not fall through.
    return summary.success or summary.mean_return


def _weights(run: Path, evaluation: Evaluation) -> Path | None:
    """Where the weights of an evaluation lie: a checkpoint of its step, the best one kept apart, or the last policy."""
    matched = _STEP.fullmatch(evaluation.name)
    # First, since the run deletes its older checkpoints as it goes on.
    places = [run / BEST] if _kept_as_best(run, evaluation) else []
    if matched:
        places.append(run / "checkpoints" / f"step_{int(matched[1]):06d}")
    elif evaluation.name == "final":
        places.append(run / "policy")
    return next((place for place in places if place.is_dir()), None)


def _kept_as_best(run: Path, evaluation: Evaluation) -> bool:
    # A run removes the mark before it exports the weights and writes it after, so half an export is never taken.
    mark = run / BEST / BEST_MARK
    # Bytes that are no UTF-8 must not stop a comparison: such a mark names no evaluation.
    return mark.is_file() and mark.read_text(encoding="utf-8", errors="replace").strip() == evaluation.name
