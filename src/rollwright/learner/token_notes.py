"""What an update finds out about its action tokens, noted for whoever looks at the run: nothing is computed for it.

The update hands over tensors that it has anyway; they are laid out and written when the step ends. A bounded number of
tokens is kept per step: whole trajectories, in the order of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rollwright.batching import Segment, TokenBatch
from rollwright.learner.ranks import Ranks
from rollwright.store import TokenColumns, TokenLog

Array = np.ndarray[Any, Any]
Seen = tuple[Array, Array, Array | None, Array]


class TokenTap:
    """The notes of one batch. Made before its update, which calls `see` once per micro-batch of its first pass.

    Args:
        batch: made of groups, so that turns have their records.
        budget: action tokens that are kept at most; the first trajectory is kept whatever its length.
    """

    def __init__(self, batch: TokenBatch, budget: int) -> None:
        self.batch = batch
        ends = batch.lengths.cumsum(0)
        # Ends only grow, so the trajectories within the budget are the first ones.
        self.num_sequences = max(1, int((ends <= budget).sum()))
        counts = batch.tokens_per_turn.tolist()
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        self.turns = [u for u, s in enumerate(batch.trajectory_index.tolist()) if s < self.num_sequences]
        self.counts = [counts[u] for u in self.turns]
        # A micro-batch holds other turns in another order: their segments are the same objects.
        self._starts = {id(batch.segments[u]): int(starts[u]) for u in self.turns}
        self._parts: list[tuple[TokenBatch, Tensor, Tensor, Tensor | None, Tensor]] = []

    def see(self, step: TokenBatch, entries: Tensor, tokens: TokenBatch) -> None:
        """Keep what a micro-batch has, on its device: copying it now would make the update wait.

        Args:
            step: the batch of this rank's optimiser step.
            entries: [n] places of the tokens in it.
            tokens: the micro-batch, with `logprobs_old`.
        """
        assert tokens.logprobs_old is not None
        entropy = None if tokens.entropy is None else tokens.entropy.detach()
        self._parts.append((step, entries, tokens.logprobs_old.detach(), entropy, tokens.mask))

    def found(self) -> list[Seen]:
        """(places in the batch, log-probs before the update, entropies, masks) of each micro-batch that was seen."""
        return [seen for part in self._parts if (seen := self._located(*part))]

    def _located(
        self, step: TokenBatch, entries: Tensor, logprobs: Tensor, entropy: Tensor | None, mask: Tensor
    ) -> Seen | None:
        counts = step.tokens_per_turn.cpu().numpy()
        # Both batches order turns in their own way; a token's place inside its turn is the same in both.
        own_starts = np.cumsum(counts) - counts
        there = np.array([self._starts.get(id(segment), -1) for segment in step.segments])
        places = entries.cpu().numpy()
        turns = step.turn_index.cpu().numpy()[places]
        kept = there[turns] >= 0
        if not kept.any():
            return None
        found = (there[turns] + places - own_starts[turns])[kept]
        entropies = None if entropy is None else _whole(entropy)[kept]
        return found, _whole(logprobs)[kept], entropies, mask.cpu().numpy()[kept]

    def columns(self, seen: Sequence[Seen]) -> TokenColumns:
        """The notes of all ranks in one table."""
        batch, size = self.batch, sum(self.counts)
        # NaN stays where no micro-batch came: a step whose tokens were all filtered away is left out.
        logprobs, entropies = np.full(size, np.nan, np.float32), np.full(size, np.nan, np.float32)
        masks = np.zeros(size, np.bool_)
        for places, found, entropy, mask in seen:
            logprobs[places], masks[places] = found, mask
            if entropy is not None:
                entropies[places] = entropy
        columns = {
            "positions": np.concatenate([_positions(batch.segments[u]) for u in self.turns]),
            "advantages": _head(batch.advantages, size),
            "diffs": logprobs - _head(batch.logprobs_sampled, size),
            "masks": masks,
        }
        if not np.isnan(entropies).all():
            columns["entropies"] = entropies
        # A column of nothing but ones says nothing.
        if not bool((batch.weights == 1).all()):
            columns["weights"] = _head(batch.weights, size)
        for name, column in (("values", batch.values), ("returns", batch.returns)):
            if column is not None:
                columns[name] = _head(column, size)
        shown = batch.trajectories[: self.num_sequences]
        # Two turns of a trajectory may be equal: the object itself says which one it is.
        numbers = {id(turn): number for trajectory in shown for number, turn in enumerate(trajectory.turns)}
        owners = batch.trajectory_index.tolist()
        return TokenColumns(
            trajectory_ids=[shown[owners[u]].id for u in self.turns],
            turns=[numbers.get(id(batch.turns[u]), -1) for u in self.turns],
            num_ids=[len(batch.segments[u].action_ids) for u in self.turns],
            counts=self.counts,
            columns=columns,
        )


class TokenNotes:
    """The token log of a run as its loop writes it. Made with the run; all ranks call alike, the first one writes.

    Args:
        run: the run folder.
        budget: action tokens per step; 0 writes nothing.
    """

    def __init__(self, run: Path, *, budget: int, ranks: Ranks) -> None:
        self.log, self.budget, self._ranks = TokenLog(run), budget, ranks
        self._parts: list[TokenColumns] = []

    def tap(self, batch: TokenBatch) -> TokenTap | None:
        """What the batch's update is to note; None where nothing is kept, or the turns have no records."""
        return TokenTap(batch, self.budget) if self.budget and batch.trajectories else None

    def take(self, tap: TokenTap | None) -> None:
        """Take what an update has noted."""
        if tap is None:
            return
        # All ranks gather, though the first alone keeps: it is a collective call.
        seen = [part for parts in self._ranks.gather(tap.found()) for part in parts]
        if self._ranks.first:
            self._parts.append(tap.columns(seen))

    def write(self, step: int, tokenizer: Any) -> None:
        """Write the step's file.

        Args:
            tokenizer: of the policy: it is kept beside the first file, so that ids can be shown as strings.
        """
        parts, self._parts = self._parts, []
        if parts and self._ranks.first:
            self.log.write(step, parts)
            # Only fast tokenizers have one.
            backend = getattr(tokenizer, "backend_tokenizer", None)
            if backend is not None:
                self.log.write_tokenizer(backend.to_str())

    def rewind(self, step: int) -> None:
        """Set aside what a resumed run writes anew."""
        if self._ranks.first:
            self.log.rewind(step)


def _whole(column: Tensor) -> Array:
    # numpy has no bfloat16.
    found: Array = column.float().cpu().numpy()
    return found


def _head(column: Tensor, size: int) -> Array:
    # The trajectories that are kept are the first ones, so their tokens are the head of every column.
    return _whole(column[:size])


def _positions(segment: Segment) -> Array:
    if segment.mask is None:
        return np.arange(len(segment.action_ids))
    return np.flatnonzero(np.asarray(segment.mask))
