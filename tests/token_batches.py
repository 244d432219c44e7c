"""Turns spelled out with a number per action id, and the batch that a learner takes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rollwright.batching import Segment, TokenBatch

COLUMNS = ("logprobs_old", "logprobs_ref", "values", "returns", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpelledTurn(Segment):
    """A turn with one number per action id in each column; None = not known. `weight` counts for all of its tokens."""

    logprobs_sampled: Sequence[float] | None = None
    advantages: Sequence[float] | None = None
    logprobs_old: Sequence[float] | None = None
    logprobs_ref: Sequence[float] | None = None
    values: Sequence[float] | None = None
    returns: Sequence[float] | None = None
    weights: Sequence[float] | None = None
    weight: float = 1.0
    version: int = -1

    def chosen(self, column: Sequence[float] | None) -> list[float]:
        """The numbers of the tokens that are scored; 0 where nothing is known."""
        numbers = (0.0,) * len(self.action_ids) if column is None else column
        mask = (True,) * len(self.action_ids) if self.mask is None else self.mask
        return [float(x) for x, counts in zip(numbers, mask, strict=True) if counts]


def batch_of(turns: Sequence[SpelledTurn]) -> TokenBatch:
    """The batch of these turns, in their order."""

    def column(name: str) -> Tensor:
        return torch.tensor([x for turn in turns for x in turn.chosen(getattr(turn, name))], dtype=torch.float32)

    known = [name for name in COLUMNS if any(getattr(turn, name) is not None for turn in turns)]
    batch = TokenBatch.of(
        turns,
        advantages=column("advantages"),
        logprobs_sampled=column("logprobs_sampled"),
        versions=[turn.version for turn in turns],
    ).with_columns(**{name: column(name) for name in known})
    each = torch.tensor([turn.weight for turn in turns])[batch.turn_index]
    return replace(batch, weights=batch.weights * each)


def per_turn(score: Callable[[TokenBatch], Tensor], turns: Sequence[SpelledTurn]) -> list[Tensor]:
    """What a learner says of these turns, one [len(action_ids)] tensor for each; 0 for what is not scored."""
    batch = batch_of(turns)
    rows = []
    for turn, found in zip(turns, batch.by_turn(score(batch)), strict=True):
        mask = torch.ones(len(turn.action_ids), dtype=torch.bool) if turn.mask is None else torch.tensor(turn.mask)
        rows.append(torch.zeros(len(mask), dtype=found.dtype).masked_scatter(mask, found))
    return rows
