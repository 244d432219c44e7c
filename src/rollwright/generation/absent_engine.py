"""The engine of a rank that does not play: the first rank holds the engine, this one takes part in weight updates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rollwright.contracts import EngineFault
from rollwright.generation.engine import Generation, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from rollwright.models import Adapter


class AbsentEngine:
    """Reads weights to their end and keeps none: sharded parameters are gathered by all ranks in step.

    Args:
        context_length: as that of the first rank's engine.
        takes_adapters: as that of the first rank's engine; the same tensors must be gathered on both sides.
    """

    name = "absent"

    def __init__(self, *, context_length: int, takes_adapters: bool) -> None:
        self.context_length, self.takes_adapters = context_length, takes_adapters
        self.version = 0

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        """There is nothing here to sample from.

        Raises:
            EngineFault: always.
        """
        raise EngineFault(f"{request_id}: the engine belongs to the first rank, and only that rank plays episodes")

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Gather, drop, and count the update."""
        # All ranks gather each parameter together: one that stopped early would leave the others hanging.
        deque(weights, maxlen=0)
        self.version = version

    def load_adapter(self, adapter: Adapter, *, version: int) -> None:
        """The same for an adapter alone."""
        self.load_weights(adapter.weights, version=version)

    def close(self) -> None:
        """Nothing is open."""
