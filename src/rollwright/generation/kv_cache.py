"""Keys and values of the running rows, padded on the left, with room to grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 32  # tokens of spare room: growing by one token must not copy everything
_MOST_PADDING = 1.25  # slots over the longest row's: beyond, new rows are no longer put in place of finished ones


class SlabLayer(DynamicLayer):
    """One layer's keys and values [B, heads, T, d]: views of larger buffers that are filled from the left."""

    def __init__(self, slabs: tuple[Tensor, ...] = (), used: int = 0) -> None:
        super().__init__()
        self.slabs, self.used = slabs, used
        if slabs:
            self.lazy_initialization(slabs[0], slabs[1])
            self._show()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new keys and values [B, heads, n, d]; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        needed = self.used + key_states.shape[-2]
        if not self.slabs or self.slabs[0].shape[-2] < needed:
            old = self.slabs
            self.slabs = tuple(
                new.new_zeros((*new.shape[:-2], needed + _ROOM, new.shape[-1])) for new in (key_states, value_states)
            )
            for slab, held in zip(self.slabs, old, strict=False):  # `old` is empty the first time
                slab[..., : self.used, :] = held[..., : self.used, :]
        for slab, new in zip(self.slabs, (key_states, value_states), strict=True):
            slab[..., self.used : needed, :] = new
        self.used = needed
        return self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        # transformers takes the cache's length from the shape of `keys`: the spare room must not show.
        self.keys, self.values = keys, values = tuple(slab[..., : self.used, :] for slab in self.slabs)
        return keys, values


@dataclass(eq=False)
class KVRows:
    """A cache and how many of its `width` slots each row uses: the last ones, since padding stands on the left."""

    layers: list[SlabLayer]
    cache: Cache
    lengths: list[int]
    width: int = 0

    @classmethod
    def empty(cls, rows: int, num_layers: int) -> KVRows:
        """No token yet."""
        return cls.of([SlabLayer() for _ in range(num_layers)], [0] * rows, 0)

    @classmethod
    def of(cls, layers: list[SlabLayer], lengths: list[int], width: int) -> KVRows:
        """The rows of a cache that a forward pass has just filled."""
        return cls(layers=layers, cache=Cache(layers=list(layers)), lengths=lengths, width=width)

    def extend(self, added: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Count `added` tokens per row, the shorter ones padded on the left: only an empty cache may take unequal ones.

        Returns:
            attention mask [B, width] over all slots, the new ones included; positions [B, max(added)].
        """
        new = max(added)
        self.lengths = [length + more for length, more in zip(self.lengths, added, strict=True)]
        self.width += new
        lengths = torch.tensor(self.lengths)[:, None]  # [B, 1]
        mask = (torch.arange(self.width)[None] >= self.width - lengths).long()
        positions = lengths - new + torch.arange(new)[None]
        # Padding is masked, but its position is looked up all the same and must not be negative.
        return mask, positions.clamp_(min=0)

    def read(self, model: nn.Module, sequences: Sequence[Sequence[int]], **words: Any) -> Any:
        """The model's output for these new tokens of each row, the shorter ones padded on the left."""
        added = [len(ids) for ids in sequences]
        mask, positions = self.extend(added)
        # Any id with a row will do as padding, since it is masked; a model need not have a token for it.
        padded = torch.tensor([[ids[0]] * (max(added) - len(ids)) + list(ids) for ids in sequences])
        device = next(model.parameters()).device
        return model(
            input_ids=padded.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=self.cache,
            use_cache=True,
            **words,
        )

    def select(self, rows: Sequence[int]) -> KVRows:
        """These rows only (a row may come twice), and no more padding than they need."""
        return gather([(self, list(rows))])

    def join(self, other: KVRows) -> KVRows:
        """The rows of both, padded to the longer."""
        return gather([(part, list(range(len(part.lengths)))) for part in (self, other)])

    def replace(self, rows: Sequence[int], other: KVRows, taken: Sequence[int]) -> bool:
        """Put the rows `taken` of another cache into the place of `rows`, without copying the rest.

        Returns:
            False, and nothing is changed, where they need more slots than there are, or where all rows together need
            so few of the slots that the padding would cost more than a copy.
        """
        lengths = list(self.lengths)
        for row, source in zip(rows, taken, strict=True):
            lengths[row] = other.lengths[source]
        if not max(lengths) <= self.width <= _MOST_PADDING * max(lengths):
            return False
        # Rows end at the right edge. What the former row left further to the left is masked by the new length.
        used = min(self.width, other.width)
        for layer, new in zip(self.layers, other.layers, strict=True):
            for slab, held in zip(layer.slabs, new.slabs, strict=True):
                taken_slots = held[list(taken), :, other.width - used : other.width]
                slab[list(rows), :, self.width - used : self.width] = taken_slots
        self.lengths = lengths
        return True


def gather(parts: Sequence[tuple[KVRows, list[int]]], *, spare: float = 0.0) -> KVRows:
    """Copy rows of several caches into a new one, as wide as its longest row and `spare` times as much padding."""
    lengths = [part.lengths[row] for part, rows in parts for row in rows]
    width = int(max(lengths) * (1 + spare))
    layers = []
    for index in range(len(parts[0][0].layers)):
        held = [(part.layers[index].slabs, part.width, rows) for part, rows in parts]
        slabs = tuple(_stack([(both[side], end, rows) for both, end, rows in held], width) for side in (0, 1))
        layers.append(SlabLayer(slabs, width))
    return KVRows.of(layers, lengths, width)


def _stack(parts: list[tuple[Tensor, int, list[int]]], width: int) -> Tensor:
    """[sum of rows, heads, width + room, d] out of (slab, its used slots, rows) each."""
    like = parts[0][0]
    count = sum(len(rows) for _, _, rows in parts)
    # Not zeros: the rows overwrite most of it, and the room behind `width` is written before it is read.
    slab = like.new_empty((count, like.shape[1], width + _ROOM, like.shape[3]))
    at = 0
    for held, end, rows in parts:
        used, until = min(width, end), at + len(rows)
        taken = held[:, :, end - used : end]
        everything = rows == list(range(held.shape[0]))
        # Padding is masked, but 0 times a NaN left in memory would still be NaN.
        slab[at:until, :, : width - used].zero_()
        slab[at:until, :, width - used : width] = taken if everything else taken[rows]
        at = until
    return slab
