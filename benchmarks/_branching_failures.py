"""Failure replay against episodes from the initial state, on a lock that one wrong digit blocks."""

from __future__ import annotations

from pathlib import Path

from _branching import held_out_success, play_recipe
from _branching_restarts import turns_of_training

TITLE = "Failure replay: GRPO on a lock of 6 dials with and without it"
ABOUT = (
    "A lock of 6 dials with two digits; a wrong digit blocks it, and only opening pays. The start opens it about once\n"
    "in twenty tries; all runs begin with the same weights. `initial` gets at least as many environment calls as\n"
    "`failures`. Success is that of 64 sampled held-out episodes, all from the initial state."
)
ARMS = {
    "initial": "every group begins at the first dial, 8 steps of 4 groups of 8",
    "failures": "three groups in four begin one turn before an own failure (`starts=failures`), 8 steps",
}
METRICS = {
    "success": "share of held-out episodes in which the lock opens",
    "calls": "environment calls of the training",
}
CLAIMS = [("failures", "initial", "success", "failure replay opens the lock more often")]
LOCK = ["world.options.lengths=[6]", "world.options.wording=compact"]
SIZE = [
    *("run.steps=8", "rollout.groups_per_step=4", "rollout.max_turns=10", "learner.learning_rate=1e-3"),
    *("evaluation.seeds_per_task=64", "evaluation.max_turns=10", "run.transcripts_every=0", "run.checkpoint_every=0"),
]
UNSET = ["~starts.source", "~starts.episodes", "~starts.pick"]
"""Keys of the lock's settings that belong to snapshots."""
WORDS = {
    "initial": ["starts=initial", *UNSET],
    "failures": ["starts=failures", "starts.frac=0.75", "starts.back=1", *UNSET],
}


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    run = folder / "run"
    words = [*LOCK, f"model.path={start_of(folder.parents[1] / 'common')}", f"run.seed={seed}", *SIZE, *WORDS[arm]]
    play_recipe("grpo", "text/lock_grpo.yaml", *words, folder=run)
    return {"success": held_out_success(run), "calls": turns_of_training(run)}


def start_of(common: Path) -> Path:
    """The policy that all runs begin with: a tiny model that imitates a hand which turns six dials in ten rightly."""
    play_recipe("collect", "text/lock_collect.yaml", *LOCK, "collect.per_task=200", folder=common / "data")
    words = [*LOCK, "model.tiny_hidden=64", "model.tiny_layers=1", "sft.batch_size=16"]
    play_recipe(
        "sft", "text/lock_sft.yaml", *words, f"data.stores=[{common / 'data' / 'trajectories'}]", folder=common / "sft"
    )
    return common / "sft" / "policy"
