"""Agent-R against filtered BC on the maze, from a walker that moves almost at random."""

from __future__ import annotations

from pathlib import Path

from _branching import Claim, held_out_success, play_recipe, training_total

from rollwright.evaluation import load_evaluation
from rollwright.methods import repeats_failing_action
from rollwright.store import TrajectoryStore

TITLE = "Agent-R on the maze"
ABOUT = (
    "LMRL-Gym's double T in compact wording, from a tiny model that imitates walkers of 15% optimal moves (45 walks). "
    "One round, walks of 20 moves in training; held-out starts, walks of 30 moves at temperature 1. The search is "
    "best of n: 10 tasks, 6 walks each. Filtered BC plays at least as many moves and takes about as many "
    "optimiser steps. Nothing was tuned: both arms have the settings of the YAML files that ship, made smaller."
)
ARMS = {
    "filtered_bc": "filtered BC: all successes of 70 own episodes",
    "agent_r": "Agent-R: good leaves, and revisions cut by value and replayed",
}
METRICS = {
    "success": "share of held-out walks that reach the goal within 30 moves",
    "repeats": "share of held-out walks that repeat a move that had changed nothing in the same cell",
    "rejected": "share of revisions that did not survive their replay; 0 without revisions",
    "env_calls": "calls of `reset` and `step` in training, replays included",
}
CLAIMS = [
    Claim("agent_r", "filtered_bc", "success", "Agent-R reaches the goal more often than filtered BC"),
    Claim("filtered_bc", "agent_r", "repeats", "Agent-R repeats failing moves less often"),
]
MISSING = [
    "Agent-R against filtered BC on household (compact): not run. The first of three rounds took over two minutes on "
    "the two shared cores, so that five seeds of two arms did not fit"
]

SHARED = (
    *("world.options.max_turns=30", "rollout.max_turns=20", "run.steps=1", "engine.name=transformers"),
    *("engine.dtype=float32", "learner.precision=float32", "learner.learning_rate=5.0e-4", "evaluation.split=test"),
    *("evaluation.seeds_per_task=3", "evaluation.temperature=1.0", "evaluation.max_turns=30"),
)
TREES = (
    *("rollout.groups_per_step=10", "search.simulations=6", "algorithm.verifier=value", "algorithm.pairs_per_tree=1"),
    *("algorithm.epochs=4", "algorithm.merit=success", "~algorithm.tolerance", "algorithm.beta=0.1"),
    "run.checkpoint_every=0",
)
IMITATED = (
    *("algorithm.score=success", "algorithm.positive_only=true", "algorithm.top_frac=1", "algorithm.fresh_only=true"),
    *("algorithm.updates=16", "algorithm.batch_size=64", "rollout.group_size=1", "rollout.groups_per_step=70"),
)


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    start = folder.parents[1] / "common" / "start"
    play_recipe("sft", "text/maze_sft.yaml", "data.per_task=3", "sft.epochs=1", folder=start)
    words = (*SHARED, f"model.path={start / 'policy'}", f"run.seed={seed}")
    run = folder / "run"
    if arm == "filtered_bc":
        play_recipe("filtered_bc", "text/maze.yaml", *words, *IMITATED, folder=run)
    else:
        play_recipe("agent_r", "text/maze_agent.yaml", *words, *TREES, folder=run)
    return figures(run, arm)


def figures(run: Path, arm: str) -> dict[str, float]:
    """What a run reached on the held-out starts, and what it spent."""
    store = TrajectoryStore(run / "trajectories", mode="read")
    judged = list(store.iter_trajectories(tag="eval_final"))
    assert len(judged) == len(load_evaluation(run / "eval" / "final.json").scored)
    calls = training_total(run, "revisions/search_calls_count") + training_total(run, "revisions/env_calls_count")
    if arm == "filtered_bc":
        calls = float(sum(1 + len(t.turns) for t in store.iter_trajectories() if t.task.split == "train"))
    return {
        "success": held_out_success(run),
        "repeats": sum(map(repeats_failing_action, judged)) / len(judged),
        "rejected": training_total(run, "revisions/rejected_frac"),
        "env_calls": calls,
    }
