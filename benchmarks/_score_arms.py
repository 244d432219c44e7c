"""SCoRe and its controls, as recipes with words: the same start, the same number of sampled episodes, one evaluation.

The two parts of the table that use them differ in the world alone: `_branching_attempts.py` (five answers) and
`_branching_correction.py` (functions in the sandbox).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _branching import Claim, play_recipe, training_total

from rollwright.evaluation import attempt_figures, load_evaluation
from rollwright.store import TrajectoryStore

ARMS = {
    "start": "the policy that all others begin with",
    "sft_corrected": "SFT on own corrections: sampled once from the start, second attempts after wrong first ones that "
    "were right are imitated",
    "sft_ends_right": "the same with right → right added",
    "two_turn": "plain two-turn REINFORCE: no stage I, no bonus",
    "no_stage_one": "SCoRe without stage I",
    "no_bonus": "SCoRe without the bonus",
    "score": "SCoRe",
    "return_to_go": "SCoRe with `turn_gamma=1`: the first attempt is credited with the second one's reward too",
}
METRICS = {
    "acc@t1": "share of held-out episodes whose first attempt is right",
    "acc@t2": "the same of the second",
    "gain": "acc@t2 - acc@t1 = i→c - c→i",
    "i→c": "share of all episodes that become right",
    "c→i": "share of all episodes that become wrong",
    "edit": "edit distance between the attempts over the longer one's length",
    "episodes": "sampled for training",
    "seconds": "of the machine's clock, evaluation included, on a machine that others use too",
}
WORDS = {
    "two_turn": ("algorithm.stage_one_steps=0", "algorithm.bonus=0"),
    "no_stage_one": ("algorithm.stage_one_steps=0",),
    "no_bonus": ("algorithm.bonus=0",),
    "score": (),
    "return_to_go": ("algorithm.turn_gamma=1",),
}
"""What each run of the recipe has besides the world's settings."""
ENGINE = ("engine.name=transformers", "engine.dtype=float32")
CLAIMS = [
    Claim("score", "sft_corrected", "gain", "SCoRe gains more between the attempts than SFT on wrong → right"),
    Claim("score", "sft_ends_right", "gain", "SCoRe gains more than SFT with right → right added"),
    Claim("score", "two_turn", "gain", "SCoRe gains more than plain two-turn RL"),
    Claim("score", "sft_corrected", "acc@t2", "SCoRe's second attempt is better than that of SFT on wrong → right"),
    Claim("score", "sft_ends_right", "acc@t2", "SCoRe's second attempt is better than that of SFT with right → right"),
    Claim("score", "two_turn", "acc@t2", "SCoRe's second attempt is not worse than that of two-turn RL", 0.02),
    Claim("score", "start", "acc@t1", "SCoRe's first attempt is at most 2 points below the start's", 0.02),
    Claim("score", "no_stage_one", "gain", "stage I adds to the gain"),
    Claim("score", "no_bonus", "gain", "the bonus adds to the gain"),
    Claim("score", "return_to_go", "acc@t1", "return-to-go with the bonus pays for a wrong first attempt"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptWorld:
    """One world with its settings.

    settings: YAML of the world for `score`, `collect`, `sft` and `evaluate`, below recipes/. world: words that change
    the world in all of them. learning: further words of the SCoRe runs. sft: words of the SFT arms. judged: words of
    every evaluation. per_task: episodes that the SFT arms sample from each training task, as many as a run of SCoRe.
    unset: words that take back what the YAML of `collect` and `sft` says of another model.
    """

    settings: dict[str, str]
    world: tuple[str, ...]
    learning: tuple[str, ...]
    sft: tuple[str, ...]
    judged: tuple[str, ...]
    per_task: int
    unset: tuple[str, ...] = ()

    def run(self, recipe: str, folder: Path, *words: str) -> float:
        """One recipe in this world."""
        return play_recipe(recipe, self.settings[recipe], *self.world, *words, folder=folder)


def claims_of(arms: Iterable[str]) -> list[Claim]:
    """The claims about these arms alone."""
    there = set(arms)
    return [claim for claim in CLAIMS if {claim.higher, claim.lower} <= there]


def play_arm(world: AttemptWorld, arm: str, seed: int, folder: Path, start: Path) -> dict[str, float]:
    """One arm from one seed; `start` is the folder of the policy that all begin with."""
    if arm in WORDS:
        words = [f"run.seed={seed}", f"model.path={start}", *world.learning, *world.judged, *WORDS[arm]]
        seconds = world.run("score", folder / "run", *words)
        episodes = training_total(folder / "run", "rollout/episodes_count")
        return figures(folder / "run" / "eval" / "final.json") | {"episodes": episodes, "seconds": seconds}
    if arm == "start":
        return judge(world, start, folder) | {"episodes": 0.0, "seconds": 0.0}
    data, seconds = folder.parents[1] / "common" / f"samples-{seed}", 0.0
    own = [f"run.seed={seed}", f"model.path={start}", *world.unset]
    words = [*own, *ENGINE, "collect.by=policy", f"collect.per_task={world.per_task}"]
    seconds += world.run("collect", data, *words)
    kept = "wrong_to_right" if arm == "sft_corrected" else "ends_right"
    words = [*own, f"data.stores=[{data / 'trajectories'}]", *world.sft]
    seconds += world.run("sft", folder / "run", *words, f"data.corrections={kept}", "data.only_success=true")
    episodes = float(len(TrajectoryStore(data / "trajectories", mode="read")))
    return judge(world, folder / "run" / "policy", folder) | {"episodes": episodes, "seconds": seconds}


def judge(world: AttemptWorld, policy: Path, folder: Path) -> dict[str, float]:
    """A policy on the same held-out starts as the runs' own evaluations."""
    play_recipe(
        "evaluate",
        world.settings["evaluate"],
        *world.world,
        f"model.path={policy}",
        *world.judged,
        *ENGINE,
        folder=folder / "judged",
        key="folder",
    )
    return figures(folder / "judged" / "eval" / "evaluation.json")


def figures(path: Path) -> dict[str, float]:
    """What the table says of an evaluation."""
    found = attempt_figures(load_evaluation(path))
    assert found is not None, f"{path} has no attempts"
    return {
        "acc@t1": found.accuracy[0].point,
        "acc@t2": found.accuracy[-1].point,
        "gain": found.gain.point,
        "i→c": found.wrong_to_right,
        "c→i": found.right_to_wrong,
        "edit": found.edit_ratio_mean or 0.0,
    }
