"""RLGF in whole runs: without prefixes it is PPO to the bit, and the record tells a guide's turns apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rollwright.run_io.tracking import read_metrics
from rollwright.store import TrajectoryStore

pytestmark = pytest.mark.slow
Run = Callable[..., None]
TINY = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "evaluation.seeds_per_task=1"]
MAZE = ["world.options.maze=umaze", "world.options.max_turns=4", "rollout.max_turns=4", "evaluation.max_turns=4"]
SMALL = ["rollout.groups_per_step=4", "run.steps=2", "learner.learning_rate=1e-3", "run.transcripts_every=0"]


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Policy, critic and both optimisers as the last checkpoint has them, by place."""
    (last,) = sorted((run / "checkpoints").glob("*/learner.pt"))[-1:]
    flat: dict[str, torch.Tensor] = {}

    def walk(value: object, place: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{place}/{key}")
        elif isinstance(value, torch.Tensor):
            flat[place] = value

    walk(torch.load(last, weights_only=True), "")
    return flat


def test_without_prefixes_it_is_ppo_to_the_bit(run_recipe: Run, tmp_path: Path) -> None:
    words = [*TINY, *MAZE, *SMALL, "rollout.schedule=rounds"]
    run_recipe("ppo.py", "text/maze_ppo.yaml", *words, "algorithm.whiten=false", f"run.folder={tmp_path / 'ppo'}")
    guided = ["actor=teacher", "algorithm.beta=0"]
    run_recipe("rlgf.py", "text/maze_ppo.yaml", *words, *guided, f"run.folder={tmp_path / 'rlgf'}")
    one, two = (state_of(tmp_path / name) for name in ("ppo", "rlgf"))
    assert one.keys() == two.keys() and any("critic" in key for key in one)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_guide_ends_the_episodes_and_the_record_says_so(run_recipe: Run, tmp_path: Path) -> None:
    """AggreVaTeD in the maze: prefixes are the policy's, what follows is the guide's, and both learn."""
    words = [*TINY, *MAZE, *SMALL, "actor=teacher", "algorithm.beta=1", "algorithm.method=aggrevated"]
    run_recipe("rlgf.py", "text/maze_ppo.yaml", *words, f"run.folder={tmp_path}")
    stored = [t for t in TrajectoryStore(tmp_path / "trajectories", mode="read").iter_trajectories()]
    branched = [t for t in stored if t.branch is not None]
    assert len(branched) == 8
    for t in branched:
        assert t.branch is not None and 1 <= t.branch.turn <= 3
        who = [turn.spans[0].producer for turn in t.turns]
        assert who == ["policy"] * t.branch.turn + ["teacher"] * (len(who) - t.branch.turn)
        (roll_in,) = [one for one in stored if one.id == t.branch.parent]
        assert roll_in.turns[: t.branch.turn] == t.turns[: t.branch.turn] and not roll_in.learnable
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "rlgf/ppo_frac" in row]
    assert all(row["rlgf/ppo_frac"] == 0 and row["rlgf/prefix_frac"] == 1 for row in rows)
    assert all(row["guide_critic/loss"] > 0 and row["optim/grad_norm"] > 0 and "critic/loss" not in row for row in rows)
