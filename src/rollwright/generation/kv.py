"""Keys and values of the running rows, padded on the left, with room to grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 32  # tokens of spare room: growing by one token must not copy everything


class SlabLayer(DynamicLayer):
    """One layer's keys and values [B, heads, T, d] as a view of a larger buffer, filled from the left."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new keys and values [B, heads, n, d]; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.slabs: list[Tensor] = []
        used = self.keys.shape[-2] if self.keys.numel() else 0
        needed = used + key_states.shape[-2]
        if not self.slabs or self.slabs[0].shape[-2] < needed:
            held = (self.keys, self.values) if used else ()
            self.slabs = [_slab(key_states, needed + _ROOM), _slab(value_states, needed + _ROOM)]
            for slab, old in zip(self.slabs, held, strict=False):
                slab[..., :used, :] = old
        for slab, new in zip(self.slabs, (key_states, value_states), strict=True):
            slab[..., used:needed, :] = new
        self.keys, self.values = (slab[..., :needed, :] for slab in self.slabs)
        return self.keys, self.values

    @classmethod
    def of(cls, slabs: list[Tensor], used: int) -> SlabLayer:
        layer = cls()
        layer.lazy_initialization(slabs[0], slabs[1])
        layer.slabs = slabs
        layer.keys, layer.values = (slab[..., :used, :] for slab in slabs)
        return layer


@dataclass(eq=False)
class KVRows:
    """A cache, and how many of its slots each row really uses (the last ones: padding stands on the left)."""

    cache: Cache
    lengths: list[int]
    width: int

    @classmethod
    def empty(cls, lengths: Sequence[int]) -> KVRows:
        """For a prefill of prompts of these lengths; `extend` by the longest comes next."""
        rows = cls(cache=Cache(layer_class_to_replicate=SlabLayer), lengths=[0] * len(lengths), width=0)
        rows._first = list(lengths)
        return rows

    def __post_init__(self) -> None:
        self._first: list[int] | None = None

    def width_after(self, new: int) -> int:
        return max(self._first) if self._first else self.width + new

    def extend(self, new: int) -> tuple[Tensor, Tensor]:
        """Make room for `new` tokens per row.

        Returns:
            attention mask [B, width] over all slots, the new ones included; positions [B, new].
        """
        added = self._first or [new] * len(self.lengths)
        self._first = None
        self.lengths = [length + more for length, more in zip(self.lengths, added, strict=True)]
        self.width += new
        lengths = torch.tensor(self.lengths)[:, None]
        mask = (torch.arange(self.width)[None] >= self.width - lengths).long()
        positions = lengths - new + torch.arange(new)[None]
        return mask, positions.clamp_(min=0)

    def select(self, rows: Sequence[int]) -> KVRows:
        """These rows only (a row may come twice), and no more padding than they need."""
        lengths = [self.lengths[row] for row in rows]
        width = max(lengths)
        return _gather([(self, list(rows))], lengths, width)

    def join(self, other: KVRows) -> KVRows:
        """The rows of both, padded to the longer."""
        lengths = self.lengths + other.lengths
        parts = [(self, list(range(len(self.lengths)))), (other, list(range(len(other.lengths))))]
        return _gather(parts, lengths, max(lengths))


def _slab(like: Tensor, capacity: int) -> Tensor:
    return like.new_zeros((*like.shape[:-2], capacity, like.shape[-1]))


def _gather(parts: list[tuple[KVRows, list[int]]], lengths: list[int], width: int) -> KVRows:
    """Copy rows of several caches into one new cache of `width` used slots."""
    layers = []
    for index in range(len(parts[0][0].cache.layers)):
        pairs = [(part.cache.layers[index], part.width, rows) for part, rows in parts]
        slabs = [_stack([(layer.keys, w, r) for layer, w, r in pairs], width)]
        slabs.append(_stack([(layer.values, w, r) for layer, w, r in pairs], width))
        layers.append(SlabLayer.of(slabs, width))
    return KVRows(cache=Cache(layers=layers), lengths=lengths, width=width)


def _stack(parts: list[tuple[Any, int, list[int]]], width: int) -> Tensor:
    like = parts[0][0]
    count = sum(len(rows) for _, _, rows in parts)
    # Zeros, not empty: padding is masked, but 0 times a NaN left in memory would still be NaN.
    slab = like.new_zeros((count, like.shape[1], width + _ROOM, like.shape[3]))
    at = 0
    for held, held_width, rows in parts:
        used = min(width, held_width)
        taken = held[:, :, held_width - used :]
        slab[at : at + len(rows), :, width - used : width] = taken if _is_all(rows, held) else taken[rows]
        at += len(rows)
    return slab


def _is_all(rows: list[int], held: Tensor) -> bool:
    return rows == list(range(held.shape[0]))
