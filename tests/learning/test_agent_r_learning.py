"""Agent-R on three doors: after one round the policy leaves the dead end at once, and does not learn to enter it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwright.methods import learned_mask
from rollwright.recipes import agent_r, collect, filtered_bc
from rollwright.run_io.tracking import read_metrics
from rollwright.store import TrajectoryStore
from tests.learning.three_doors import chance, chance_to_leave

WORLD = [
    *("world.name=tests.learning.three_doors:build", "rollout.history=1", "rollout.max_action_tokens=3", "run.seed=3"),
    "rollout.parallel_episodes=64",
]
MODEL = ["engine={name: transformers, dtype: float32}", "learner={precision: float32, learning_rate: 3.0e-3}"]
ROUND = [
    *("run.steps=1", "rollout.groups_per_step=30", "search.simulations=6", "search.children=3"),
    *(
        "algorithm.merit=discounted_success",
        "algorithm.tolerance=0.2",
        "algorithm.beta=0.01",
        "algorithm.verifier=value",
    ),
    *("algorithm.epochs=4", "evaluation.seeds_per_task=1"),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that says any of the five words."""
    folder = tmp_path_factory.mktemp("doors")
    tiny = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"]
    words = ["collect.by=random", "collect.per_task=4", "engine=transformers"]
    collect.main([*WORLD, *tiny, *words, f"run.folder={folder / 'data'}"])
    store = f"replay.stores=[{folder / 'data' / 'trajectories'}]"
    offline = ["run.steps=1", "algorithm.offline_steps=1", "algorithm.top_frac=1", "algorithm.updates=40"]
    filtered_bc.main(
        [*WORLD, *MODEL, *tiny, *offline, store, f"run.folder={folder / 'bc'}", "evaluation.seeds_per_task=1"]
    )
    return folder / "bc" / "policy"


@pytest.mark.slow
def test_one_round_teaches_the_way_out_and_not_the_way_in(start: Path, tmp_path: Path) -> None:
    run, control = tmp_path / "revised", tmp_path / "good_only"
    agent_r.main([*WORLD, *MODEL, *ROUND, f"model.path={start}", f"run.folder={run}"])
    # Bad steps cost turns, and turns score: every revision is refused. That is filtered BC on the same search.
    plain = [*WORLD, *MODEL, *ROUND, "algorithm.tolerance=0", f"model.path={start}", f"run.folder={control}"]
    agent_r.main(plain)
    before, after, without = (
        chance_to_leave(start),
        chance_to_leave(run / "policy"),
        chance_to_leave(control / "policy"),
    )
    entering = [chance(policy, "door2") for policy in (start, run / "policy", control / "policy")]
    print(f"left at once: start {before:.3f}, Agent-R {after:.3f}, good leaves alone {without:.3f}; door 2: {entering}")
    assert before < 0.3 and after > before + 0.15 and after > without + 0.08
    assert entering[1] < entering[0]
    (row,) = [row for row in read_metrics(run / "metrics.jsonl") if "revisions/records_count" in row]
    assert row["revisions/records_count"] > 10 and row["revisions/rejected_frac"] < 1
    (other,) = [row for row in read_metrics(control / "metrics.jsonl") if "revisions/records_count" in row]
    assert other["revisions/records_count"] == 0 and other["revisions/leaves_count"] == row["revisions/leaves_count"]
    records = [
        t for t in TrajectoryStore(run / "trajectories", mode="read").iter_trajectories() if t.policy == "revision"
    ]
    assert len(records) == row["revisions/records_count"]
    for record in records:
        assert record.branch is not None
        learned = [any(learned_mask(turn)) for turn in record.turns]
        assert learned == [False] * record.branch.turn + [True] * (len(record.turns) - record.branch.turn)
        assert record.turns[record.branch.turn].action == "wait"
