"""An outcome model: a language model that reads how an episode went and answers YES or NO to "completed?".

    read      stored episodes of the train split, each with the world's verdict
    split     by trajectory into training and held-out ones
    train     cross-entropy on the one token that answers, by TRL's SFTTrainer
    calibrate accuracy, AUC, Brier score, calibration error on the held-out ones: eval/calibration.json and .md

The folder `verifier` of the run is what `reward.name=outcome_model reward.options.path=...` takes; its score is
P(YES) / (P(YES) + P(NO)). Source: the outcome reward model of WebRL, arXiv:2411.02337.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/outcome.py recipes/text/maze_outcome.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rollwright.config import Config, dump
from rollwright.contracts import DataError
from rollwright.evaluation import calibrate, format_calibration, save_calibration
from rollwright.learner import fit, go_on_alone, require_trl
from rollwright.methods import (
    IGNORED,
    Case,
    JudgedData,
    JudgeFit,
    JudgeModel,
    OutcomeCard,
    OutcomeModel,
    OutcomePrompt,
    answer_ids,
    prompts_apart,
    publish,
    read_cases,
    require_both,
    require_scores,
    split_cases,
    starting_model,
    tokenizer_mark,
    writing_folder,
)
from rollwright.models import open_codec
from rollwright.run_io import RunFolder
from rollwright.store.replay import ReplaySettings
from rollwright.training import announce, recipe_config, run_recipe


class OutcomeRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/outcome", description="Run folder; the model is written to its `verifier` folder.")
    seed: int = Field(0, ge=0, description="Seed of the split, the order and the initialisation.")


class OutcomeConfig(Config):
    """Everything the training of an outcome model reads."""

    run: OutcomeRun = OutcomeRun()
    model: JudgeModel = JudgeModel()
    replay: ReplaySettings = ReplaySettings()
    data: JudgedData = JudgedData()
    fit: JudgeFit = JudgeFit()


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(OutcomeConfig, argv)
    if not go_on_alone("training an outcome model"):
        return
    require_trl("an outcome model")
    prompt = OutcomePrompt(max_actions=config.data.max_actions)
    # All before the folder is opened, as data that cannot be used need no run.
    cases = read_cases(config.replay.stores)
    train, held_out = split_cases(cases, prompt, held_out_frac=config.data.held_out_frac, seed=config.run.seed)
    with RunFolder.opened(config.run.folder, config_yaml=dump(config)) as folder:
        announce(config)
        learn(config, folder, prompt, train, held_out)


def learn(
    config: OutcomeConfig, folder: RunFolder, prompt: OutcomePrompt, train: Sequence[Case], held_out: Sequence[Case]
) -> None:
    """Train on the one part, judge on the other, put the model in its place."""
    sizes = {"max_length": config.fit.max_length, "seed": config.run.seed}
    start = starting_model(config.model, train, prompt, folder.path, **sizes)

    codec, longest = open_codec(start, folder.path), config.fit.max_length - 1  # the answer takes a token too
    # Prompts that differ may be alike once they are cut; such held-out cases are left out.
    prompts, held_out = prompts_apart(train, held_out, codec, prompt, max_length=longest)
    rows = answer_rows(train, prompts, answer_ids(codec, prompt), max_length=config.fit.max_length)
    target = folder.path / "verifier"
    beside = writing_folder(target)  # a kill or a training that diverges leaves an earlier verifier whole
    fit(rows, start, folder.path, config.fit, seed=config.run.seed, name=beside.name, facts=folder.facts)
    # A chat template may tell the date: the model is to be asked with the one that it was trained with.
    codec.keep_day(beside)
    save_card(beside, prompt, max_length=longest)
    # Before it takes its place: a model that gives no score at all is not published.
    judge_held_out(beside, held_out, num_train=len(rows), folder=folder.path)
    print(f"outcome model saved to {publish(beside, target)}")


def save_card(folder: Path, prompt: OutcomePrompt, *, max_length: int) -> None:
    """Say beside the weights how they are to be asked."""
    codec = open_codec(folder)  # as it was saved, so as it will be loaded
    card = OutcomeCard(
        kind="verifier",
        prompt=prompt,
        answer_ids=answer_ids(codec, prompt),
        max_length=max_length,
        tokenizer=tokenizer_mark(codec),
    )
    card.save(folder)


def answer_rows(
    cases: Sequence[Case], prompts: Sequence[tuple[int, ...] | None], answers: tuple[int, int], *, max_length: int
) -> list[dict[str, Any]]:
    """One row per case: the prompt without a label, then the token of its answer with one.

    Raises:
        DataError: no prompt fits into `max_length`, or those that do have one answer alone.
    """
    fitting = [(case, ids) for case, ids in zip(cases, prompts, strict=True) if ids is not None]
    if not fitting:
        raise DataError(f"no prompt fits into fit.max_length = {max_length} tokens, even cut: raise it")
    # Once more: what fits may have one answer alone.
    require_both([case for case, _ in fitting], f"what fits into fit.max_length = {max_length} tokens")
    rows = []
    for case, ids in fitting:
        answer = answers[0] if case.success else answers[1]
        rows.append({"input_ids": [*ids, answer], "labels": [IGNORED] * len(ids) + [answer]})
    return rows


def judge_held_out(model_folder: Path, held_out: Sequence[Case], *, num_train: int, folder: Path) -> None:
    """Score what was held out with the saved model, print the report and write it.

    Raises:
        DataError: the model can judge none of it.
    """
    model = OutcomeModel.load(model_folder)
    scores = model.score_evidence([case.evidence for case in held_out])
    require_scores(scores, model.card.max_length)
    report = calibrate(
        [case.success for case in held_out],
        scores,
        [case.task for case in held_out],
        threshold=model.card.threshold,
        num_train=num_train,
    )
    print(format_calibration(report))
    print(f"report: {save_calibration(report, folder)}")


if __name__ == "__main__":
    run_recipe(main)
