"""A scalar reward model from pairs of stored episodes: of one task, a success ranks above a failure.

    read      stored episodes of the train split, each with the world's verdict
    split     by trajectory into training and held-out ones
    pair      every success with failures of its task, on each side of the split by itself
    train     -log sigmoid(r_success - r_failure), by TRL's RewardTrainer
    judge     on held-out episodes: pairs ranked rightly, AUC, accuracy at a threshold chosen on the training ones

The folder `pair_model` of the run is what `reward.name=outcome_model reward.options.path=...` takes; its score has no
unit, so `value: verdict` (1 from the threshold on) is the usual reward, `value: score` the bare scalar.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/reward_pairs.py recipes/text/maze_reward.yaml
"""

from __future__ import annotations

from rollwright.generation.launch_env import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from dataclasses import asdict, replace  # noqa: E402
from pathlib import Path  # noqa: E402

from pydantic import Field  # noqa: E402

from rollwright.assembly import open_codec  # noqa: E402
from rollwright.config import Config, dump, load_config  # noqa: E402
from rollwright.errors import DataError  # noqa: E402
from rollwright.outcome_data import Case, read_cases, split_cases, starting_model  # noqa: E402
from rollwright.outcome_model import OutcomeCard, OutcomeModel, answer_ids, prompt_ids  # noqa: E402
from rollwright.outcome_settings import JudgedData, JudgeFit, JudgeModel  # noqa: E402
from rollwright.outcome_text import OutcomePrompt  # noqa: E402
from rollwright.pair_fit import fit_pairs, pairs_of  # noqa: E402
from rollwright.ranks import go_on_alone  # noqa: E402
from rollwright.settings import ReplaySettings  # noqa: E402
from rollwright.statistics import wilson_interval  # noqa: E402
from rollwright.statistics.calibration import area_under_curve, best_threshold, confusion  # noqa: E402
from rollwright.tracking import RunFolder  # noqa: E402


class PairData(JudgedData):
    """What is shown of an episode, and how pairs are made."""

    per_success: int = Field(4, ge=1, description="Failures of its task that each success is compared with.")


class PairFit(JudgeFit):
    """How the pair model is trained."""

    centre: float = Field(0.01, ge=0, description="Pull of the mean score towards 0 (arXiv:2312.09244); 0 = none.")


class PairRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/reward_pairs", description="Run folder; the model lands in its `pair_model`.")
    seed: int = Field(0, ge=0, description="Fixes the split, the pairs, the order and the new head.")


class PairConfig(Config):
    """Everything the training of a pair model reads."""

    run: PairRun = PairRun()
    model: JudgeModel = JudgeModel()
    replay: ReplaySettings = ReplaySettings()
    data: PairData = PairData()
    fit: PairFit = PairFit()


def main(argv: list[str] | None = None) -> None:
    config = load_config(PairConfig, sys.argv[1:] if argv is None else argv)
    if not go_on_alone("training a pair model"):
        return
    cases = read_cases(config.replay.stores)
    train, held_out = split_cases(cases, held_out_frac=config.data.held_out_frac, seed=config.run.seed)
    pairs = pairs_of(train, per_case=config.data.per_success, seed=config.run.seed)
    pairs_of(held_out, per_case=1, seed=config.run.seed)  # what could not be judged afterwards is refused now
    folder = RunFolder.create(config.run.folder, config_yaml=dump(config))
    prompt = OutcomePrompt(max_actions=config.data.max_actions)
    sizes = {"max_length": config.fit.max_length, "seed": config.run.seed}
    start = starting_model(config.model, train, prompt, folder.path, **sizes)

    codec = open_codec(start)
    prompts = [prompt_ids(codec, prompt, case.evidence, config.fit.max_length) for case in train]
    rows = [(better, worse) for a, b in pairs if (better := prompts[a]) and (worse := prompts[b])]
    if not rows:
        raise DataError(f"no pair fits into fit.max_length = {config.fit.max_length} tokens, even cut: raise it")
    target = fit_pairs(rows, start, folder.path, config.fit, centre=config.fit.centre, seed=config.run.seed)
    card = OutcomeCard(
        kind="scalar", prompt=prompt, answer_ids=answer_ids(codec, prompt), max_length=config.fit.max_length
    )
    card.save(target)
    model = OutcomeModel.load(target)
    labels, scores, _ = scored(model, train)
    card = replace(card, threshold=best_threshold(labels, scores))
    card.save(target)
    report(model, held_out, card.threshold, num_pairs=len(rows), config=config, folder=folder.path)
    print(f"pair model saved to {target}")


def scored(model: OutcomeModel, cases: Sequence[Case]) -> tuple[list[bool], list[float], list[Case]]:
    """Labels, scores and cases of those that the model can read."""
    found = zip(model.score_evidence([case.evidence for case in cases]), cases, strict=True)
    kept = [(case.success, score, case) for score, case in found if score is not None]
    return [row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept]


def report(
    model: OutcomeModel, held_out: Sequence[Case], threshold: float, *, num_pairs: int, config: PairConfig, folder: Path
) -> None:
    """Print and write how the held-out episodes are ranked: eval/pairs.json."""
    labels, scores, cases = scored(model, held_out)
    pairs = pairs_of(cases, per_case=config.data.per_success, seed=config.run.seed)
    ranked = wilson_interval(sum(scores[a] > scores[b] for a, b in pairs), len(pairs))
    counts = confusion(labels, scores, threshold)
    found = {
        "num_train_pairs": num_pairs,
        "num_held_out": len(cases),
        "num_held_out_pairs": len(pairs),
        "pairs_right": asdict(ranked),
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


if __name__ == "__main__":
    main()
