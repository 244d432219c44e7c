"""Exact resume of Agent-R: a run that is killed again and again ends where the run ends that nobody disturbed.

    python benchmarks/resume_agent_r.py --kills 10 --json

As `resume.py`, with rounds of search, revisions and imitation in place of GRPO steps: a tiny model on the small maze,
float32, `rollout.schedule=rounds`. Kills are aimed at the search, the replays, the updates and the checkpoints.
"""

from __future__ import annotations

import os

# Before torch is imported: its thread pools read the environment once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from _common import command, machine, publish
from _lives import Aim, Life, live
from resume import RECIPES, differences, require

from rollwright.recipes import agent_r, collect, filtered_bc

AIMS = ("storing", "resuming", "scoring", "checkpointing", "syncing")
"""A search has no phase of its own: it begins where the step before it ends, and is met by the delays."""
SMALL = [
    *("world.options={maze: umaze, wording: compact, max_turns: 12}", "rollout.max_turns=0", "rollout.schedule=rounds"),
    *("rollout.groups_per_step=4", "rollout.parallel_episodes=4", "search.simulations=6", "run.checkpoint_every=1"),
    *("evaluation.seeds_per_task=1", "evaluation.max_turns=4", "run.transcripts_every=0", "learner.learning_rate=1e-3"),
]


def warm_start(folder: Path) -> Path:
    """A tiny policy that walks at random: it imitates random moves, so that some searches find the goal."""
    tiny = ["world.name=text.maze", "model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", *SMALL[:1]]
    shared = [*tiny, "engine.name=transformers", "rollout.max_action_tokens=4", "rollout.history=0"]
    collect.main([*shared, "collect.by=random", "collect.per_task=20", f"run.folder={folder / 'data'}"])
    words = ["run.steps=1", "algorithm.offline_steps=1", "algorithm.top_frac=1", "learner.precision=float32"]
    words += ["algorithm.updates=60", "learner.learning_rate=3e-3", "engine.dtype=float32", "evaluation.max_turns=4"]
    store = f"replay.stores=[{folder / 'data' / 'trajectories'}]"
    filtered_bc.main([*shared, *words, store, "evaluation.seeds_per_task=1", f"run.folder={folder / 'start'}"])
    return folder / "start" / "policy"


def measure(kills: int, steps: int, seed: int, folder: Path) -> tuple[list[Life], dict[str, int], dict[str, int]]:
    """Both runs; the lives of the killed one, what differs, and how much was compared."""
    require(live(lambda: warm_start(folder) and None, folder / "start.log").status == 0, folder / "start.log")
    start = folder / "start" / "policy"
    words = [str(RECIPES / "text/maze_agent.yaml"), f"model.path={start}", f"run.steps={steps}", *SMALL]
    words += [f"run.seed={seed}"]
    quiet, killed, log = folder / "undisturbed", folder / "killed", folder / "killed.log"
    ended = live(lambda: agent_r.main([*words, f"run.folder={quiet}"]), folder / "undisturbed.log")
    require(ended.status == 0, folder / "undisturbed.log")
    shutil.rmtree(killed, ignore_errors=True)
    # A round of the run that nobody disturbs, start and end of the run left out: delays reach into all of it.
    round_s = ended.seconds / (steps + 2)
    rng, lives = random.Random(f"kills/{seed}"), []
    for index in range(kills):
        aim = Aim(step=min(index, steps - 2), phase=AIMS[index % len(AIMS)], delay_s=rng.random() * round_s)
        lives.append(live(lambda: agent_r.main([*words, f"run.folder={killed}"]), log, aim))
        require(lives[-1].status is None, log)
        print(f"kill {index + 1}: {lives[-1].phase} of round {lives[-1].step}, {lives[-1].seconds:.1f} s", flush=True)
    lives.append(live(lambda: agent_r.main([*words, f"run.folder={killed}"]), log))
    require(lives[-1].status == 0, log)
    return lives, *differences(quiet, killed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how often the run is killed (10)")
    parser.add_argument("--steps", type=int, default=0, help="rounds of the run; 0 = enough for the kills")
    parser.add_argument("--seed", type=int, default=0, help="of the run and of the moments it is killed at (0)")
    parser.add_argument("--folder", type=Path, help="keep the runs there; default: a temporary folder")
    parser.add_argument("--publish", action="store_true", help="write benchmarks/results/resume_agent_r.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    chosen = parser.parse_args()
    # A life ends about a round after the one before it.
    steps = chosen.steps or chosen.kills + 2
    with tempfile.TemporaryDirectory(prefix="rollwright-resume-") as place:
        folder = chosen.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        lives, found, held = measure(chosen.kills, steps, chosen.seed, folder)
    phases = Counter(life.phase for life in lives if life.status is None)
    text = "\n".join(
        [
            f"# Exact resume: {chosen.kills} kills of an Agent-R run on the maze\n",
            f"`{command()}`\n",
            f"{steps} rounds, a checkpoint after each, float32, schedule rounds. Killed while: "
            + ", ".join(f"{phase} {count}" for phase, count in phases.most_common())
            + ". A search has no phase of its own:",
            "a kill in it counts to the phase before it.\n",
            f"Differences: {found['state']} of {held['state']} tensors of weights and optimiser state,",
            f"{found['trajectories']} of {held['trajectories']} trajectories, {found['metrics']} of "
            f"{held['metrics']} lines of metrics.",
            f"\nMachine: {machine('torch', 'transformers')}",
        ]
    )
    summary = {
        "kills": chosen.kills,
        "differences": sum(found.values()),
        "differences_by_kind": found,
        "compared": held,
        "kills_by_phase": dict(phases),
    }
    publish("resume_agent_r", text, summary, as_json=chosen.json, keep=chosen.publish)


if __name__ == "__main__":
    main()
