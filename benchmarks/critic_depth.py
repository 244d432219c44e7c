"""How deep should a frozen critic read? Held-out AUC of "this episode ends well" by heads on the lower part of a body.

    python benchmarks/critic_depth.py --store runs/miniwob_data/trajectories --model runs/miniwob_sft/policy

Heads V (at the end of each state) and Q (at the end of each action) learn the outcome of two thirds of the stored
episodes by `FrozenValueLearner`, as the recipes use it with `critic.frozen` and `critic.depth`, and are judged on the
turns of the others. An AUC of 0.5 is chance; "by task" averages over the tasks, within which the task itself says
nothing. Several cuts of the episodes, the same for every depth. The table goes to benchmarks/results/critic_depth.md.
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RESULTS, command, machine, table
from torch import Tensor

from rollwright.critics import FrozenValueLearner, TurnCriticSettings, cut_to, policy_body
from rollwright.learner import OptimiserSettings, open_accelerator
from rollwright.models import load_model
from rollwright.store import TrajectoryStore

UPDATES, BATCH = 150, 64


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a success is scored above a failure; nan where one of them is missing."""
    won, lost = scores[labels == 1], scores[labels == 0]
    if not len(won) or not len(lost):
        return float("nan")
    difference = won[:, None] - lost[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def fit(critic: FrozenValueLearner, head: str, sequences: list[Any], labels: np.ndarray, seed: int) -> None:
    """Cross-entropy on the outcomes."""
    draws = np.random.default_rng(seed)
    for _ in range(UPDATES):
        chosen = draws.integers(len(sequences), size=BATCH)
        wanted = torch.as_tensor(labels[chosen], dtype=torch.float32)
        critic.update({head: ([sequences[k] for k in chosen], wanted)})


def judged(model: Path, depth: float, turns: list[tuple[int, str, Any, float]], cuts: int) -> dict[str, list[float]]:
    """AUC of each head on held-out turns, overall and by task, one number per cut."""
    owners, labels = np.array([t[0] for t in turns]), np.array([t[3] for t in turns])
    tasks = np.array([t[1] for t in turns])
    read = {"v": [t[2].prompt_ids for t in turns], "q": [t[2].prompt_ids + t[2].action_ids for t in turns]}
    body = cut_to(policy_body(load_model(model)), depth)
    known: dict[bytes, Tensor] = {}  # hidden states are the same whatever the cut
    found: dict[str, list[float]] = {}
    for cut in range(cuts):
        episodes = np.unique(owners)
        test = np.isin(owners, np.random.default_rng(cut).permutation(episodes)[: len(episodes) // 3])
        torch.manual_seed(cut)
        for head, sequences in read.items():
            settings = TurnCriticSettings(heads={head: 1})
            critic = FrozenValueLearner(
                open_accelerator(), body, settings, OptimiserSettings(learning_rate=1e-3), autocast_dtype=torch.bfloat16
            )
            critic._hidden = known
            fit(critic, head, [sequences[k] for k in np.flatnonzero(~test)], labels[~test], cut)
            scores = critic.read(sequences)[head][0].numpy()
            each = [auc(scores[w], labels[w]) for name in np.unique(tasks) if (w := test & (tasks == name)).any()]
            found.setdefault(head, []).append(auc(scores[test], labels[test]))
            found.setdefault(f"{head} by task", []).append(float(np.nanmean(each)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", required=True, type=Path, help="folder of stored trajectories with outcomes")
    parser.add_argument("--model", required=True, type=Path, help="the policy whose body is read with")
    parser.add_argument("--depths", type=float, nargs="+", default=[0.33, 0.5, 0.67, 0.8, 1.0])
    parser.add_argument("--cuts", type=int, default=5, help="cuts of the episodes into train and test")
    parser.add_argument("--episodes", type=int, default=300, help="at most so many")
    arguments = parser.parse_args()
    whole = [t for t in TrajectoryStore(arguments.store).iter_trajectories() if t.turns and t.success is not None]
    chosen = whole[: arguments.episodes]
    turns = [(n, t.task.id, turn, float(bool(t.success))) for n, t in enumerate(chosen) for turn in t.turns]
    names = ["v", "v by task", "q", "q by task"]
    lines = []
    for depth in arguments.depths:
        found = judged(arguments.model, depth, turns, arguments.cuts)
        lines.append([f"{depth:g}", *(f"{np.mean(found[n]):.3f} +- {np.std(found[n]):.3f}" for n in names)])
        print(lines[-1], flush=True)
    text = "\n".join(
        [
            "# How deep a frozen critic should read",
            "",
            f"`{command()}`",
            "",
            f"{machine('torch', 'transformers')}.",
            f"{len(turns)} turns of {len(chosen)} episodes, {np.mean([t[3] for t in turns]):.2f} of them in episodes "
            f"that end well; mean and deviation of the held-out AUC over {arguments.cuts} cuts.",
            "",
            table(["depth", *(name.upper() if len(name) == 1 else name for name in names)], lines),
            "",
        ]
    )
    (RESULTS / "critic_depth.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
