"""The blueprint's two phases on a lock of four dials: what the search finds is learned, and the value ranks steps.

And that a run that went on from a checkpoint is the run that was never stopped, and what is refused before it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rollwright.contracts.errors import ConfigError, DataError
from rollwright.critics import load_step_value
from rollwright.envs.text import combination_lock
from rollwright.evaluation import load_evaluation
from rollwright.models import load_tokenizer
from rollwright.recipes import reasoner
from rollwright.run_io.tracking import read_metrics

pytestmark = pytest.mark.slow
Run = Callable[..., None]
LOCK = ["world.options.lengths=[4]", "world.options.wording=compact"]
SMALL = ["algorithm.phase_one_trees=12", "algorithm.imitation_epochs=4", "search.simulations=12"]
SIZE = [*LOCK, *SMALL, "rollout.groups_per_step=4"]
# In rounds the same answers are batched together in every run: figures repeat to the last bit.
ROUNDS = ["rollout.schedule=rounds", "evaluation.at_start=true", "evaluation.seeds_per_task=32"]


def build_frozen() -> combination_lock.LockWorld:
    """A lock that cannot be taken back to an earlier dial."""
    world = combination_lock.build(lengths=[4])
    world.snapshots = "none"
    return world


@pytest.fixture(scope="module")
def guesser(run_recipe: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that turns a dial the right way in about six of ten tries."""
    folder = tmp_path_factory.mktemp("lock")
    back = [*LOCK, "world.options.slip=back"]
    run_recipe("collect.py", "text/lock_collect.yaml", *back, f"run.folder={folder / 'data'}", "collect.per_task=60")
    stores = f"data.stores=[{folder / 'data' / 'trajectories'}]"
    run_recipe("sft.py", "text/lock_sft.yaml", *back, f"run.folder={folder / 'sft'}", stores)
    return folder / "sft" / "policy"


@pytest.fixture(scope="module")
def whole(run_recipe: Run, guesser: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps in one go."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    words = [f"run.folder={folder}", f"model.path={guesser}", "run.steps=3"]
    run_recipe("reasoner.py", "text/lock_reasoner.yaml", *words, *SIZE, *ROUNDS)
    return folder


def rows(run: Path) -> list[dict]:
    return [row for row in read_metrics(run / "metrics.jsonl") if "reasoner/phase" in row]


def untimed(row: dict) -> dict:
    """What a clock has no part in."""
    return {
        name: value for name, value in row.items() if not name.endswith("_s") and "/" in name and "tok_s" not in name
    }


def success(run: Path, name: str) -> float:
    scored = load_evaluation(run / "eval" / f"{name}.json").scored
    return sum(bool(row.success) for row in scored) / len(scored)


def test_the_search_is_learned_from_and_the_value_ranks_steps(whole: Path) -> None:
    steps = rows(whole)
    assert [row["reasoner/phase"] for row in steps] == [1.0, 2.0, 2.0]
    assert steps[0]["search/success_frac"] > 0.5, "a tree of four dials finds the way out of most starts"
    assert steps[0]["reasoner/paths_count"] == 12 * steps[0]["search/success_frac"]
    assert "reasoner/ranked_frac" not in steps[0], "a model that was told nothing ranks nothing"
    # After phase 1, on the trees of the first step of phase 2: later the policy errs too rarely to leave many pairs.
    assert steps[1]["reasoner/ranked_frac"] > 0.75
    assert success(whole, "final") > success(whole, "start") + 0.2


def test_the_value_model_is_read_from_its_folder(whole: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(whole / "policy")
    value = load_step_value(whole / "value", tokenizer)
    shown = ["lock4dial4", "lock4dial1", "The lock is blocked."]
    ids = [
        tuple(tokenizer(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]) for text in shown
    ]
    last, first, blocked = value.read(ids).tolist()
    assert last > first > blocked
    with pytest.raises(ConfigError, match="no value model that can be read"):
        load_step_value(tmp_path, tokenizer)


def test_a_run_that_goes_on_is_the_run_that_was_not_stopped(
    run_recipe: Run, guesser: Path, whole: Path, tmp_path: Path
) -> None:
    for steps in (1, 3):  # the second start goes on from the checkpoint behind phase 1
        words = [f"run.folder={tmp_path / 'run'}", f"model.path={guesser}", f"run.steps={steps}"]
        run_recipe("reasoner.py", "text/lock_reasoner.yaml", *words, *SIZE, *ROUNDS)
    for one, other in zip(rows(whole), rows(tmp_path / "run"), strict=True):
        assert untimed(one) == untimed(other)
    states = [torch.load(run / "value" / "head.pt", weights_only=True)["heads"] for run in (whole, tmp_path / "run")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_cannot_be_is_refused(at_root: None, guesser: Path, tmp_path: Path) -> None:
    start = ["recipes/text/lock_reasoner.yaml", f"model.path={guesser}", f"run.folder={tmp_path / 'run'}", *SIZE]
    with pytest.raises(ConfigError, match="declares `snapshots = 'none'`"):
        reasoner.main([*start, "world.name=tests.learning.test_reasoner_learning:build_frozen", "~world.options"])
    assert not (tmp_path / "run").exists()
    # One iteration of one answer hardly opens a lock of four dials with three wrong digits each.
    hard = ["search.simulations=1", "search.children=1", "algorithm.phase_one_trees=1", "world.options.digits=9"]
    with pytest.raises(DataError, match="phase 1 found no success in any tree of text"):
        reasoner.main([*start, *hard, "run.steps=2"])
