"""Collection ahead of the learner by a bounded staleness: what is asked of the generator, and when.

    take(step s), at version s:   issue the batches up to s + k       k = rollout.max_staleness, 1 or more
                                  wait for one batch of finished groups
                                  drop what is more than k versions old, issue as much anew, wait for it

At most k + 1 batches are in flight or waiting, which is what holds the generator back. Whatever is finished first is
used first, so that no update waits for the slowest episode of its batch. With k = 0 there is no line to hold: see
`collection.OnPolicy`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from rollwright.contracts import ConfigError, Group, Trajectory
from rollwright.curriculum import Curriculum, StartPool
from rollwright.generation import Engine
from rollwright.rollout import Ahead, Collector, StaleCount, Start, set_aside
from rollwright.training.collection import Collection, OnPolicy, Requests, Watch
from rollwright.training.loop_config import LoopConfig

log = logging.getLogger(__name__)


class Pipeline:
    """The groups of each step, played ahead. A `Collection`.

    Args:
        start: begins a play (see `run_ahead.Start`).
        version: of the engine's weights now.
        steps: of the run.
    """

    def __init__(self, requests: Requests, start: Start, *, version: Callable[[], int], steps: int) -> None:
        self.requests, self.settings, self.version, self.steps = requests, requests.settings, version, steps
        self.ahead = Ahead(start)
        self._stale = StaleCount(max_staleness=self.settings.max_staleness)
        # Batches before this one have been issued.
        self._released = 0
        self._step, self._rounds = -1, 1
        self._taken: list[Group] = []

    def take(self, step: int) -> list[Group]:
        """One batch of groups for the update of `step`, none of it too old."""
        self._step, self._rounds = step, 1
        self._release(step)
        return self._fresh(self.settings.groups_per_step)

    def more(self, count: int) -> list[Group]:
        """As many groups again for the same step, of other tasks or start states."""
        self._rounds += 1
        self.ahead.issue(self.requests.extra(self._step, count))
        return self._fresh(count)

    def watched(self, watch: Watch) -> AbstractContextManager[None]:
        """Meanwhile tell `watch` of every episode that ends, whichever step it is for."""
        return self.ahead.watched(watch)

    def metrics(self) -> dict[str, float]:
        """What became of the groups since the last call."""
        return {"rollout/rounds_count": float(self._rounds)} | self._stale.metrics()

    def dropped(self) -> list[Trajectory]:
        """Finished episodes that no update uses, marked with the reason: to be stored with those that were taken."""
        # The run has stored what was taken before it asks for what was dropped.
        lost, self._stale.lost, self._taken = self._stale.lost, [], []
        return lost

    def close(self) -> None:
        """Give up what is in flight; whole groups that were not used, or not stored, count as dropped. Idempotent."""
        unused = [t for group in [*self._taken, *self.ahead.close()] for t in group.trajectories]
        self._stale.lost += [set_aside(t, "the run stopped before an update could use it") for t in unused]
        self._taken = []

    def _release(self, step: int) -> None:
        # A resumed run begins at a later step than 0.
        first = max(step, self._released)
        last = max(step, min(step + self.settings.max_staleness, self.steps - 1))  # nothing that no step will use
        for batch in range(first, last + 1):
            self.ahead.issue(self.requests.batch(batch))
        self._released = max(self._released, last + 1)

    def _fresh(self, count: int) -> list[Group]:
        """Finished groups, those that grew too old replaced by new ones."""
        kept: list[Group] = []
        while len(kept) < count:
            taken = self.ahead.take(count - len(kept))
            # By the version of now, as a group may have waited in the line since it was finished.
            fresh = self._stale.keep(taken, self.version())
            if lost := len(taken) - len(fresh):
                log.info("step %d: %d groups were too old (rollout.max_staleness)", self._step, lost)
                # Played by the weights of now, so these cannot be too old for this step.
                self.ahead.issue(self.requests.extra(self._step, lost))
            kept += fresh
            # Kept in mind until they are stored, so that `close` can set them aside if the run stops before that.
            self._taken += fresh
        return kept


def open_collection(
    config: LoopConfig,
    collector: Collector,
    curriculum: Curriculum,
    engine: Engine,
    starts: StartPool | None = None,
) -> Collection:
    """Where a run gets its groups from.

    Raises:
        ConfigError: `rollout.max_staleness` above 0 with several processes: each would take other groups than the rest.
    """
    requests = Requests(config.rollout, curriculum, seed=config.run.seed, starts=starts, actor=config.actor)
    ahead, processes = config.rollout.max_staleness, int(os.environ.get("WORLD_SIZE", "1"))
    if not ahead:
        return OnPolicy(requests, collector.collect)
    if processes > 1:
        raise ConfigError(
            f"rollout.max_staleness={ahead} runs with one process, and {processes} were started: which episodes are "
            "ready is a matter of time, and would differ between ranks. Use rollout.max_staleness=0, or one process"
        )
    # The version is asked for each time, as every sync raises it.
    return Pipeline(requests, collector.start, version=lambda: engine.version, steps=config.run.steps)
