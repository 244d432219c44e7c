"""What is said of a student's distance from its teacher: overall, by turn, and how sure the student is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rollwright.batching import TokenBatch

SHOWN_TURNS = (0, 1, 2, 4, 8, 16, 32)
"""The turns whose log-ratio is logged by itself."""


def log_ratios(batch: TokenBatch) -> Tensor:
    """[N] x = log pi(a) - log nu(a)."""
    assert batch.logprobs_old is not None and batch.logprobs_ref is not None
    return batch.logprobs_old - batch.logprobs_ref


def distillation_metrics(batch: TokenBatch) -> dict[str, float]:
    """The divergence, overall and by turn, the student's entropy, and the share of tokens without a teacher."""
    assert batch.logprobs_old is not None
    found = {"distill/unscored_frac": float((~batch.mask).float().mean())}
    if not batch.mask.any():
        return found
    x, turns = log_ratios(batch), turn_ranks(batch.trajectory_index.tolist())[batch.turn_index]
    # Both are means over sampled tokens: estimates of KL(student || teacher) and of the entropy per token.
    found |= {
        "distill/kl_mean": float(x[batch.mask].mean()),
        "distill/entropy_mean": float(-batch.logprobs_old[batch.mask].mean()),
    }
    for place in SHOWN_TURNS:
        here = batch.mask & (turns == place)
        if here.any():
            found[f"distill/kl_turn_{place}"] = float(x[here].mean())
    return found


def turn_ranks(owners: Sequence[int]) -> Tensor:
    """[U] the number of each turn within its episode."""
    counts: dict[int, int] = {}
    places = []
    for owner in owners:
        places.append(counts.get(owner, 0))
        counts[owner] = places[-1] + 1
    return torch.tensor(places)
