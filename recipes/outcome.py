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

from rollwright.generation.launch_env import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from pydantic import Field  # noqa: E402

from rollwright.assembly import open_codec  # noqa: E402
from rollwright.codec import ChatCodec  # noqa: E402
from rollwright.config import Config, dump, load_config  # noqa: E402
from rollwright.demonstrations import IGNORED  # noqa: E402
from rollwright.errors import DataError  # noqa: E402
from rollwright.evaluation.calibration import calibrate, format_calibration, save_calibration  # noqa: E402
from rollwright.outcome_data import Case, read_cases, split_cases, starting_model  # noqa: E402
from rollwright.outcome_model import OutcomeCard, OutcomeModel, answer_ids, prompt_ids  # noqa: E402
from rollwright.outcome_settings import JudgedData, JudgeFit, JudgeModel  # noqa: E402
from rollwright.outcome_text import OutcomePrompt  # noqa: E402
from rollwright.ranks import go_on_alone  # noqa: E402
from rollwright.settings import ReplaySettings  # noqa: E402
from rollwright.sft import fit  # noqa: E402
from rollwright.tracking import RunFolder  # noqa: E402


class OutcomeRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/outcome", description="Run folder; the model lands in its `verifier`.")
    seed: int = Field(0, ge=0, description="Fixes the split, the order and the initialisation.")


class OutcomeConfig(Config):
    """Everything the training of an outcome model reads."""

    run: OutcomeRun = OutcomeRun()
    model: JudgeModel = JudgeModel()
    replay: ReplaySettings = ReplaySettings()
    data: JudgedData = JudgedData()
    fit: JudgeFit = JudgeFit()


def main(argv: list[str] | None = None) -> None:
    config = load_config(OutcomeConfig, sys.argv[1:] if argv is None else argv)
    if not go_on_alone("training an outcome model"):
        return
    cases = read_cases(config.replay.stores)
    train, held_out = split_cases(cases, held_out_frac=config.data.held_out_frac, seed=config.run.seed)
    folder = RunFolder.create(config.run.folder, config_yaml=dump(config))
    prompt = OutcomePrompt(max_actions=config.data.max_actions)
    sizes = {"max_length": config.fit.max_length, "seed": config.run.seed}
    start = starting_model(config.model, train, prompt, folder.path, **sizes)

    codec = open_codec(start)
    answers = answer_ids(codec, prompt)
    rows = answer_rows(train, codec, prompt, answers, max_length=config.fit.max_length)
    target = fit(rows, start, folder.path, config.fit, seed=config.run.seed, name="verifier")
    card = OutcomeCard(kind="verifier", prompt=prompt, answer_ids=answers, max_length=config.fit.max_length)
    card.save(target)
    judge_held_out(target, held_out, num_train=len(rows), folder=folder.path)
    print(f"outcome model saved to {target}")


def answer_rows(
    cases: Sequence[Case], codec: ChatCodec, prompt: OutcomePrompt, answers: tuple[int, int], *, max_length: int
) -> list[dict[str, Any]]:
    """One row per case: the prompt without a label, then the token of its answer with one.

    Raises:
        DataError: no prompt fits into `max_length`.
    """
    rows = []
    for case in cases:
        ids = prompt_ids(codec, prompt, case.evidence, max_length - 1)
        if ids is not None:
            answer = answers[0] if case.success else answers[1]
            rows.append({"input_ids": [*ids, answer], "labels": [IGNORED] * len(ids) + [answer]})
    if not rows:
        raise DataError(f"no prompt fits into fit.max_length = {max_length} tokens, even cut: raise it")
    return rows


def judge_held_out(model_folder: Path, held_out: Sequence[Case], *, num_train: int, folder: Path) -> None:
    """Score what was held out with the saved model, print the report and write it."""
    model = OutcomeModel.load(model_folder)
    report = calibrate(
        [case.success for case in held_out],
        model.score_evidence([case.evidence for case in held_out]),
        [case.task for case in held_out],
        threshold=model.card.threshold,
        num_train=num_train,
    )
    print(format_calibration(report))
    print(f"report: {save_calibration(report, folder)}")


if __name__ == "__main__":
    main()
