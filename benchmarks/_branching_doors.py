"""Agent-R's toy: three doors, of which one leads into a dead end. How surely does the policy leave it?"""

from __future__ import annotations

import sys
from pathlib import Path

from _branching import ROOT, Claim, held_out_success, play_recipe, training_total

from rollwright.store import TrajectoryStore

sys.path.insert(0, str(ROOT))
from tests.learning.three_doors import chance, chance_to_leave

TITLE = "Agent-R on three doors"
ABOUT = (
    "The toy of the method's card: a hall with a locked door, a dead end out of which only `back` leads, and the "
    "prize; six turns. The start is a tiny model that says any of the five words. One round, 25 trees, lr 3e-3; "
    "filtered BC has at least as many calls of the world and about as many optimiser steps. Run seeds are 200 plus the "
    "seed; the settings were fixed on seed 3. Probabilities are exact, from the final weights."
)
ARMS = {
    "filtered_bc": "filtered BC: the successes of 330 own episodes",
    "good_leaves": "good leaves of the same trees alone: every revision is refused",
    "agent_r": "Agent-R: good leaves and revisions, cut by value, replayed",
}
METRICS = {
    "leaves_dead_end": "probability that the dead end is left at once, or after one turn of thinking again",
    "enters_dead_end": "probability that the dead end is entered from the hall (lower is better)",
    "success": "share of held-out episodes that reach the prize",
    "env_calls": "calls of `reset` and `step` in training, replays included",
}
CLAIMS = [
    Claim("agent_r", "filtered_bc", "leaves_dead_end", "Agent-R leaves the dead end sooner than filtered BC"),
    Claim("agent_r", "good_leaves", "leaves_dead_end", "the revisions do it, not the search alone"),
    Claim("agent_r", "filtered_bc", "success", "Agent-R is not worse in the task itself", 0.05),
]

WORLD = (
    *("world.name=tests.learning.three_doors:build", "rollout.history=1", "rollout.max_action_tokens=3"),
    *("rollout.parallel_episodes=64", "engine.name=transformers"),
)
LEARNER = ("engine.dtype=float32", "learner.precision=float32", "learner.learning_rate=3.0e-3", "run.steps=1")
JUDGED = ("evaluation.split=test", "evaluation.seeds_per_task=32", "evaluation.temperature=1.0")
TREES = (
    *("rollout.groups_per_step=25", "search.simulations=6", "search.children=3", "algorithm.epochs=4"),
    *("algorithm.merit=discounted_success", "algorithm.beta=0.01", "algorithm.verifier=value"),
)
IMITATED = ("algorithm.score=success", "algorithm.positive_only=true", "algorithm.top_frac=1", "algorithm.updates=36")
EPISODES = ("rollout.group_size=1", "rollout.groups_per_step=330")


def _run(recipe: str, *words: str, folder: Path) -> None:
    """A recipe on the doors: the maze's settings for a tiny model, with another world."""
    play_recipe(recipe, "text/maze.yaml", "~world.options", *words, folder=folder)


def begin(common: Path) -> Path:
    """A tiny policy that has imitated random words."""
    tiny = ("model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1")
    _run("collect", *WORLD, *tiny, "collect.by=random", "collect.per_task=4", folder=common / "data")
    store = f"replay.stores=[{common / 'data' / 'trajectories'}]"
    offline = ("algorithm.offline_steps=1", "algorithm.top_frac=1", "algorithm.updates=40")
    words = (*WORLD, *LEARNER, *tiny, *offline, store, "evaluation.seeds_per_task=1")
    _run("filtered_bc", *words, folder=common / "start")
    return common / "start" / "policy"


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    start = begin(folder.parents[1] / "common")
    shared = (*WORLD, *LEARNER, *JUDGED, f"model.path={start}", f"run.seed={200 + seed}")
    run = folder / "run"
    if arm == "filtered_bc":
        _run("filtered_bc", *shared, *IMITATED, *EPISODES, folder=run)
        played = TrajectoryStore(run / "trajectories", mode="read").iter_trajectories(tag="step_0")
        calls = float(sum(1 + len(episode.turns) for episode in played))
    else:
        # Bad steps cost turns, and turns score: without a tolerance no revision survives its replay.
        _run("agent_r", *shared, *TREES, f"algorithm.tolerance={0.2 if arm == 'agent_r' else 0.0}", folder=run)
        calls = training_total(run, "revisions/search_calls_count") + training_total(run, "revisions/env_calls_count")
    return {
        "leaves_dead_end": chance_to_leave(run / "policy"),
        "enters_dead_end": chance(run / "policy", "door2"),
        "success": held_out_success(run),
        "env_calls": calls,
    }
