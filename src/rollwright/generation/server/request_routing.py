"""Which replica an episode is served by: always the same one, so that it finds its history in the prefix cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class Router:
    """Round robin for new episodes, affinity for those under way. Pure bookkeeping: no clock, no network.

    Args:
        remember: episodes kept in mind; the least recently served is forgotten first, which costs it its cache hits.
    """

    def __init__(self, replicas: int, *, remember: int = 65_536) -> None:
        if replicas < 1:
            raise ValueError(f"a router needs 1 replica or more, got {replicas}")
        self._replicas, self._remember = replicas, remember
        self._home: OrderedDict[str, int] = OrderedDict()  # the least recently served episode first
        self._next = 0

    def choose(self, session: str, ready: Sequence[int]) -> int:
        """The replica for a request of this episode; an episode whose replica is not ready moves for good.

        Args:
            ready: indices of the replicas that may be asked now.

        Raises:
            ValueError: none is ready.
        """
        if not ready:
            raise ValueError("no replica is ready: wait for one before choosing")
        home = self._home.get(session)
        # For good: a server clears its cache before it serves again, so the way back would find nothing.
        if home is None or home not in ready:
            home = self._home[session] = self._in_turn(ready)
        self._home.move_to_end(session)
        if len(self._home) > self._remember:
            self._home.popitem(last=False)
        return home

    def _in_turn(self, ready: Sequence[int]) -> int:
        for step in range(self._replicas):
            candidate = (self._next + step) % self._replicas
            if candidate in ready:
                self._next = (candidate + 1) % self._replicas
                return candidate
        raise ValueError(f"replicas {list(ready)} are not among the {self._replicas} of this router")


def session_of(request_id: str) -> str:
    """The episode that a request belongs to: its id without the number of the turn."""
    return request_id.rpartition("/")[0] or request_id  # an id without a turn is an episode of its own
