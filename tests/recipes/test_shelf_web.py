"""Every recipe of the shelf on real pages with the real small model.

A few episodes are no evidence of learning (`benchmarks/learning.py --world miniwob` has that); here the parts meet:
MiniWoB++ in a browser, SmolLM2's tokenizer and trunk, stores, critics, checkpoints.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rollwright.evaluation import load_evaluation
from rollwright.recipes import (
    archer,
    collect,
    digirl,
    filtered_bc,
    hnpg,
    ilql,
    inverse_dynamics,
    mc,
    outcome,
    ppo,
    return_conditioned,
    webrl,
)
from rollwright.run_io.tracking import read_metrics
from rollwright.store.trajectory_store import TrajectoryStore

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.usefixtures("at_root")]

TASKS = "world.options.tasks=[click-dialog-2, click-button-sequence]"
PAGES = ["model.path=smollm2", TASKS, "world.options.max_turns=2"]
ENGINE = ["engine.name=transformers", "engine.dtype=float32"]
RUN = [*PAGES, *ENGINE, "evaluation.seeds_per_task=1", "run.transcripts_every=0", "learner.precision=float32"]
ONLINE = ("rollout.groups_per_step=2", "rollout.max_action_tokens=6", "rollout.group_size=1", "rollout.schedule=rounds")
STORED = "replay.stores=[{stores}]"
ACTOR = ("algorithm.actor_updates=1", "algorithm.batch_size=4")
TOKEN_Q = ("algorithm.updates=1", "algorithm.trajectories=2", "algorithm.width=16")


def fit(critic: str) -> tuple[str, ...]:
    return tuple(f"{critic}.{word}" for word in ("updates=1", "batch_size=4", "width=16"))


# What makes each recipe's own YAML small, besides RUN.
SMALL: dict[str, tuple[Callable[[list[str]], None], tuple[str, ...]]] = {
    "ppo": (ppo.main, (*ONLINE, "algorithm.entropy_coef=0.1")),  # nothing succeeds, so returns alone teach nothing
    "filtered": (filtered_bc.main, (*ONLINE, STORED, "algorithm.updates=1", "algorithm.batch_size=4")),
    "digirl": (
        digirl.main,
        (*ONLINE, STORED, *ACTOR, *fit("instruction_critic"), *fit("step_critic"), "algorithm.top_frac=1"),
    ),
    "webrl": (
        webrl.main,
        (*ONLINE, STORED, *fit("step_critic"), "algorithm.batch_size=4", "replay.low=0", "replay.high=1"),
    ),
    "archer": (archer.main, (*ONLINE, STORED, *ACTOR, *fit("critic"), "algorithm.warmup_steps=0")),
    "hnpg": (hnpg.main, (*ONLINE, STORED, *fit("critic"), "algorithm.samples=1", "algorithm.logged_states=2")),
    "ilql": (ilql.main, (STORED, *TOKEN_Q)),
    "mc": (mc.main, (STORED, *TOKEN_Q)),
}

SFT = (*PAGES, *ENGINE, "sft.max_steps=1", "sft.batch_size=2", "sft.precision=float32")
FITTED: dict[str, tuple[Callable[[list[str]], None], tuple[str, ...], str]] = {
    "return": (return_conditioned.main, (*SFT, STORED, "evaluation.seeds_per_task=1"), "policy/return_levels.json"),
    "inverse": (
        inverse_dynamics.main,
        (*SFT, STORED.replace("replay", "data"), "data.hide_frac=0.3", "data.held_out_frac=0.5", "label.threshold=0"),
        "labels.json",
    ),
    "outcome": (
        outcome.main,
        ("model.path=smollm2", STORED, "data.held_out_frac=0.5", "fit.epochs=1", "fit.batch_size=4"),
        "eval/calibration.json",
    ),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What teachers did, and what the model does before any training: successes and failures."""
    folder = tmp_path_factory.mktemp("data")
    for by, count in (("teacher", 2), ("policy", 1)):
        words = [f"run.folder={folder / by}", f"collect.by={by}", f"collect.per_task={count}"]
        collect.main(["recipes/web/miniwob_collect.yaml", *PAGES, *ENGINE, *words])
    return ", ".join(str(folder / by / "trajectories") for by in ("teacher", "policy"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A run folder that goes with the test: each holds a gigabyte or two of weights and moments."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def run(method: str, stores: str, folder: Path, *, steps: int) -> None:
    main, words = SMALL[method]
    settings = [f"recipes/web/miniwob_{method}.yaml", *RUN, *(word.format(stores=stores) for word in words)]
    main([*settings, f"run.folder={folder}", f"run.steps={steps}"])


@pytest.mark.parametrize("method", SMALL)
def test_a_step_on_real_pages(method: str, stores: str, folder: Path) -> None:
    run(method, stores, folder, steps=1)
    (row,) = [row for row in read_metrics(folder / "metrics.jsonl") if "time/update_s" in row]
    assert all(math.isfinite(value) for value in row.values())
    assert max(value for name, value in row.items() if name.endswith("grad_norm")) > 0
    assert len(load_evaluation(folder / "eval" / "final.json").rows) == 2
    if SMALL[method][1][: len(ONLINE)] == ONLINE:
        tags = [row["tag"] for _, row in TrajectoryStore(folder / "trajectories").headers()]
        assert tags.count("step_0") == 2


def test_a_resumed_run_on_real_pages_ends_as_the_undisturbed_one(
    stores: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run("filtered", stores, folder / "whole", steps=2)
    for steps in (1, 2):
        run("filtered", stores, folder / "parts", steps=steps)
    assert "at step 1," in caplog.text  # it did not begin anew
    whole, parts = (load_file(folder / name / "policy" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("recipe", FITTED)
def test_stored_pages_are_fitted(recipe: str, stores: str, folder: Path) -> None:
    """The recipes that fine-tune on a store."""
    main, words, leaves = FITTED[recipe]
    settings = [f"recipes/web/miniwob_{recipe}.yaml", *(word.format(stores=stores) for word in words)]
    main([*settings, f"run.folder={folder}"])
    assert (folder / leaves).stat().st_size > 2
