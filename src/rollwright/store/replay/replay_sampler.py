"""Drawing from views: uniform with replacement, mixtures of offline and online, a split by trajectory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import DataError
from rollwright.store.replay.replay_table import Transition, TurnTable

Array = NDArray[Any]


class ReplaySampler:
    """Uniform draws with replacement over the turns of a view. The state is the generator and two counters.

    Args:
        turns: [n] numbers of turns, see `views`.
        name: what an error calls the view.
    """

    def __init__(self, table: TurnTable, turns: Array, *, seed: int, gamma: float = 1.0, name: str = "replay") -> None:
        self.table, self.gamma, self.name = table, gamma, name
        self._rng = np.random.default_rng(seed)
        self.num_drawn = 0
        self.view(turns)

    def view(self, turns: Array) -> None:
        """Draw from these turns from now on (the store has grown, a filter has changed).

        Raises:
            DataError: none is left.
        """
        if not len(turns):
            raise DataError(f"the view `{self.name}` holds no turn: loosen its filter or collect more")
        self.turns = turns

    def __len__(self) -> int:
        return len(self.turns)

    def indices(self, size: int) -> Array:
        """[size] numbers of turns."""
        self.num_drawn += size
        return self.turns[self._rng.integers(len(self.turns), size=size)]

    def sample(self, size: int) -> list[Transition]:
        """A batch."""
        return self.table.transitions(self.indices(size), gamma=self.gamma)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state, "num_drawn": self.num_drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
        self.num_drawn = int(state["num_drawn"])


class Mixture:
    """Batches drawn from several samplers by fixed shares: the offline/online ratio of RLPD and WSRL.

    The shares of one batch are rounded down, and what is left goes to the last sampler. A share of 0 never touches its
    sampler, so offline data may be thrown away.
    """

    def __init__(self, parts: Sequence[tuple[ReplaySampler, float]]) -> None:
        total = sum(share for _, share in parts)
        if not parts or abs(total - 1) > 1e-9 or any(share < 0 for _, share in parts):
            raise ValueError(f"shares must be 0 or more and add up to 1, got {[share for _, share in parts]}")
        self.parts = [(sampler, share) for sampler, share in parts if share > 0]

    def sample(self, size: int) -> list[Transition]:
        """A batch of `size`, part after part."""
        counts = [int(size * share) for _, share in self.parts]
        counts[-1] += size - sum(counts)
        return [t for (sampler, _), n in zip(self.parts, counts, strict=True) for t in sampler.sample(n)]

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [sampler.state_dict() for sampler, _ in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for (sampler, _), saved in zip(self.parts, state["parts"], strict=True):
            sampler.load_state_dict(saved)


def _unit(seed: int, number: int) -> float:
    """A number in [0, 1) fixed by seed and trajectory."""
    digest = hashlib.sha256(f"{seed}/split/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
