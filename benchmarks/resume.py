"""Exact resume: a run that is killed again and again ends where the run ends that nobody disturbed, bit for bit.

    python benchmarks/resume.py --kills 100 --json
    python benchmarks/resume.py --world miniwob --kills 10 --json
    python benchmarks/resume.py --world attempts --kills 10 --json        SCoRe, killed in both stages

A GRPO run, or one of SCoRe in the world of two attempts (tiny model, float32, `rollout.schedule=rounds`), is played
once undisturbed. Then the same run is begun anew
and killed with SIGKILL at random moments, aimed in turn at every phase of every stretch of it, and started again with
the same command each time, until it has ended. Compared are all weights, the whole optimiser state, every trajectory
(prompts, sampled ids, log-probs, rewards, states) and every metric that is not a time.
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
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import command, machine, publish, table
from _lives import Aim, Life, live

from rollwright.contracts import Trajectory
from rollwright.recipes import grpo, rlgf, score, sft
from rollwright.run_io import Checkpoints, read_metrics
from rollwright.store import TrajectoryStore

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
PLAYED: dict[str, tuple[str, Callable[[list[str]], None]]] = {
    "attempts": ("SCoRe", score.main),
    "guided": ("RLGF", rlgf.main),
    "maze": ("GRPO", grpo.main),
    "miniwob": ("GRPO", grpo.main),
}
"""World -> the name of the method and its recipe."""
CHECKPOINT_EVERY = 3
EVALUATE_EVERY = 4
AIMS = ("collecting", "updating", "syncing", "storing", "checkpointing", "evaluating", "collecting", "resuming")
LASTS_S = {"syncing": 0.0, "storing": 0.003, "checkpointing": 0.03, "resuming": 0.03}
"""About, in seconds; others last longer. A sync ends before a signal arrives: the life is killed as it begins."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often the run is killed (100)")
    parser.add_argument("--world", choices=sorted(PLAYED), default="maze", help="what is played (maze)")
    parser.add_argument("--steps", type=int, default=0, help="steps of the run; 0 = enough for the kills")
    parser.add_argument("--seed", type=int, default=0, help="of the run and of the moments it is killed at (0)")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers", help="who samples")
    parser.add_argument(
        "--schedule", choices=("rounds", "continuous"), default="rounds", help="continuous: the control, which differs"
    )
    parser.add_argument("--folder", type=Path, help="keep the runs there; default: a temporary folder")
    parser.add_argument("--publish", action="store_true", help="write benchmarks/results/resume*.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    chosen = parser.parse_args()
    if chosen.folder:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        measure(chosen, chosen.folder)
    else:
        with tempfile.TemporaryDirectory(prefix="rollwright-resume-") as folder:
            measure(chosen, Path(folder))


def measure(chosen: argparse.Namespace, folder: Path) -> None:
    """Both runs, the comparison, the report."""
    steps = chosen.steps or max(8, chosen.kills // 2)
    start = warm_start(chosen.world, folder)
    words = settings(chosen, start, steps)
    began = time.monotonic()
    quiet = live(
        lambda: PLAYED[chosen.world][1]([*words, f"run.folder={folder / 'undisturbed'}"]), folder / "undisturbed.log"
    )
    require(quiet.status == 0, folder / "undisturbed.log")
    lives = disturbed(chosen, words, steps, folder)
    found, held = differences(folder / "undisturbed", folder / "killed")
    report(chosen, steps, lives, quiet, found, held, time.monotonic() - began)


def settings(chosen: argparse.Namespace, start: Path, steps: int) -> list[str]:
    """The words of the command line that both runs share."""
    common = [
        f"model.path={start}",
        f"run.seed={chosen.seed}",
        f"run.steps={steps}",
        f"run.checkpoint_every={CHECKPOINT_EVERY}",
        f"evaluation.every={EVALUATE_EVERY}",
        f"engine={chosen.engine}",
        "engine.dtype=float32",
        "learner.precision=float32",
        "learner.learning_rate=1e-3",
        f"rollout.schedule={chosen.schedule}",
        "run.transcripts_every=0",
        "evaluation.seeds_per_task=1",
    ]
    if chosen.world == "attempts":
        small = ["rollout.groups_per_step=3", "rollout.group_size=4", "rollout.parallel_episodes=8"]
        # Killed in both stages, and at the change from one to the other.
        return [str(RECIPES / "text/attempts_score.yaml"), *common, *small, f"algorithm.stage_one_steps={steps // 2}"]
    if chosen.world == "guided":
        # Both modes, by a coin for each step, so that both critics and both kinds of episodes are killed.
        guided = ["actor=teacher", "algorithm.method=lols", "algorithm.ppo_frac=0.5", "learner.minibatches=2"]
        small = ["rollout.groups_per_step=6", "rollout.max_turns=6", "evaluation.max_turns=3"]
        small += ["world.options.maze=umaze", "rollout.parallel_episodes=8"]
        return [str(RECIPES / "text/maze_ppo.yaml"), *common, *small, *guided]
    common += ["learner.minibatches=2", "curriculum=band"]
    if chosen.world == "maze":
        small = ["rollout.groups_per_step=3", "rollout.group_size=4", "rollout.max_turns=8", "evaluation.max_turns=4"]
        return [str(RECIPES / "text/maze_grpo.yaml"), *common, *small, "rollout.parallel_episodes=8"]
    small = ["rollout.groups_per_step=2", "rollout.group_size=4", "rollout.parallel_episodes=4"]
    chosen_tasks = ["world.options.tasks=[click-test-2, click-button]", "world.options.max_turns=3"]
    return [str(RECIPES / "web/miniwob_grpo.yaml"), *common, *small, *chosen_tasks, "algorithm.min_groups=1"]


def warm_start(world: str, folder: Path) -> Path:
    """A tiny policy that has seen demonstrations: one that only babbles earns the same everywhere and never moves."""
    run = folder / "start"
    if (run / "policy" / "config.json").exists():
        return run / "policy"
    if world in ("maze", "guided"):
        words = [str(RECIPES / "text/maze_sft.yaml"), "model.tiny_hidden=32", "data.per_task=8", "sft.epochs=2"]
        words += ["world.options.maze=umaze"] if world == "guided" else []
    elif world == "attempts":
        words = [str(RECIPES / "text/attempts_sft.yaml"), "model.tiny_hidden=32", "data.stores=[]"]
        words += ["data.per_task=400", "sft.epochs=1"]
    else:
        words = [
            str(RECIPES / "web/miniwob_sft.yaml"),
            f"model.path={folder / 'empty'}",
            "world.options.tasks=[click-test-2, click-button]",
            "data.per_task=24",
            "sft.learning_rate=3e-3",
            "sft.epochs=3",
            "sft.precision=float32",
        ]

    def imitate() -> None:
        if world == "miniwob":
            empty_model(folder / "empty")
        sft.main([*words, f"run.folder={run}"])

    require(live(imitate, folder / "start.log").status == 0, folder / "start.log")
    return run / "policy"


def empty_model(folder: Path) -> None:
    """A random model whose words are those of the two tasks; what it has no word for it spells in bytes."""
    from rollwright.models import make_tiny_model

    said = ["Reply: click N or fill N text", "Task: Click button ONE. Click the button.", "1 button ONE\n2 button TWO"]
    said += ["Click Me!", "Did: click 1; click 2", "click 1 click 2 click 3 click 4", "Error: there is no element"]
    make_tiny_model(folder, texts=said, hidden=64, layers=2, context_length=1024)


def disturbed(chosen: argparse.Namespace, words: list[str], steps: int, folder: Path) -> list[Life]:
    """Kill the run as often as wanted, then let it end. One entry per life."""
    rng = random.Random(f"kills/{chosen.seed}")
    run, log = folder / "killed", folder / "killed.log"
    shutil.rmtree(run, ignore_errors=True)

    def main() -> None:
        PLAYED[chosen.world][1]([*words, f"run.folder={run}"])

    lives: list[Life] = []
    for aim in aims(chosen.kills, steps, rng):
        lives.append(live(main, log, aim))
        require(lives[-1].status is None, log)
        print(f"kill {len(lives)}: {lives[-1].phase} of step {lives[-1].step}, {lives[-1].seconds:.1f} s", flush=True)
    lives.append(live(main, log))
    require(lives[-1].status == 0, log)
    return lives


def aims(kills: int, steps: int, rng: random.Random) -> list[Aim]:
    """Moments spread over the run, no phase left out; the run never ends before the last of them."""
    found = []
    for index in range(kills):
        step = min(steps - 2, int(index * (steps - 1) / kills))
        phase = AIMS[index % len(AIMS)]
        if phase == "checkpointing":  # the next step that ends with one
            step = min(step + (-step - 1) % CHECKPOINT_EVERY, steps - 2)
        elif phase == "evaluating":
            step = min(step + (-step - 1) % EVALUATE_EVERY, steps - 2)
        found.append(Aim(step=step, phase=phase, delay_s=rng.random() * LASTS_S.get(phase, 0.2)))
    return sorted(found, key=lambda aim: aim.step)


def require(fine: bool, log: Path) -> None:
    if not fine:
        raise SystemExit(f"a life did not end as expected:\n{log.read_text(errors='replace')[-3000:]}")


def differences(one: Path, two: Path) -> tuple[dict[str, int], dict[str, int]]:
    """How many weights, optimiser states, trajectories and metrics differ in any bit, or are there once only.

    Returns:
        The number of differences of each kind; how many of each kind the first run has.
    """
    states = [flat_state(latest(run)) for run in (one, two)]
    episodes = [
        [compared(t) for t in TrajectoryStore(r / "trajectories", mode="read").iter_trajectories()] for r in (one, two)
    ]
    metrics = [[timeless(row) for row in read_metrics(run / "metrics.jsonl")] for run in (one, two)]
    found = {
        "state": unequal(*states, same=torch.equal),
        "trajectories": count_unequal(*episodes),
        "metrics": count_unequal(*metrics),
    }
    return found, {"state": len(states[0]), "trajectories": len(episodes[0]), "metrics": len(metrics[0])}


def latest(run: Path) -> Path:
    found = Checkpoints(run / "checkpoints").latest()
    if found is None:
        raise SystemExit(f"{run} has no checkpoint at its end")
    return found.path


def flat_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the learner's state by its place, numbers as tensors too."""
    # A recipe's further critics lie beside the learner.
    files = [checkpoint / "learner.pt", *sorted(checkpoint.glob("*critic.pt"))]
    state = {file.stem: torch.load(file, weights_only=True) for file in files}
    flat: dict[str, torch.Tensor] = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{place}/{key}")
        elif isinstance(value, torch.Tensor):
            flat[place] = value
        elif isinstance(value, int | float):
            flat[place] = torch.tensor(value, dtype=torch.float64)

    walk(state, "")
    return flat


def compared(trajectory: Trajectory) -> tuple[Any, ...]:
    """All of an episode but what the clock says."""
    turns = tuple(
        (t.prompt_ids, t.action_ids, t.action_logprobs, t.observed, t.spans, tuple(t.rewards.items()), t.state_key)
        for t in trajectory.turns
    )
    score = None if trajectory.score is None else trajectory.score.value
    return trajectory.id, trajectory.seed, trajectory.stop_reason, trajectory.success, score, turns


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("time/") and not name.endswith("_s")}


def unequal(one: dict[str, Any], two: dict[str, Any], *, same: Callable[[Any, Any], bool]) -> int:
    return sum(key not in one or key not in two or not same(one[key], two[key]) for key in one.keys() | two.keys())


def count_unequal(one: list[Any], two: list[Any]) -> int:
    return sum(a != b for a, b in zip(one, two, strict=False)) + abs(len(one) - len(two))


def report(
    chosen: argparse.Namespace,
    steps: int,
    lives: list[Life],
    quiet: Life,
    found: dict[str, int],
    held: dict[str, int],
    seconds: float,
) -> None:
    killed = [life for life in lives if life.status is None]
    phases = Counter(life.phase for life in killed)
    rows = [[phase, count] for phase, count in phases.most_common()]
    text = "\n".join(
        [
            f"# Exact resume: {len(killed)} kills of a {PLAYED[chosen.world][0]} run on {chosen.world}\n",
            f"`{command()}`\n",
            f"{steps} steps, a checkpoint every {CHECKPOINT_EVERY}, engine {chosen.engine}, float32, schedule "
            f"{chosen.schedule}. The undisturbed",
            f"run took {quiet.seconds:.1f} s; the killed one {sum(life.seconds for life in lives):.1f} s in",
            f"{len(lives)} lives.\n",
            f"Differences: {found['state']} of {held['state']} tensors of weights and optimiser state,",
            f"{found['trajectories']} of {held['trajectories']} trajectories, {found['metrics']} of "
            f"{held['metrics']} lines of metrics.\n",
            table(["killed while", "times"], rows),
            f"\nMachine: {machine('torch', 'transformers')}",
        ]
    )
    summary = {
        "kills": len(killed),
        "differences": sum(found.values()),
        "differences_by_kind": found,
        "compared": held,
        "kills_by_phase": dict(phases),
        "world": chosen.world,
        "engine": chosen.engine,
        "seconds": round(seconds, 1),
    }
    name = "resume" if chosen.world == "maze" and chosen.engine == "transformers" else "resume_"
    name += "" if name == "resume" else (chosen.world if chosen.engine == "transformers" else f"{chosen.world}_vllm")
    publish(name, text, summary, as_json=chosen.json, keep=chosen.publish)


if __name__ == "__main__":
    main()
