"""The checkpoint to keep is the best on the validation split; the test split is never looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwright.contracts import DataError, Split, StopReason, episode_seed
from rollwright.evaluation import EpisodeRow, Evaluation, best_checkpoint, save_evaluation


def save(folder: Path, name: str, solved: int, version: int, split: Split = "validation") -> None:
    rows = tuple(
        EpisodeRow(
            task=f"t{n % 2}",
            seed=episode_seed(split, n),
            attempt=0,
            success=n < solved,
            total_return=float(n < solved),
            num_turns=1,
            stop_reason=StopReason.TERMINATED,
        )
        for n in range(10)
    )
    save_evaluation(
        Evaluation(
            name=name, split=split, policy="p", version=version, temperature=0.0, rows=rows, sampling={}
        ),
        folder,
    )  # fmt: skip


def test_the_best_validation_score_wins_and_the_earlier_of_equal_ones(tmp_path: Path) -> None:
    for name, solved, version in (("step_00004", 3, 4), ("step_00008", 7, 8), ("step_00012", 7, 12), ("final", 5, 16)):
        save(tmp_path, name, solved, version)
    save(tmp_path, "judged", 10, 4, split="test")
    (tmp_path / "eval" / "calibration.json").write_text("{}")
    (tmp_path / "checkpoints" / "step_000008").mkdir(parents=True)
    found = best_checkpoint(tmp_path)
    assert (found.evaluation, found.version, found.num_candidates) == ("step_00008", 8, 4)
    assert found.score.point == 0.7 and found.folder == tmp_path / "checkpoints" / "step_000008"
    assert "best checkpoint by held-out score: step_00008 with 0.700 [" in str(found)


def test_weights_that_were_dropped_are_not_promised(tmp_path: Path) -> None:
    save(tmp_path, "step_00004", 9, 4)
    save(tmp_path, "final", 5, 16)
    assert best_checkpoint(tmp_path).folder is None and "are not kept" in str(best_checkpoint(tmp_path))
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "evaluation.txt").write_text("step_00004\n")
    assert best_checkpoint(tmp_path).folder == tmp_path / "best"


def test_a_run_judged_on_the_test_split_alone_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "final", 5, 16, split="test")
    with pytest.raises(DataError, match=r"splits found: test\).*evaluation.split=validation"):
        best_checkpoint(tmp_path)
