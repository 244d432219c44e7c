"""Drawing from views: uniform with replacement, mixtures of offline and online, a split by trajectory."""

from __future__ import annotations

from collections.abc import Mapping
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
        # A generator of its own: draws elsewhere in the process must not shift these.
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
        """What a checkpoint keeps: the draws, and how many there were."""
        # The view is not kept: it is computed anew from the store, by the filters of the run.
        return {"rng": self._rng.bit_generator.state, "num_drawn": self.num_drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the draws of a checkpoint."""
        self._rng.bit_generator.state = state["rng"]
        self.num_drawn = int(state["num_drawn"])
