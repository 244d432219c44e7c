"""The one structure that carries tokens from the record to the loss: columns, with views by token, turn and sequence.

A `TokenBatch` holds N action tokens of U turns of S sequences. What is known of a token stands in a column [N]; the
turns hold the ids that a model reads. A stage that learns something of the tokens returns the batch with one more
column. So on-policy and stored turns go the same way: `credit.flatten` makes a batch of groups, `TokenBatch.of` one of
any turns, the learner scores it, takes parts of it and hands micro-batches of it to the loss.

The order of the tokens is that of the turns, and inside a turn that of its action ids: the *flat order*.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rollwright.batching.packing import Segment
from rollwright.contracts import Trajectory, Turn
from rollwright.maths import require_length
from rollwright.maths.losses import Aggregation


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """N action tokens of U turns of S sequences. Indices are int64, numbers float32, all on one device.

    Nothing but these tokens is scored: those that nobody chose (forced ones, a guide's) are context like the prompt.
    """

    segments: tuple[Segment, ...]
    """[U] the ids of each turn."""
    turn_index: Tensor
    """[N] the turn of each token."""
    trajectory_index: Tensor
    """[U] the sequence of each turn: its trajectory, or the turn itself where turns were drawn one by one."""
    num_sequences: int
    mask: Tensor
    """[N] bool, false where the loss must not use the token."""
    versions: Tensor
    """[N] int64, of the weights that sampled the token's turn; -1 = unknown."""
    weights: Tensor
    """[N] detached factors of the losses: sampling priorities, importance weights."""
    logprobs_sampled: Tensor
    """[N] natural log, as the engine reported it."""
    advantages: Tensor
    """[N]; all 0 as long as nobody gave credit."""
    rewards: Tensor
    """[N] what a turn earned, on its last token; all 0 where turns come without their rewards."""
    logprobs_old: Tensor | None = None
    """[N] by the learner when the update began; None = not computed."""
    logprobs_ref: Tensor | None = None
    """[N] by the frozen reference."""
    values: Tensor | None = None
    """[N] by the critic when the update began, one position before the token."""
    returns: Tensor | None = None
    """[N] what the critic is fitted to."""
    logprobs: Tensor | None = None
    """[N] by the policy now, with gradient: what the learner adds for the loss."""
    entropy: Tensor | None = None
    """[N] of the policy now, with gradient; only for a loss that asks for it."""
    teacher_hidden: Tensor | None = None
    """[N, H] a teacher's last hidden state one position before the token: its head makes the distribution of it."""
    divergence: Tensor | None = None
    """[N] from that teacher, with gradient; only for a loss that brings a term over the vocabulary."""
    turns: tuple[Turn, ...] = ()
    """[U] the record of each turn. This and what follows is there in a batch that was made of groups alone."""
    trajectories: tuple[Trajectory, ...] = ()
    """[S] the record of each sequence."""
    group_index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """[S] the group of each trajectory."""
    group_ids: tuple[str, ...] = ()
    """[G] the ids of the groups that `group_index` counts."""
    turn_rewards: Tensor = field(default_factory=lambda: torch.zeros(0))
    """[U] what each turn earned, with what turns of others earned up to the policy's next one."""
    scores: Tensor = field(default_factory=lambda: torch.zeros(0))
    """[S] undiscounted returns from the policy's first turn on."""

    def __post_init__(self) -> None:
        # A column of length 1 would be broadcast over all tokens without an error.
        for name in _PER_TOKEN:
            column = getattr(self, name)
            if column is not None:
                flat = column[:, 0] if name in _WIDE and column.dim() == 2 else column
                require_length(name, flat, len(self.turn_index), per="action token")

    @classmethod
    def of(
        cls,
        segments: Sequence[Segment],
        *,
        advantages: Tensor | None = None,
        logprobs_sampled: Tensor | None = None,
        versions: Sequence[int] | None = None,
    ) -> TokenBatch:
        """The batch of some turns, in their order; equal `sequence`s count as one.

        Args:
            advantages, logprobs_sampled: [N] float; None = 0.
            versions: [U] of the weights that sampled each turn; None = unknown.

        Raises:
            ValueError: no turn at all, or a column of another length.
        """
        if not segments:
            raise ValueError("an update needs at least one segment; every trajectory was dropped or filtered away")
        counts = torch.tensor([segment.num_tokens for segment in segments])
        sequences, count = _numbered(segment.sequence for segment in segments)
        # Only scored tokens have entries; a segment without any keeps its number, with a count of 0.
        turn_index = torch.repeat_interleave(torch.arange(len(segments)), counts)
        ages = torch.full((len(segments),), -1) if versions is None else torch.tensor(versions)
        blank = torch.zeros(len(turn_index))
        return cls(
            segments=tuple(segments),
            turn_index=turn_index,
            trajectory_index=sequences,
            num_sequences=count,
            mask=torch.ones(len(turn_index), dtype=torch.bool),
            versions=ages[turn_index],
            weights=torch.ones(len(turn_index)),
            logprobs_sampled=blank if logprobs_sampled is None else _column(logprobs_sampled),
            advantages=blank if advantages is None else _column(advantages),
            rewards=blank,
        )

    def __len__(self) -> int:
        """N."""
        return len(self.turn_index)

    @property
    def sequence_index(self) -> Tensor:
        """[N] the sequence of each token."""
        return self.trajectory_index[self.turn_index]

    @property
    def tokens_per_turn(self) -> Tensor:
        """[U] tokens of each turn."""
        return torch.bincount(self.turn_index, minlength=len(self.segments))

    @property
    def lengths(self) -> Tensor:
        """[S] tokens of each sequence."""
        return torch.bincount(self.sequence_index, minlength=self.num_sequences)

    def by_turn(self, column: Tensor) -> list[Tensor]:
        """[N] -> one tensor per turn."""
        return list(column.split(self.tokens_per_turn.tolist()))

    def with_columns(self, **columns: Tensor | None) -> TokenBatch:
        """The batch with these columns of numbers, named as its fields, detached and in float32; None = not known.

        Raises:
            ValueError: a column of another length than N.
        """
        device = self.turn_index.device
        # Detached: a column that kept its graph would carry gradients of an earlier pass into the loss.
        given = {name: None if column is None else _column(column, device) for name, column in columns.items()}
        return replace(self, **given)  # type: ignore[arg-type]

    def masked(self, mask: Tensor) -> TokenBatch:
        """The same tokens with another mask ([N] bool)."""
        return replace(self, mask=mask)

    def select(self, entries: Tensor) -> TokenBatch:
        """These tokens ([n] places in the flat order) of the same turns and sequences: a micro-batch."""
        # Turns and sequences keep their numbers, so a micro-batch may hold any tokens of them.
        return replace(self, **self._columns_at(entries))  # type: ignore[arg-type]

    def entries_of(self, turns: Sequence[int]) -> Tensor:
        """[n] the places of these turns' tokens, turn after turn."""
        # On the CPU: the slices below need plain numbers, and each would wait for a device by itself.
        counts = self.tokens_per_turn.cpu()
        starts = counts.cumsum(0) - counts
        parts = [torch.arange(int(starts[u]), int(starts[u] + counts[u])) for u in turns]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)

    def select_turns(self, turns: Sequence[int]) -> TokenBatch:
        """A batch of these turns alone, in this order; sequences are counted anew, groups left behind. On the CPU."""
        # The common case of one minibatch: keep the groups and copy nothing.
        if list(turns) == list(range(len(self.segments))):
            return self
        segments = tuple(self.segments[u] for u in turns)
        sequences, count = _numbered(segment.sequence for segment in segments)
        counts = torch.tensor([segment.num_tokens for segment in segments])
        columns = self._columns_at(self.entries_of(turns))
        # The old numbers count turns that may no longer be here.
        columns["turn_index"] = torch.repeat_interleave(torch.arange(len(segments)), counts)
        return TokenBatch(segments=segments, trajectory_index=sequences, num_sequences=count, **columns)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same columns on another device."""
        # Records and group columns stay: a loss reads none of them.
        given = {name: getattr(self, name) for name in (*_PER_TOKEN, "trajectory_index")}
        moved = {name: column.to(device) for name, column in given.items() if column is not None}
        return replace(self, **moved)

    def _columns_at(self, entries: Tensor) -> dict[str, Tensor]:
        known = {name: getattr(self, name) for name in _PER_TOKEN}
        return {name: column[entries] for name, column in known.items() if column is not None}


_PER_TOKEN = (
    *("turn_index", "mask", "versions", "weights", "logprobs_sampled", "advantages", "rewards"),
    *("logprobs_old", "logprobs_ref", "values", "returns", "logprobs", "entropy", "teacher_hidden", "divergence"),
)
_WIDE = ("teacher_hidden",)
"""Columns with several numbers per token."""


def join_batches(batches: Sequence[TokenBatch]) -> TokenBatch:
    """One batch after the other; their sequences stay apart, their groups are left behind.

    Raises:
        ValueError: a column is known for some batches and not for others.
    """
    turns = [0, *(len(batch.segments) for batch in batches)]
    sequences = [0, *(batch.num_sequences for batch in batches)]
    # `turn_index` is left out here: it has to be shifted by the turns of the batches before.
    joined: dict[str, object] = {name: _joined(batches, name) for name in _PER_TOKEN[1:]}
    return TokenBatch(
        segments=tuple(
            # Two batches may use one name for different sequences: the place of the batch tells them apart.
            replace(segment, sequence=(place, segment.sequence))
            for place, batch in enumerate(batches)
            for segment in batch.segments
        ),
        turn_index=torch.cat([b.turn_index + sum(turns[: k + 1]) for k, b in enumerate(batches)]),
        trajectory_index=torch.cat([b.trajectory_index + sum(sequences[: k + 1]) for k, b in enumerate(batches)]),
        num_sequences=sum(sequences),
        **joined,  # type: ignore[arg-type]
    )


def _joined(batches: Sequence[TokenBatch], name: str) -> Tensor | None:
    parts = [column for batch in batches if (column := getattr(batch, name)) is not None]
    # Filling a gap with 0 would look like a log-prob of certainty or a value that was predicted.
    if 0 < len(parts) < len(batches):
        raise ValueError(f"{name} is given for {len(parts)} of {len(batches)} batches; give it for all or for none")
    return torch.cat(parts) if parts else None


def _numbered(names: Iterable[Hashable]) -> tuple[Tensor, int]:
    """[U] names as numbers in the order in which they first come, and how many there are."""
    order: dict[Hashable, int] = {}
    numbers = [order.setdefault(name, len(order)) for name in names]
    return torch.tensor(numbers, dtype=torch.long), len(order)


def _column(column: Tensor, device: torch.device | str = "cpu") -> Tensor:
    # float32 whatever the model computes in: bfloat16 would round small differences of log-probs away.
    return column.detach().to(device, torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """losses: [N] with gradient, before mask and weights. metrics: name -> (sum, count), to be averaged."""

    losses: Tensor
    metrics: Mapping[str, tuple[Tensor | float, Tensor | float]]


class TokenObjective(Protocol):
    """A loss as the learner takes it: pure per-token losses, and the name of the way to average them."""

    @property
    def aggregation(self) -> Aggregation:
        """How the tokens' losses become one number."""

    @property
    def max_length(self) -> float | None:
        """L of the "constant" aggregation in tokens, None for the others."""

    @property
    def with_entropy(self) -> bool:
        """Whether `TokenBatch.entropy` is needed; it costs a pass over the vocabulary."""

    @property
    def whole_sequences(self) -> bool:
        """Whether the loss looks at a sequence as a whole (GSPO), which then may not be split over micro-batches."""

    def __call__(self, tokens: TokenBatch) -> TokenLoss:
        """The losses of a micro-batch, whose `logprobs` and `logprobs_old` are known."""


@runtime_checkable
class FilteringObjective(TokenObjective, Protocol):
    """A loss that may leave tokens out of an optimiser step, and so out of its denominator."""

    @property
    def filters(self) -> bool:
        """Whether `keep` drops anything at all; if so, the learner computes the old log-probs first."""

    def keep(self, tokens: TokenBatch) -> Tensor:
        """[N] bool over all tokens of the step, false where one is to be left out."""
        ...


@runtime_checkable
class VocabularyObjective(TokenObjective, Protocol):
    """A loss that needs more of a token's distribution than the log-prob of the token that was sampled."""

    def term(self, tokens: TokenBatch) -> Callable[[Tensor, Tensor], Tensor] | None:
        """From places [n] in the micro-batch and logits [n, V] to [n], which come back as `divergence`; None = not."""
        ...
