"""Where episodes begin: restart and explore (Satori) and failure replay, against episodes from the initial state."""

from __future__ import annotations

import fcntl
from pathlib import Path
from statistics import fmean

from _branching import held_out_success, play_recipe

TITLE = "Starts: restart and explore, and failure replay, against initial states alone"
ABOUT = (
    "Satori's PPO on four questions whose first written digit is wrong in half of the episodes, whatever was said\n"
    "(`text.reflection`: the toy of the card, the coin of the first segment tossed by the world), from a tiny model\n"
    "that knows the form of the segments; and GRPO on a lock of 8 dials that one wrong digit blocks, from a model\n"
    "that opens it about once in a hundred tries. All runs begin with the same weights. `initial` gets at least as\n"
    "many environment calls as `earlier`. Success is that of sampled episodes from held-out starts, all from their\n"
    "initial states."
)
ARMS = {
    "initial": "every group begins at its task's initial state (`starts=initial`)",
    "earlier": "`starts=restarts` on the questions (two groups in three, half of them behind own failures), "
    "`starts=failures` on the lock (three groups in four begin one turn before an own failure)",
}
METRICS = {
    "question_success": "share of held-out episodes that are answered rightly",
    "repaired": "the same among those in which the first digit was written wrong",
    "lock_success": "share of held-out episodes in which the lock opens",
    "question_calls": "turns of the training on the questions",
    "lock_calls": "the same on the lock",
}
CLAIMS = [
    ("earlier", "initial", "repaired", "restart and explore teaches to repair what is wrong"),
    ("earlier", "initial", "question_success", "restart and explore is ahead on the questions"),
    ("earlier", "initial", "lock_success", "failure replay opens the lock more often"),
]
TINY = ["model.tiny_hidden=32", "model.tiny_layers=1"]
LOCK = ["world.options.lengths=[8]", "world.options.wording=compact"]
QUIET = ["run.transcripts_every=0", "run.checkpoint_every=0"]
LEARN = {
    "question": (
        "satori",
        "text/reflection_satori.yaml",
        ["rollout.groups_per_step=32", "evaluation.seeds_per_task=32"],
    ),
    "lock": ("grpo", "text/lock_grpo.yaml", [*LOCK, "learner.learning_rate=1e-3", "evaluation.seeds_per_task=64"]),
}
UNSET = ["~starts.source", "~starts.episodes", "~starts.pick"]
"""Keys of the lock's settings that belong to snapshots."""
STARTS = {
    ("question", "initial"): ["starts=initial", "~starts.frac", "~starts.reflections"],
    ("question", "earlier"): [],
    ("lock", "initial"): ["starts=initial", *UNSET],
    ("lock", "earlier"): ["starts=failures", "starts.frac=0.75", "starts.back=1", *UNSET],
}
STEPS = {("question", "initial"): 5, ("question", "earlier"): 6, ("lock", "initial"): 8, ("lock", "earlier"): 16}
"""Seed 100 told how many turns a step of each arm takes."""


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """Both worlds, one after the other."""
    found = {}
    for world, (recipe, settings, words) in LEARN.items():
        run = folder / world
        start = start_of(world, folder.parents[1] / "common")
        also = [f"model.path={start}", f"run.seed={seed}", f"run.steps={STEPS[world, arm]}", *QUIET]
        play_recipe(recipe, settings, *STARTS[world, arm], *words, *also, folder=run)
        found |= {f"{world}_success": held_out_success(run), f"{world}_calls": turns_of_training(run)}
    return found | {"repaired": repaired(folder / "question")}


def turns_of_training(run: Path) -> float:
    """Environment calls of all steps: episodes times their mean length."""
    from rollwright.run_io import read_metrics

    rows = [row for row in read_metrics(run / "metrics.jsonl") if "rollout/num_turns_mean" in row]
    return sum(row["rollout/episodes_count"] * row["rollout/num_turns_mean"] for row in rows)


def repaired(run: Path) -> float:
    """Success in the held-out episodes whose pen slips: by the seed alone, whatever the policy said."""
    from rollwright.contracts import Task
    from rollwright.envs.text import reflection
    from rollwright.evaluation import load_evaluation

    world = reflection.build()
    rows = load_evaluation(run / "eval" / "final.json").scored
    tasks: dict[str, Task] = {task.id: task for task in world.tasks("test")}
    slipped = []
    for row in rows:
        env = world.make()
        env.reset(tasks[row.task], row.seed)
        if env.slips:
            slipped.append(float(bool(row.success)))
    return fmean(slipped)


def start_of(world: str, common: Path) -> Path:
    """The policy that all runs begin with: a tiny model that imitates a hand which is right now and then."""
    common.mkdir(parents=True, exist_ok=True)
    run = common / world
    with open(common / f"{world}.lock", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # arms may be played at the same time
        data, name = common / f"{world}_data", "reflection" if world == "question" else "lock"
        words = LOCK if world == "lock" else []
        few = ["collect.per_task=100"] if world == "lock" else []
        play_recipe("collect", f"text/{name}_collect.yaml", *words, *few, folder=data)
        stores, tiny = f"data.stores=[{data / 'trajectories'}]", TINY if world == "lock" else ["model.tiny_layers=1"]
        play_recipe("sft", f"text/{name}_sft.yaml", *words, *tiny, stores, folder=run)
    return run / "policy"
