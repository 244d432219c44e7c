"""The reasoning blueprint on a lock that one wrong digit blocks: search with a learned value, and the two phases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from _branching import Claim, apart, play_recipe

DIALS = 6
WORLD = [f"world.options.lengths=[{DIALS}]", "world.options.wording=compact"]
STEPS, TREES, FIRST_TREES = 4, 6, 16
HELD_OUT, BUDGET = 32, 72
RUN = [
    *WORLD,
    f"rollout.groups_per_step={TREES}",
    f"algorithm.phase_one_trees={FIRST_TREES}",
    "evaluation.seeds_per_task=1",
]
TITLE = "The reasoning blueprint: search with a learned value, and two phases"
ABOUT = f"""A lock of {DIALS} dials with two digits, which a wrong digit blocks (`text.combination_lock`). The start
turns a dial the right way in about six of ten tries. The two phases are `recipes/reasoner.py` with
`text/lock_reasoner.yaml`: one step of phase 1 with {FIRST_TREES} trees, then {STEPS - 1} steps of phase 2 with {TREES}
trees each. Every arm is judged on {HELD_OUT} held-out starts; tokens are sampled at temperature 1. `best_of_n` and
`search` have the same policy (the start), the same value model (after phase 1), and at most {BUDGET} sampled tokens for
a start; neither sees a reward or a verdict. The digits of this lock are the same in every split: starts are held out,
but there is nothing else to generalise to."""
ARMS = {
    "start": "the start, one sampled episode",
    "best_of_n": "the start, as many episodes as the tokens allow, the best by the value model after phase 1",
    "search": "the start, PUCT with the value model after phase 1",
    "phase1": "the policy after phase 1, one sampled episode",
    "phase2": "the policy after phase 2, one sampled episode",
}
METRICS = {
    "success": "share of held-out starts solved",
    "tokens": "sampled tokens per start",
    "calls": "calls of the world per start",
    "ranked": "accuracy of the arm's value model on pairs of a better and a worse step, from trees of the start that it"
    " was not fitted to; 0.5 is chance, and what `start` has without a model",
}
CLAIMS = [
    Claim("search", "best_of_n", "success", "search with the learned value beats best of n at equal tokens"),
    Claim("best_of_n", "start", "success", "best of n by the learned value beats one episode"),
    Claim("phase1", "start", "success", "imitating what the search finds improves the policy"),
    Claim("phase2", "phase1", "success", "phase 2 improves on phase 1"),
]
MISSING = [
    "A world with held-out tasks (household, compact): its supervised start alone takes longer than this table.",
    "Phase 2 against as many trees of imitation alone: not run.",
]


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """The arm from a seed of the run; the start is the same for all."""
    common = folder.parents[1] / "common"
    start = made_start(common)
    if arm == "start":
        return judged(start, None, folder, chain) | {"ranked": 0.5}
    run = two_phases(start, common / f"run_{seed}", seed)
    after = run if arm == "phase2" else run / "phase1"
    how = {"best_of_n": best_of_n, "search": search}.get(arm, chain)
    found = judged(start if how is not chain else after / "policy", after / "value", folder, how)
    return found | judged(start, after / "value", after, ranking)


def two_phases(start: Path, run: Path, seed: int) -> Path:
    """One run; policy and value model after phase 1 are kept beside those of its end."""
    words = [*RUN, f"run.seed={seed}", f"model.path={start}"]
    if not (run / "phase1" / "value").exists():
        play_recipe("reasoner", "text/lock_reasoner.yaml", *words, "run.steps=1", folder=run)
        for kept in ("policy", "value"):
            shutil.copytree(run / kept, run / "phase1" / kept)
        # The next start goes on from the checkpoint.
        (run / "finished.txt").unlink()
    play_recipe("reasoner", "text/lock_reasoner.yaml", *words, f"run.steps={STEPS}", folder=run)
    return run


def made_start(common: Path) -> Path:
    """A tiny policy that imitates a hand which is right in six of ten tries."""
    data, start = common / "data", common / "start"
    back = "world.options.slip=back"  # a wrong digit is no end, so that every dial is seen
    play_recipe("collect", "text/lock_collect.yaml", *WORLD, back, "collect.per_task=100", folder=data)
    stores = f"data.stores=[{data / 'trajectories'}]"
    play_recipe("sft", "text/lock_sft.yaml", *WORLD, back, stores, folder=start)
    return start / "policy"


def judged(policy: Path, value: Path | None, folder: Path, how: Callable[..., dict[str, float]]) -> dict[str, float]:
    """What `how` finds out about a policy and a value model, in a process of its own."""
    import rollwright.recipes.reasoner  # noqa: F401  before the fork, which then need not import it again

    kept = folder / f"{how.__name__}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    apart(lambda: kept.write_text(json.dumps(how(policy, value, folder))), folder.with_suffix(f".{how.__name__}.log"))
    return dict(json.loads(kept.read_text()))


def chain(policy: Path, value: Path | None, folder: Path) -> dict[str, float]:
    """One episode for each start."""
    return searched(policy, None, folder, {"rule": "best_of_n", "simulations": 1})


def best_of_n(policy: Path, value: Path | None, folder: Path) -> dict[str, float]:
    """As many episodes as the budget allows."""
    limits = {"simulations": BUDGET, "max_tokens": BUDGET}
    return searched(policy, value, folder, {"rule": "best_of_n", "value": "critic"} | limits)


def search(policy: Path, value: Path | None, folder: Path) -> dict[str, float]:
    """The blueprint's tree, with room left in the budget to play the chosen path out."""
    # A lock that is blocked is no reason to end the search: `stop_at_end` would end it where such a state is tried.
    rule = {"rule": "puct", "children": 4, "simulations": 12, "stop_at_end": False}
    return searched(policy, value, folder, rule | {"value": "critic", "max_tokens": BUDGET})


def ranking(policy: Path, value: Path | None, folder: Path) -> dict[str, float]:
    """How the model ranks the steps of the policy's own trees, whose verdicts are known here."""
    from rollwright.maths import ranking_accuracy
    from rollwright.methods import step_pairs

    trees, model = grown(policy, value, folder, {"rule": "uct", "children": 4, "simulations": 16}, sees_verdict=True)
    better, worse = step_pairs(trees)
    return {"ranked": ranking_accuracy(model.read(better), model.read(worse)) or 0.5}


def searched(policy: Path, value: Path | None, folder: Path, settings: dict) -> dict[str, float]:
    trees, _ = grown(policy, value, folder, settings, sees_verdict=False)
    chosen = [tree.nodes[tree.chosen or 0] for tree in trees]
    return {
        "success": fmean(float(bool(node.success)) for node in chosen),
        "tokens": fmean(tree.tokens for tree in trees),
        "calls": fmean(tree.env_calls + tree.replayed_calls for tree in trees),
    }


def grown(policy: Path, value: Path | None, folder: Path, settings: dict, *, sees_verdict: bool):
    """The trees of the held-out starts, and the value model where there is one."""
    from rollwright.contracts import tasks_of
    from rollwright.critics import SuccessChance, load_step_value
    from rollwright.evaluation import held_out_seeds
    from rollwright.generation import EngineSettings
    from rollwright.models import ModelSettings
    from rollwright.rollout import EngineActor, RolloutSettings
    from rollwright.rollout.trees import SearchSettings, TreeRequest, grow_trees
    from rollwright.training import WorldSettings, open_stage

    options = {"lengths": [DIALS], "digits": 2, "slip": "over", "wording": "compact"}
    world = WorldSettings(name="text.combination_lock", options=options)
    rollout = RolloutSettings(context="windowed", history=0, max_action_tokens=4, parallel_episodes=HELD_OUT)
    with open_stage(world, ModelSettings(path=str(policy)), folder) as stage:
        engine = stage.open_engine(EngineSettings(name="transformers", dtype="float32"))
        collector = stage.open_collector(rollout, EngineActor(engine), context_length=engine.context_length)
        model = None if value is None else load_step_value(value, stage.codec.tokenizer)
        (task,) = tasks_of(stage.world, "test")
        seeds = held_out_seeds("test", task, HELD_OUT)
        requests = [TreeRequest(key=f"test/{seed}/{folder.name}", task=task, seed=seed) for seed in seeds]
        search = SearchSettings(**settings)
        judge = SuccessChance(model) if model is not None and search.value == "critic" else None
        return grow_trees(collector, requests, search, judge, sees_verdict=sees_verdict), model
