"""Distillation from the policy with the digits of a lock in its prompt, against GRPO with as many episodes."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean

from _branching import held_out_success, play_recipe, training_total

from rollwright.run_io import read_metrics

DIALS, DIGITS = 6, 2
STEPS, GROUPS, MEMBERS = 16, 4, 8
SURE = 0.9
TITLE = "Distillation from a hinted self: a lock whose digits only the teacher is given"
ABOUT = f"""Compact locks of {DIALS} dials with {DIGITS} digits; one wrong digit blocks the lock
(`text.combination_lock`, `slip: over`). One tiny model was made by SFT on a scripted hand that opens
other locks, half of the demonstrations with the digits written above the state: it opens a lock that it
is told and guesses one that it is not. Each seed has a lock of its own, which no demonstration has
opened. All arms start from that one model and play {STEPS * GROUPS * MEMBERS} episodes without the
digits ({STEPS} steps of {GROUPS} groups of {MEMBERS}); held-out are 64 episodes of the same lock without
the digits, at temperature 1. All arms take two passes over a step's episodes. On seed 100, each side's
best of three or four settings was taken (episodes to {SURE:g}): GRPO with a rate of 1e-3 needed 608,
with 2e-3 480, with 3e-3 more than 512; distillation with 1e-3 and one pass 768, with 3e-3 480, with two
passes 384 (2e-3) and 288 (3e-3, token-mean)."""
ARMS = {
    "grpo": "GRPO on the lock's reward, the baseline",
    "distill": "sampled-token distillation, the teacher is the start with the digits; no reward",
    "distill_full": "the same by the reverse KL over the whole vocabulary",
    "wrong_hint": "control: distillation with the digits of a lock of which every digit is another",
}
METRICS = {
    "success": "share of held-out episodes that open the lock, without the digits",
    "of_hinted": "success divided by that of the start with the digits",
    "episodes_to_sure": f"training episodes until {SURE:g} of a step's episodes open the lock, over 3 steps; all that "
    "were played where that never came",
    "episodes": "training episodes played",
    "turns": "training turns, each a call of the environment",
}
CLAIMS = [
    ("distill", "grpo", "success", "Distillation from a hinted self opens more locks than GRPO at equal episodes"),
    ("grpo", "distill", "episodes_to_sure", "GRPO needs more episodes to .9 than distillation"),
    ("distill", "wrong_hint", "success", "What is learned is the hint: with a wrong one the lock stays shut"),
    ("distill_full", "distill", "success", "The whole vocabulary is not worse than the sampled token", 0.05),
]
FIRST_TARGET = 1000
"""Number of the lock of seed 0: those that are demonstrated have smaller ones."""


MISSING = [
    "Seed 4, and the arm `distill_full`: the machine was shared with other jobs and time was over. The command "
    "with `--seeds 5` plays them.",
    "Distillation mixed with the reward's advantage (`algorithm.rl_to`): its oracle tests are there, no learning run "
    "was made.",
    "One start policy serves all seeds: its SFT was not repeated, so the intervals are those of the training runs.",
]


def digits_of(number: int) -> tuple[int, ...]:
    """The combination of a lock, as the world has it."""
    rng = random.Random(f"lock/{DIALS}/{DIGITS}/{number}")
    return tuple(rng.randrange(DIGITS) for _ in range(DIALS))


def number_of(seed: int) -> int:
    """A lock for the seed; the table's seeds have locks of different combinations."""
    taken: set[tuple[int, ...]] = set()
    number = FIRST_TARGET + 1000 * (seed // 100)
    for _ in range(seed % 100 + 1):
        while digits_of(number) in taken:
            number += 1
        taken.add(digits_of(number))
    return next(n for n in range(FIRST_TARGET, number + 1) if digits_of(n) == digits_of(number))


def demonstrated() -> list[int]:
    """Locks to demonstrate, none with the combination of a target; one number for each combination that is left."""
    kept = {digits_of(number_of(seed)) for seed in (*range(8), 100, 101)}
    numbers: dict[tuple[int, ...], int] = {}
    for number in range(1, FIRST_TARGET):
        if digits_of(number) not in kept:
            numbers.setdefault(digits_of(number), number)
    return list(numbers.values())


def start_policy(common: Path) -> Path:
    """The model that all arms start from."""
    numbers = str(demonstrated()).replace(" ", "")
    options = [f"world.options={{lengths: [{DIALS}], wording: compact, slip: over, hints: HINTS, numbers: {numbers}}}"]
    for hints in ("shown", "kept"):
        words = [word.replace("HINTS", hints) for word in options]
        play_recipe("collect", "text/lock_hint_collect.yaml", *words, "collect.per_task=1", folder=common / hints)
    stores = f"data.stores=[{common / 'shown' / 'trajectories'},{common / 'kept' / 'trajectories'}]"
    lock = f"world.options={{lengths: [{DIALS}], wording: compact, slip: over, hints: kept}}"
    play_recipe("sft", "text/lock_hint_sft.yaml", lock, stores, folder=common / "sft")
    return common / "sft" / "policy"


def words_of(arm: str, seed: int, policy: Path) -> list[str]:
    """The settings of an arm."""
    number = number_of(seed)
    lock = f"{{lengths: [{DIALS}], wording: compact, slip: over, hints: kept, number: {number}}}"
    words = [f"model.path={policy}", f"run.seed={seed}", f"run.steps={STEPS}", f"world.options={lock}"]
    words += [f"rollout.groups_per_step={GROUPS}", f"rollout.group_size={MEMBERS}", "evaluation.seeds_per_task=64"]
    words += ["learner.epochs=2", "algorithm.aggregation=token-mean", "run.transcripts_every=0"]
    if arm == "grpo":
        return ["~starts", *words, "learner.learning_rate=2.0e-3"]
    words += ["learner.learning_rate=3.0e-3"]
    if arm == "distill_full":
        return [*words, "algorithm.form=full"]
    if arm == "wrong_hint":
        wrong = " ".join(f"dial{dial + 1}is{1 - digit}" for dial, digit in enumerate(digits_of(number)))
        return [*words, "distill.hint_from=text", f"distill.hint={wrong}"]
    return words


def hinted_success(seed: int, policy: Path, common: Path) -> float:
    """What the start reaches on the seed's lock where it is shown the digits."""
    lock = f"{{lengths: [{DIALS}], wording: compact, slip: over, hints: shown, number: {number_of(seed)}}}"
    words = [f"model.path={policy}", f"world.options={lock}", "evaluation.seeds_per_task=128", "name=final"]
    words += ["engine.name=transformers", "engine.dtype=float32", "evaluation.split=test", "evaluation.temperature=1.0"]
    play_recipe("evaluate", "text/lock.yaml", *words, folder=common / f"hinted_{seed}", key="folder")
    return held_out_success(common / f"hinted_{seed}")


def steps_of(folder: Path) -> list[dict[str, float]]:
    """The metrics of the training steps."""
    return [row for row in read_metrics(folder / "metrics.jsonl") if "rollout/success_frac" in row]


def episodes_to_sure(folder: Path) -> float:
    """Training episodes up to the end of the first three steps in a row whose mean success reached `SURE`."""
    rows = steps_of(folder)
    for end in range(3, len(rows) + 1):
        if fmean(row["rollout/success_frac"] for row in rows[end - 3 : end]) >= SURE:
            return float(end * GROUPS * MEMBERS)
    return float(len(rows) * GROUPS * MEMBERS)


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    common = folder.parents[1] / "common"
    policy = start_policy(common)
    settings = "text/lock_grpo.yaml" if arm == "grpo" else "text/lock_distill.yaml"
    play_recipe("grpo" if arm == "grpo" else "distill", settings, *words_of(arm, seed, policy), folder=folder / "run")
    success = held_out_success(folder / "run")
    return {
        "success": success,
        "of_hinted": success / max(1e-9, hinted_success(seed, policy, common)),
        "episodes_to_sure": episodes_to_sure(folder / "run"),
        "episodes": training_total(folder / "run", "rollout/episodes_count"),
        "turns": sum(r["rollout/num_turns_mean"] * r["rollout/episodes_count"] for r in steps_of(folder / "run")),
    }
