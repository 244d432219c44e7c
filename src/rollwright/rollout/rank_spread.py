"""Episodes over several ranks: every rank is given all requests, plays its share, and gets all trajectories back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Literal

from rollwright.contracts import ConfigError, Group, Trajectory
from rollwright.learner import Ranks
from rollwright.rollout.collector import Collector, GroupRequest, Progress
from rollwright.rollout.episode import EpisodeRequest

Players = Literal["each", "first"]
"""Who plays: each rank with an engine of its own, or the first for all, where servers do the work anyway."""


class SpreadCollector(Collector):
    """A collector that all ranks call with the same requests, and that gives all of them the same answer.

    A request's draws are fixed by its key, so that it does not matter which rank plays it. Ranks wait for the slowest
    at the end of each call, no longer than the process group's timeout.
    """

    def __init__(self, *positional: Any, ranks: Ranks, players: Players, **settings: Any) -> None:
        super().__init__(*positional, **settings)
        self._ranks, self._players = ranks, players

    def played_here(self, count: int) -> int:
        """How many of so many requests this rank plays."""
        if self._players == "each":
            # Rank r plays the requests r, r + count, ..., as `Ranks.spread` deals them.
            return len(range(self._ranks.index, count, self._ranks.count))
        return count if self._ranks.first else 0

    def collect(self, requests: Sequence[GroupRequest], progress: Progress | None = None) -> list[Group]:
        """All groups, in the order asked for. A group stays on one rank: its members share their prompt."""
        # Bound here: inside the lambda a bare `super()` would take `mine` for the collector.
        play = super().collect
        if self._players == "each":
            return self._ranks.spread(requests, lambda mine: play(mine, progress))
        # All ranks must come here: the others wait in the broadcast while the first one plays.
        return self._ranks.of_first(play(requests, progress) if self._ranks.first else [])

    def play(self, requests: Sequence[EpisodeRequest], progress: Progress | None = None) -> list[Trajectory]:
        """One trajectory per request, in order."""
        play = super().play
        if self._players == "each":
            return self._ranks.spread(requests, lambda mine: play(mine, progress))
        return self._ranks.of_first(play(requests, progress) if self._ranks.first else [])

    def start(self, requests: Sequence[GroupRequest], progress: Progress | None = None) -> Future[list[Group]]:
        """Not with several ranks: what is ready when would differ between them.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("episodes cannot be played ahead with several ranks: use rollout.max_staleness=0")
