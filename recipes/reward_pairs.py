"""A scalar reward model from pairs of stored episodes: of one task, a success ranks above a failure.

    read      stored episodes of the train split, each with the world's verdict
    split     by trajectory into training and held-out ones
    pair      every success with failures of its task, on each side of the split by itself
    train     -log sigmoid(r_success - r_failure - margin), by TRL's RewardTrainer
    judge     on held-out episodes: pairs ranked rightly, AUC, accuracy at a threshold chosen on the training ones

The folder `pair_model` of the run is what `reward.name=outcome_model reward.options.path=...` takes; its score has no
unit, so `value: verdict` (1 from the threshold on) is the usual reward, `value: score` the bare scalar.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/reward_pairs.py recipes/text/maze_reward.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from pydantic import Field

from rollwright.config import Config, dump
from rollwright.learner import go_on_alone, require_trl
from rollwright.maths import margin_ranking_loss
from rollwright.maths.statistics import area_under_curve, best_threshold, confusion, wilson_interval
from rollwright.methods import (
    Case,
    JudgedData,
    JudgeFit,
    JudgeModel,
    OutcomeCard,
    OutcomeModel,
    OutcomePrompt,
    answer_ids,
    fit_pairs,
    pair_rows,
    pairs_of,
    prompts_apart,
    publish,
    read_cases,
    scored_cases,
    split_cases,
    starting_model,
    tokenizer_mark,
    writing_folder,
)
from rollwright.models import open_codec
from rollwright.run_io import RunFolder
from rollwright.store.replay import ReplaySettings
from rollwright.training import announce, recipe_config, run_recipe


class PairData(JudgedData):
    """What is shown of an episode, and how pairs are made."""

    per_success: int = Field(
        4, ge=1, description="Number of failures of the same task that each success is compared with."
    )


class PairFit(JudgeFit):
    """How the pair model is trained."""

    centre: float = Field(
        0.01, ge=0, description="Weight of a penalty that keeps the mean score near 0 (arXiv:2312.09244); 0 = none."
    )
    margin: float = Field(
        0.0, ge=0, description="By how much a success is to score above a failure (Satori: 2); 0 = no margin."
    )


class PairRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/reward_pairs", description="Run folder; the model is written to its `pair_model` folder.")
    seed: int = Field(0, ge=0, description="Seed of the split, the pairs, the order and the new head.")


class PairConfig(Config):
    """Everything the training of a pair model reads."""

    run: PairRun = PairRun()
    model: JudgeModel = JudgeModel()
    replay: ReplaySettings = ReplaySettings()
    data: PairData = PairData()
    fit: PairFit = PairFit()


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(PairConfig, argv)
    if not go_on_alone("training a pair model"):
        return
    require_trl("a reward model from pairs")
    prompt, seed = OutcomePrompt(max_actions=config.data.max_actions), config.run.seed
    cases = read_cases(config.replay.stores)
    train, held_out = split_cases(cases, prompt, held_out_frac=config.data.held_out_frac, seed=seed)
    for part in (train, held_out):  # what could not be learned from, or judged afterwards, is refused now
        pairs_of(part, per_case=1, seed=seed)
    with RunFolder.opened(config.run.folder, config_yaml=dump(config)) as folder:
        announce(config)
        learn(config, folder, prompt, train, held_out)


def learn(
    config: PairConfig, folder: RunFolder, prompt: OutcomePrompt, train: Sequence[Case], held_out: Sequence[Case]
) -> None:
    """Train on the one part, judge on the other, put the model in its place."""
    seed = config.run.seed
    start = starting_model(config.model, train, prompt, folder.path, max_length=config.fit.max_length, seed=seed)
    codec = open_codec(start, folder.path)
    # Prompts that differ may be alike once they are cut; such held-out cases are left out.
    prompts, held_out = prompts_apart(train, held_out, codec, prompt, max_length=config.fit.max_length)
    pairs_of(held_out, per_case=1, seed=seed)  # of what is left of it
    per, length = config.data.per_success, config.fit.max_length
    rows = pair_rows(train, prompts, per_case=per, max_length=length, seed=seed)
    target = folder.path / "pair_model"
    beside = writing_folder(target)  # a kill or a training that diverges leaves an earlier model whole
    centre, margin = config.fit.centre, config.fit.margin
    name, facts = beside.name, folder.facts
    fit_pairs(rows, start, folder.path, config.fit, centre=centre, margin=margin, seed=seed, name=name, facts=facts)
    # A chat template may tell the date: the model is to be asked with the one that it was trained with.
    codec.keep_day(beside)
    model = with_threshold(beside, train, prompt, max_length=config.fit.max_length)
    # Before it takes its place: a model that gives no score at all is not published.
    report(model, held_out, num_pairs=len(rows), config=config, folder=folder.path)
    print(f"pair model saved to {publish(beside, target)}")


def with_threshold(folder: Path, train: Sequence[Case], prompt: OutcomePrompt, *, max_length: int) -> OutcomeModel:
    """The model that was just trained, its card written beside it with the threshold of the training episodes."""
    codec = open_codec(folder)  # as it was saved, so as it will be loaded
    card = OutcomeCard(
        kind="scalar",
        prompt=prompt,
        answer_ids=answer_ids(codec, prompt),
        max_length=max_length,
        tokenizer=tokenizer_mark(codec),
    )
    # A model is loaded with its card; the threshold joins it once there are scores.
    card.save(folder)
    model = OutcomeModel.load(folder)
    labels, scores, _ = scored_cases(model, train)
    model.card = replace(card, threshold=best_threshold(labels, scores))
    model.card.save(folder)
    return model


def report(model: OutcomeModel, held_out: Sequence[Case], *, num_pairs: int, config: PairConfig, folder: Path) -> None:
    """Print and write how the held-out episodes are ranked: eval/pairs.json."""
    # It was chosen on the training episodes: what is held out must choose nothing.
    threshold = model.card.threshold
    labels, scores, cases = scored_cases(model, held_out)
    pairs = pairs_of(cases, per_case=config.data.per_success, seed=config.run.seed)
    # A tie is counted as wrong.
    ranked = wilson_interval(sum(scores[a] > scores[b] for a, b in pairs), len(pairs))
    counts = confusion(labels, scores, threshold)
    found = {
        "num_train_pairs": num_pairs,
        "num_held_out": len(cases),
        "num_held_out_pairs": len(pairs),
        "pairs_right": asdict(ranked),
        "pair_loss": pair_loss(scores, pairs, margin=config.fit.margin),
        "auc": area_under_curve(labels, scores),
        "threshold": threshold,
        "accuracy": asdict(counts.accuracy),
        "confusion": asdict(counts),
    }
    path = folder / "eval" / "pairs.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(
        f"held out: {ranked} of {len(pairs)} pairs ranked rightly, AUC {found['auc']:.3f}, accuracy {counts.accuracy}"
    )
    print(f"report: {path}")


def pair_loss(scores: Sequence[float], pairs: Sequence[tuple[int, int]], *, margin: float) -> float:
    """What the training minimises, as a mean over held-out pairs of (success, failure)."""
    better, worse = (torch.tensor([scores[pair[side]] for pair in pairs]) for side in (0, 1))
    return float(margin_ranking_loss(better, worse, margin=margin).mean())


if __name__ == "__main__":
    run_recipe(main)
