"""`run.json` of real runs: of a loop that is killed and goes on, of a training on demonstrations, of a collection."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollwright.run_io.run_facts import FACTS
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.view.report_page import write_report

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.long
Recipe = Callable[..., None]
TINY = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "world.options.maze=umaze"]
PLAY = ["engine=transformers", "engine.dtype=float32", "rollout.max_turns=3"]
LOOP = [*TINY, *PLAY, "learner.precision=float32", "rollout.schedule=rounds", "rollout.groups_per_step=2"]
LOOP += ["rollout.group_size=2", "evaluation.max_turns=3", "evaluation.seeds_per_task=1", "run.checkpoint_every=1"]
LOOP += ["algorithm.drop_equal_groups=false"]


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FACTS).read_text())


def sampled(folder: Path) -> int:
    """Action tokens of all stored episodes."""
    store = TrajectoryStore(folder / "trajectories", mode="read")
    return sum(len(turn.action_ids) for t in store.iter_trajectories() for turn in t.turns)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_a_second_entry(run_recipe: Recipe, tmp_path: Path) -> None:
    """Killed after its first step; both entries together count what both have played."""
    command = [sys.executable, "-m", "rollwright.recipes.grpo", "recipes/text/maze_grpo.yaml", *LOOP]
    endless = subprocess.Popen(
        [*command, f"run.folder={tmp_path}", "run.steps=100000"], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        while not list((tmp_path / "checkpoints").glob("step_*")):
            assert endless.poll() is None, "the run ended before its first checkpoint"
            time.sleep(0.05)
    finally:
        endless.send_signal(signal.SIGKILL)
        endless.wait()
    (begun,) = facts(tmp_path)["sessions"]
    assert begun["outcome"] == "running" and begun["spent"]["tokens_sampled"] > 0
    (tmp_path / "config.yaml").unlink()

    done = max(int(path.name.split("_")[1]) for path in (tmp_path / "checkpoints").glob("step_*"))
    run_recipe("grpo.py", "text/maze_grpo.yaml", *LOOP, f"run.folder={tmp_path}", f"run.steps={done + 1}")
    first, second = facts(tmp_path)["sessions"]
    assert (first["outcome"], first["ended"], first["resumed_at_step"]) == ("killed", None, None)
    assert second["outcome"] == "finished" and 1 <= second["resumed_at_step"] <= done
    assert second["command"].startswith("grpo.py recipes/text/maze_grpo.yaml model.path=tiny")
    assert second["seeds"]["run.seed"] == 0 and second["ranks"] == 1
    assert facts(tmp_path)["starts"] == 2
    spent = second["spent"]
    assert spent["tokens_trained"] > 0 and spent["learner_s"] > 0 and spent["engine_s"] > 0
    assert "tokens_trained" in write_report(tmp_path).read_text()


def test_tokens_of_a_whole_run_are_those_of_its_episodes(run_recipe: Recipe, tmp_path: Path) -> None:
    words = [*LOOP, "learner.epochs=2", f"run.folder={tmp_path}", "run.steps=2"]
    run_recipe("grpo.py", "text/maze_grpo.yaml", *words)
    total = facts(tmp_path)["totals"]
    store = TrajectoryStore(tmp_path / "trajectories", mode="read")
    trained = [t for step in (0, 1) for t in store.iter_trajectories(tag=f"step_{step}")]
    assert total["tokens_sampled"] == sampled(tmp_path) > 0
    assert total["episodes"] == len(store)
    assert total["tokens_trained"] == 2 * sum(t.num_action_tokens for t in trained) > 0


def test_a_training_on_demonstrations_counts_what_it_learns_not_what_it_samples(
    run_recipe: Recipe, tmp_path: Path
) -> None:
    words = ["data.per_task=2", "sft.max_steps=1", "sft.precision=float32", "sft.batch_size=1"]
    run_recipe("sft.py", "text/maze_sft.yaml", *TINY, *words, f"run.folder={tmp_path}")
    (entry,) = facts(tmp_path)["sessions"]
    spent = entry["spent"]
    assert entry["outcome"] == "finished" and entry["command"].startswith("sft.py recipes/text/maze_sft.yaml")
    assert spent["episodes"] > 0 and spent["turns"] > 0 and spent["tokens_sampled"] == 0
    assert 0 < spent["tokens_trained"] < sampled(tmp_path), "one step of one row is not the whole pass"


def test_a_collection_by_the_policy_counts_every_token(run_recipe: Recipe, tmp_path: Path) -> None:
    words = [*TINY, *PLAY, "collect.per_task=1", "collect.by=policy", f"run.folder={tmp_path}"]
    run_recipe("collect.py", "text/maze_collect.yaml", *words)
    assert facts(tmp_path)["totals"]["tokens_sampled"] == sampled(tmp_path) > 0
    run_recipe("collect.py", "text/maze_collect.yaml", *words, "collect.per_task=1")
    again = facts(tmp_path)
    assert [entry["spent"]["episodes"] for entry in again["sessions"]][1] == 0, "nothing was left to play"
