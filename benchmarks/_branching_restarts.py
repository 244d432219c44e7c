"""Restart and explore (Satori) against episodes from the initial state: the toy of its card."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from _branching import held_out_success, play_recipe

TITLE = "Restarts: Satori with and without restart and explore (`text.reflection`)"
ABOUT = (
    "Four questions whose first written digit is wrong in half of the episodes, whatever was said: the coin of the\n"
    "card's toy, tossed by the world. Satori's PPO from a tiny model that knows the form of the segments; all runs\n"
    "begin with the same weights. `initial` gets at least as many environment calls as `restarts`. Success is that of\n"
    "256 sampled held-out episodes, all from their initial states. The questions are the same in training and\n"
    "evaluation."
)
ARMS = {
    "initial": "every group begins at its task's initial state (`starts=initial`), 5 steps of 32 episodes",
    "restarts": "two groups in three restart, half of them behind own failures (`starts=restarts`), 6 steps",
}
METRICS = {
    "success": "share of held-out episodes that are answered rightly",
    "repaired": "the same among those in which the first digit was written wrong",
    "calls": "environment calls of the training",
}
CLAIMS = [
    ("restarts", "initial", "repaired", "restart and explore teaches to repair what is wrong"),
    ("restarts", "initial", "success", "restart and explore is ahead of initial states alone"),
]
SIZE = [
    *("rollout.groups_per_step=32", "evaluation.seeds_per_task=64"),
    *("run.transcripts_every=0", "run.checkpoint_every=0"),
]
WORDS = {
    "initial": ["run.steps=5", "starts=initial", "~starts.frac", "~starts.reflections"],
    "restarts": ["run.steps=6"],
}
"""Seed 100 told how many turns a step of each arm takes."""


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    run = folder / "run"
    words = [f"model.path={start_of(folder.parents[1] / 'common')}", f"run.seed={seed}", *SIZE, *WORDS[arm]]
    play_recipe("satori", "text/reflection_satori.yaml", *words, folder=run)
    return {"success": held_out_success(run), "repaired": repaired(run), "calls": turns_of_training(run)}


def turns_of_training(run: Path) -> float:
    """Environment calls of all steps: episodes times their mean length."""
    from rollwright.run_io import read_metrics

    rows = [row for row in read_metrics(run / "metrics.jsonl") if "rollout/num_turns_mean" in row]
    return sum(row["rollout/episodes_count"] * row["rollout/num_turns_mean"] for row in rows)


def repaired(run: Path) -> float:
    """Success in the held-out episodes whose pen slips: by the seed alone, whatever the policy said."""
    from rollwright.envs.text import reflection
    from rollwright.evaluation import load_evaluation

    world = reflection.build()
    rows = load_evaluation(run / "eval" / "final.json").scored
    tasks = {task.id: task for task in world.tasks("test")}
    slipped = []
    for row in rows:
        env = world.make()
        env.reset(tasks[row.task], row.seed)
        if env.slips:
            slipped.append(float(bool(row.success)))
    return fmean(slipped)


def start_of(common: Path) -> Path:
    """The policy that all runs begin with: a tiny model that imitates a hand which is right now and then."""
    play_recipe("collect", "text/reflection_collect.yaml", folder=common / "question_data")
    words = ["model.tiny_layers=1", f"data.stores=[{common / 'question_data' / 'trajectories'}]"]
    play_recipe("sft", "text/reflection_sft.yaml", *words, folder=common / "question")
    return common / "question" / "policy"
