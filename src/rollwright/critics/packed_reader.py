"""Reading values of many sequences without gradient: packed, each rank its share, put back in the order asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor

from rollwright.batching import CostModel, Layout, PackedBatch, Segment, pack, pays_on
from rollwright.learner import Ranks, Share, share

Computes = Callable[[PackedBatch], dict[str, Tensor]]
"""A packed micro-batch -> name -> [rows, N], one column per action token of it."""


class PackedReader:
    """Packs segments for one device and runs a module over them.

    Args:
        token_budget, layout: see `batching.pack`.
        autocast_dtype: bfloat16 computes in it; None as the weights are.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        token_budget: int = 4096,
        layout: Layout = "auto",
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        self.accelerator, self.ranks = accelerator, Ranks(accelerator)
        self.token_budget, self.layout, self.autocast_dtype = token_budget, layout, autocast_dtype

    @torch.no_grad()
    def read(self, computes: Computes, segments: Sequence[Segment], *, autocast: bool = True) -> dict[str, Tensor]:
        """What the module says of every action token, in the flat order. -> name -> [rows, N] float32 on the CPU."""
        mine = share(segments, rank=self.ranks.index, count=self.ranks.count)
        packs = self.pack(mine.segments)
        total = sum(len(segment.action_ids) for segment in mine.segments)
        columns: dict[str, Tensor] = {}
        for number in range(max(self.ranks.gather(len(packs)))):  # sharded layers are gathered by all ranks together
            packed = packs[number % len(packs)]
            with self.autocast() if autocast else nullcontext():
                values = computes(packed)
            for name, rows in values.items():
                whole = columns.setdefault(name, torch.zeros(len(rows), total))
                whole[:, packed.entries.cpu()] = rows.float().cpu()
        return self._collect(columns, segments, mine)

    def _collect(self, columns: dict[str, Tensor], segments: Sequence[Segment], mine: Share) -> dict[str, Tensor]:
        """The columns of all ranks in the flat order of the whole batch."""
        if self.ranks.count == 1:
            return columns
        places = places_of(segments, mine)
        total = sum(len(segment.action_ids) for segment in segments)
        result = {name: torch.zeros(len(rows), total) for name, rows in columns.items()}
        for where, part in self.ranks.gather((places, columns)):
            for name, rows in part.items():
                result[name][:, where] = rows[:, : len(where)]  # a stand-in's columns belong nowhere
        return result

    def pack(self, segments: Sequence[Segment]) -> list[PackedBatch]:
        """Micro-batches on the accelerator's device."""
        costs = CostModel(dense=not pays_on(self.accelerator.device))
        packs = pack(segments, token_budget=self.token_budget, layout=self.layout, costs=costs)
        return [packed.to(self.accelerator.device) for packed in packs]

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that is computed in."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=self.autocast_dtype)


def places_of(segments: Sequence[Segment], mine: Share) -> Tensor:
    """[n] places of this rank's action tokens in the flat order of the whole batch."""
    lengths = torch.tensor([len(segment.action_ids) for segment in segments])
    starts = lengths.cumsum(0) - lengths
    parts = [torch.arange(int(starts[i]), int(starts[i] + lengths[i])) for i in mine.indices]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
