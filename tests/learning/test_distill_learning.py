"""Distillation on a lock: a student that guesses learns four digits from a teacher that is asked at its own states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from rollwright.run_io.tracking import read_metrics

pytestmark = pytest.mark.slow
Run = Callable[..., None]
LOCK = "world.options={lengths: [4], wording: compact, slip: over, hints: kept%s}"
SMALL = ["model.tiny_hidden=32", "model.tiny_layers=1"]


@pytest.fixture(scope="module")
def guesser(run_recipe: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that has seen sixteen locks opened, and answers with either digit."""
    folder = tmp_path_factory.mktemp("lock")
    many = LOCK % f", numbers: {list(range(1, 17))}"
    run_recipe("collect.py", "text/lock_hint_collect.yaml", f"run.folder={folder / 'data'}", *SMALL, many)
    words = [f"data.stores=[{folder / 'data' / 'trajectories'}]", "sft.batch_size=16", "sft.epochs=6", *SMALL]
    run_recipe("sft.py", "text/lock_hint_sft.yaml", f"run.folder={folder / 'sft'}", *words, LOCK % "")
    return folder / "sft" / "policy"


def rows(run: Path) -> list[dict[str, float]]:
    return [row for row in read_metrics(run / "metrics.jsonl") if "distill/kl_mean" in row]


def distil(run_recipe: Run, policy: Path, folder: Path, *words: str) -> list[dict[str, float]]:
    fixed = [f"run.folder={folder}", f"model.path={policy}", LOCK % "", "evaluation.seeds_per_task=2"]
    run_recipe("distill.py", "text/lock_distill.yaml", *fixed, "run.transcripts_every=0", *words)
    return rows(folder)


def test_a_guesser_learns_the_lock_without_a_reward(run_recipe: Run, guesser: Path, tmp_path: Path) -> None:
    words = ["~distill.hint_from", "distill.teacher=script", "learner.learning_rate=5e-3", "learner.epochs=2"]
    found = distil(run_recipe, guesser, tmp_path / "run", "run.steps=12", *words)
    assert found[0]["rollout/success_frac"] < 0.3, "one lock in sixteen by guessing"
    assert fmean(row["rollout/success_frac"] for row in found[-3:]) > 0.7
    assert found[-1]["distill/kl_mean"] < 0.3 * found[0]["distill/kl_mean"]
    assert all(row["distill/rl_weight"] == 0 for row in found)


def test_an_empty_hint_teaches_nothing_and_says_so(
    run_recipe: Run, guesser: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["distill.hint_from=text", "rollout.groups_per_step=1", "algorithm.depth=growing"]
    found = distil(run_recipe, guesser, tmp_path / "run", "run.steps=3", *words, "algorithm.depth_every=2")
    assert "nothing is learned" in caplog.text
    assert all(abs(row["distill/kl_mean"]) < 1e-5 for row in found)
    assert [row["distill/depth_turns"] for row in found] == [1.0, 1.0, 2.0]
    assert all(row["rollout/num_turns_mean"] <= 1 for row in found[:2])
