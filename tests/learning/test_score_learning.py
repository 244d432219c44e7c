"""SCoRe on ten answers (the toy of its card): stage I lifts the second attempt alone, stage II the first one after it.

And what it warns of: with return-to-go the bonus pays for being wrong first, so the first attempt stays wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from rollwright.contracts.errors import ConfigError
from rollwright.recipes import score
from rollwright.run_io.tracking import read_metrics

pytestmark = pytest.mark.slow
Run = Callable[..., None]
SIZE = ["rollout.groups_per_step=6", "evaluation.seeds_per_task=2"]


@pytest.fixture(scope="module")
def guesser(run_recipe: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that answers with an even draw of ten digits, in both attempts."""
    folder = tmp_path_factory.mktemp("attempts")
    run_recipe("collect.py", "text/attempts_collect.yaml", f"run.folder={folder / 'data'}")
    stores = f"data.stores=[{folder / 'data' / 'trajectories'}]"
    run_recipe("sft.py", "text/attempts_sft.yaml", f"run.folder={folder / 'sft'}", stores)
    return folder / "sft" / "policy"


def rows(run: Path) -> list[dict]:
    return [row for row in read_metrics(run / "metrics.jsonl") if "attempts/stage" in row]


def late(run: Path, stage: int, name: str) -> float:
    """Mean over the last five steps of a stage."""
    return fmean(row[f"attempts/{name}"] for row in [r for r in rows(run) if r["attempts/stage"] == stage][-5:])


def test_the_stages_lift_the_second_attempt_and_then_the_first(run_recipe: Run, guesser: Path, tmp_path: Path) -> None:
    words = [f"run.folder={tmp_path}", f"model.path={guesser}", "run.steps=50", "algorithm.stage_one_steps=25", *SIZE]
    run_recipe("score.py", "text/attempts_score.yaml", *words)
    assert late(tmp_path, 1, "accuracy_second") > 0.85
    assert late(tmp_path, 1, "accuracy_first") < 0.35, "stage I holds the first attempt at the start's guess of 0.1"
    assert late(tmp_path, 1, "kl_first") < 0.5 < late(tmp_path, 1, "kl_second")
    assert late(tmp_path, 2, "accuracy_first") > 0.7
    assert late(tmp_path, 2, "accuracy_second") > 0.9
    assert [row["attempts/stage"] for row in rows(tmp_path)] == [1.0] * 25 + [2.0] * 25


def test_return_to_go_pays_for_a_wrong_first_attempt(run_recipe: Run, guesser: Path, tmp_path: Path) -> None:
    """From the same start, without stage I: the bonus of 10 reaches the first attempt, which learns to be wrong."""
    words = [f"model.path={guesser}", "algorithm.stage_one_steps=0", "run.steps=30", *SIZE]
    for name, turn_gamma in (("local", 0), ("to_go", 1)):
        where = f"run.folder={tmp_path / name}"
        run_recipe("score.py", "text/attempts_score.yaml", *words, where, f"algorithm.turn_gamma={turn_gamma}")
    local, to_go = (late(tmp_path / name, 2, "accuracy_first") for name in ("local", "to_go"))
    assert to_go < 0.3 and to_go < local - 0.2


def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(at_root: None, tmp_path: Path) -> None:
    start = ["recipes/text/attempts_score.yaml", "model.path=tiny", f"run.folder={tmp_path / 'run'}"]
    for word, said in (
        ("learner.epochs=2", "one step on fresh samples"),
        ("rollout.max_staleness=1", "one step on fresh samples"),
        ("rollout.group_size=1", "use 2 or more"),
        ("algorithm.bonus=-1", "bonus"),
        ("reward.name=success", "one score for the whole"),
    ):
        with pytest.raises(ConfigError, match=said):
            score.main([*start, word])
    with pytest.raises(ConfigError, match=r"two attempts at each task, and text\.bandit has 1"):
        score.main([*start, "~world.options", "world.name=text.bandit"])
    assert not (tmp_path / "run").exists()
