"""SCoRe on small functions: hidden cases in the sandbox judge both attempts; held out are other behaviours."""

from __future__ import annotations

from pathlib import Path

from _branching import play_recipe
from _score_arms import ARMS as ALL_ARMS
from _score_arms import METRICS, AttemptWorld, claims_of, play_arm

TITLE = "SCoRe on compact `code.correction`"
ABOUT = (
    "Functions of two steps over one number, two attempts, hidden cases; a tiny model after imitation of a teacher "
    "whose first attempt is wrong half of the time. Held out: 100 specifications that behave differently, one episode "
    "each at temperature 1. Every arm samples 1,152 to 1,200 episodes (SCoRe 24 steps of 48, 12 of them in stage I)."
)
ARMS = {name: text for name, text in ALL_ARMS.items() if name in ("start", "sft_ends_right", "two_turn", "score")}
CLAIMS = claims_of(ARMS)
__all__ = ["ABOUT", "ARMS", "CLAIMS", "METRICS", "TITLE", "play"]

WORLD = AttemptWorld(
    settings={
        "score": "code/correction_compact_score.yaml",
        "collect": "code/correction_compact.yaml",
        "sft": "code/correction_compact_sft.yaml",
        "evaluate": "code/correction_compact.yaml",
    },
    world=(),
    learning=("run.steps=24", "algorithm.stage_one_steps=12"),
    sft=("~model.tiny_hidden", "~model.tiny_layers", "~data.per_task", "sft.epochs=3", "sft.learning_rate=1e-3"),
    judged=("evaluation.split=test", "evaluation.seeds_per_task=1", "evaluation.temperature=1.0"),
    per_task=3,
    unset=(),
)


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    common = folder.parents[1] / "common"
    play_recipe("sft", "code/correction_compact_sft.yaml", folder=common / "start")
    return play_arm(WORLD, arm, seed, folder, common / "start" / "policy")
