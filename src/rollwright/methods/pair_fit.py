"""A scalar reward model from pairs: of two episodes of one task the better one must score higher. By TRL's trainer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rollwright.contracts import DataError, MissingDependency
from rollwright.learner import FitSettings, follow, trainer_arguments
from rollwright.methods.outcome_data import Case
from rollwright.run_io import RunFacts

Pair = tuple[int, int]


def pairs_of(cases: Sequence[Case], *, per_case: int, seed: int) -> list[Pair]:
    """Numbers of cases as (success, failure) of one task.

    Every success meets `per_case` failures of its task, drawn without replacement; one of the same start state, where
    there is any, comes before the others: such a pair differs in what was done alone.

    Raises:
        DataError: no task has both.
    """
    draws = np.random.default_rng(seed)
    lost: dict[str, list[int]] = defaultdict(list)
    # Failures first: every success below draws from the complete list of its task.
    for number, case in enumerate(cases):
        if not case.success:
            lost[case.task].append(number)
    pairs = []
    for number, case in enumerate(cases):
        if case.success and lost[case.task]:
            shuffled = draws.permutation(lost[case.task]).tolist()
            nearest = sorted(shuffled, key=lambda other: cases[other].seed != case.seed)  # stable: the rest stays drawn
            pairs += [(number, other) for other in nearest[:per_case]]
    if not pairs:
        raise DataError(
            f"none of {len({case.task for case in cases})} tasks has both a success and a failure among {len(cases)} "
            "episodes, so there is no pair to learn from: collect several episodes of each task"
        )
    return pairs


def pair_rows(
    cases: Sequence[Case], prompts: Sequence[tuple[int, ...] | None], *, per_case: int, max_length: int, seed: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompts of a success and a failure, of which both fit and do not read exactly alike.

    Args:
        prompts: of each case, in at most `max_length` tokens; None = does not fit, even cut.

    Raises:
        DataError: there is none.
    """
    pairs = pairs_of(cases, per_case=per_case, seed=seed)
    found = [(better, worse) for a, b in pairs if (better := prompts[a]) and (worse := prompts[b])]
    rows = [(better, worse) for better, worse in found if better != worse]  # nothing tells which is the better one
    if not rows:
        raise DataError(
            f"none of {len(pairs)} pairs can be learned from: {len(pairs) - len(found)} do not fit into fit.max_length "
            f"= {max_length} tokens, even cut, and {len(found)} read exactly alike; raise fit.max_length or "
            "data.max_actions"
        )
    return rows


def fit_pairs(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    start: Path,
    folder: Path,
    settings: FitSettings,
    *,
    centre: float,
    seed: int,
    margin: float = 0.0,
    name: str = "pair_model",
    facts: RunFacts | None = None,
) -> Path:
    """Train a scalar head and its model: -log sigmoid(r_better - r_worse - margin) (+ centre * (sum of both)^2).

    Args:
        rows: prompts as ids, the better episode's first.
        start: a causal language model; the scalar head is new.
        centre: weight of the term that keeps the mean score near 0.
        margin: by how much the better episode is to score higher; 0 = no margin.
        facts: of the run, which count the tokens of both sides and the seconds of the training.

    Returns:
        The folder of the trained model, `folder/<name>`.

    Raises:
        MissingDependency: TRL is not installed.

    Sources: Bradley and Terry 1952; arXiv:2312.09244 for the centring term; arXiv:2502.02508 for the margin.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification

    from rollwright.models import load_tokenizer, load_whole

    try:
        from trl import RewardConfig, RewardTrainer
    except ImportError as error:
        raise MissingDependency("a reward model from pairs uses TRL: pip install 'rollwright[trl]'") from error

    torch.manual_seed(seed)  # of the new head
    tokenizer = load_tokenizer(start)
    words = {"num_labels": 1, "dtype": torch.float32}
    # The language head is not wanted here (`spare`), and the scalar head is not in the folder yet (`new`).
    model = load_whole(AutoModelForSequenceClassification, start, new=("score",), spare=True, **words)
    # transformers finds the last token of a padded row by this id, and refuses batches without one.
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(folder / "pairs"),
            **trainer_arguments(settings, seed=seed),
            # TRL leaves the term out where this is None.
            center_rewards_coefficient=centre or None,
        ),
        train_dataset=Dataset.from_list([_row(better, worse, margin) for better, worse in rows]),
        processing_class=tokenizer,
    )
    follow(trainer, max_minutes=settings.max_minutes)
    began = time.monotonic()
    trainer.train()
    if facts is not None:
        read = sum(len(better) + len(worse) for better, worse in rows)
        # The training may stop early, so the share of the epochs that was done counts.
        facts.add(tokens_trained=round(trainer.state.epoch * read), learner_s=time.monotonic() - began)
    target = folder / name
    trainer.save_model(str(target))
    tokenizer.save_pretrained(target)
    return target


def _row(better: Sequence[int], worse: Sequence[int], margin: float) -> dict[str, Any]:
    # Without the column TRL computes the plain loss, as it did before there was a margin.
    return {"chosen_ids": list(better), "rejected_ids": list(worse)} | ({"margin": margin} if margin else {})
