"""The flat token record: what a loss sees, one entry per action token, and nothing of observations or padding."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rollwright.batching.packing import TOKEN_FIELDS, Segment
from rollwright.maths.losses import Aggregation


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """N action tokens. `logprobs`, `entropy` and `values` carry the gradient where the learner computed them.

    mask: [N] bool, true where the policy sampled the token and the loss may use it.
    sequence_index: [N] int64 in [0, num_sequences). versions: [N] int64. weights: [N] float, detached factors.
    logprobs, entropy: of the policy now, at the learner's temperature; entropy only if the loss asked for it.
    logprobs_old, logprobs_ref, logprobs_sampled, advantages, returns: [N] float as in the segments; None = not given.
    values: of the critic now; values_old: those of the segments.
    """

    mask: Tensor
    sequence_index: Tensor
    num_sequences: int
    versions: Tensor
    weights: Tensor
    logprobs_sampled: Tensor
    advantages: Tensor
    logprobs: Tensor | None = None
    entropy: Tensor | None = None
    logprobs_old: Tensor | None = None
    logprobs_ref: Tensor | None = None
    values: Tensor | None = None
    values_old: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """losses: [N] with gradient, before mask and weights. metrics: name -> (sum, count), to be averaged."""

    losses: Tensor
    metrics: Mapping[str, tuple[Tensor | float, Tensor | float]]


class TokenObjective(Protocol):
    """A loss as the learner takes it: pure per-token losses, and the name of the way to average them."""

    @property
    def aggregation(self) -> Aggregation: ...

    @property
    def max_length(self) -> float | None:
        """L of the "constant" aggregation in tokens, None for the others."""

    @property
    def with_entropy(self) -> bool:
        """Whether `TokenRecord.entropy` is needed; it costs a pass over the vocabulary."""

    @property
    def whole_sequences(self) -> bool:
        """Whether the loss looks at a sequence as a whole (GSPO), which then may not be split over micro-batches."""

    def __call__(self, tokens: TokenRecord) -> TokenLoss: ...


@runtime_checkable
class FilteringObjective(TokenObjective, Protocol):
    """A loss that may leave tokens out of an optimiser step, and so out of its denominator."""

    @property
    def filters(self) -> bool:
        """Whether `keep` drops anything at all; if so, the learner computes the old log-probs first."""

    def keep(self, tokens: TokenRecord) -> Tensor:
        """[N] bool over all tokens of the step, false where one is to be left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatTokens:
    """The per-token numbers of all segments of one update, in the flat order (see `batching`)."""

    record: TokenRecord
    lengths: tuple[int, ...]

    def select(self, entries: Tensor, **computed: Tensor | int | None) -> TokenRecord:
        """The record of a micro-batch: `entries` [N] of the flat order, beside what was computed for them."""
        chosen: dict[str, Tensor | int | None] = {"num_sequences": self.record.num_sequences}
        for name in TokenRecord.__slots__:
            column = getattr(self.record, name)
            if isinstance(column, Tensor):
                chosen[name] = column[entries]
        return TokenRecord(**(chosen | computed))  # type: ignore[arg-type]

    def keeping(self, mask: Tensor) -> FlatTokens:
        """The same tokens with another mask ([N] bool)."""
        return replace(self, record=replace(self.record, mask=mask))

    def split(self, flat: Tensor) -> list[Tensor]:
        """[num_tokens] in the flat order -> one tensor per segment."""
        return list(flat.split(list(self.lengths)))


def token_columns(segments: Sequence[Segment], *, device: torch.device | str = "cpu") -> FlatTokens:
    """Columns of all segments.

    Raises:
        ValueError: no segment at all, or a field is known for some segments and not for others.
    """
    if not segments:
        raise ValueError("an update needs at least one segment; every trajectory was dropped or filtered away")
    lengths = tuple(len(segment.action_ids) for segment in segments)
    columns = {name: _column(segments, name, device) for name in TOKEN_FIELDS}
    repeats = torch.tensor(lengths, device=device)
    order: dict[Hashable, int] = {}
    owners = [order.setdefault(segment.sequence, len(order)) for segment in segments]
    per_segment = torch.tensor([segment.weight for segment in segments], device=device).repeat_interleave(repeats)
    weights, values_old = columns.pop("weights"), columns.pop("values")
    sampled, advantages = columns.pop("logprobs_sampled"), columns.pop("advantages")
    assert sampled is not None and advantages is not None
    record = TokenRecord(
        mask=torch.tensor([m for segment in segments for m in segment.action_mask], dtype=torch.bool, device=device),
        sequence_index=torch.tensor(owners, device=device).repeat_interleave(repeats),
        num_sequences=len(order),
        versions=torch.tensor([segment.version for segment in segments], device=device).repeat_interleave(repeats),
        weights=per_segment if weights is None else per_segment * weights,
        logprobs_sampled=sampled,
        advantages=advantages,
        values_old=values_old,
        **columns,
    )
    return FlatTokens(record=record, lengths=lengths)


def _column(segments: Sequence[Segment], name: str, device: torch.device | str) -> Tensor | None:
    parts = [getattr(segment, name) for segment in segments]
    known = sum(part is not None for part in parts)
    if known == 0:
        return None
    if known < len(parts):
        raise ValueError(f"{name} is given for {known} of {len(parts)} segments; give it for all of them or for none")
    return torch.tensor([float(x) for part in parts for x in part], dtype=torch.float32, device=device)
