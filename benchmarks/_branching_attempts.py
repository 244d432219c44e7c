"""SCoRe on five answers: the toy of its card. What is remembered in training is asked again in evaluation."""

from __future__ import annotations

from pathlib import Path

from _branching import play_recipe
from _score_arms import ARMS as ALL_ARMS
from _score_arms import METRICS, AttemptWorld, claims_of, play_arm

TITLE = "SCoRe on five answers (`text.second_attempt`)"
ABOUT = (
    "One question with one of five digits as the answer, two attempts; a tiny model that guesses evenly in both. The "
    "same question is asked in training and evaluation (there is nothing to generalise); evaluation: 128 episodes at "
    "temperature 1. Every arm samples 1,024 episodes, the runs of SCoRe in 16 steps, 10 of them in stage I. "
    "All runs are judged with the same 128 random draws (one episode is 0.008), so the intervals are about training "
    "seeds, not about other draws. Two-turn RL is right at once here, which leaves nothing to gain; where SCoRe gains "
    "more, its first attempt has been held back by stage I."
)
ARMS = {name: text for name, text in ALL_ARMS.items() if name not in ("no_stage_one", "no_bonus")}
CLAIMS = claims_of(ARMS)
MISSING = [
    "SCoRe without stage I and SCoRe without the bonus: no machine time was left for their runs.",
    "Five seeds: the table says how many there are; a run of 16 steps took up to 214 s on a machine that was shared.",
    "Compact `code.correction`: start, settings and part (`correction`) are there, one run was made from seed 100 "
    "(docs/methods/score.md); the table would have taken more than an hour.",
]
__all__ = ["ABOUT", "ARMS", "CLAIMS", "METRICS", "MISSING", "TITLE", "play"]

WORLD = AttemptWorld(
    settings={
        "score": "text/attempts_score.yaml",
        "collect": "text/attempts_collect.yaml",
        "sft": "text/attempts_sft.yaml",
        "evaluate": "text/attempts.yaml",
    },
    world=("world.options.digits=5",),
    learning=(
        "rollout.groups_per_step=4",
        "run.steps=16",
        "algorithm.stage_one_steps=10",
        "learner.learning_rate=2e-3",
    ),
    sft=("sft.epochs=3", "sft.learning_rate=1e-3"),
    judged=("evaluation.split=test", "evaluation.seeds_per_task=128", "evaluation.temperature=1.0"),
    per_task=1024,
    unset=("~model.tiny_hidden",),
)


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    common = folder.parents[1] / "common"
    play_recipe("collect", "text/attempts_collect.yaml", *WORLD.world, "collect.per_task=600", folder=common / "data")
    stores = f"data.stores=[{common / 'data' / 'trajectories'}]"
    play_recipe("sft", "text/attempts_sft.yaml", *WORLD.world, stores, folder=common / "start")
    return play_arm(WORLD, arm, seed, folder, common / "start" / "policy")
