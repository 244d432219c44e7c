"""What is asked of the generator, and when: the groups of each step, ahead of the learner by a bounded staleness.

    take(step s), at version s:   issue the batches up to s + k       k = rollout.max_staleness
                                  wait for one batch of finished groups
                                  drop what is more than k versions old, issue as much anew, wait for it

With k = 0 batch s is issued when the update of step s - 1 has been synced, and all of it is waited for: exactly
on-policy. With k > 0 at most k + 1 batches are in flight or waiting, which is what holds the generator back. Whatever
is finished first is used first, so that no update waits for the slowest episode of its batch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from rollwright.contracts import ConfigError, Group, Task, Trajectory, episode_seed
from rollwright.curriculum import Curriculum, StartPool
from rollwright.generation import Engine
from rollwright.rollout import (
    Ahead,
    Collector,
    GroupRequest,
    RolloutSettings,
    StaleCount,
    Start,
    finished,
    is_informative,
    set_aside,
)
from rollwright.training.loop_config import LoopConfig

log = logging.getLogger(__name__)
EXTRA_DRAWS = 1_000_000
"""Steps from which the tasks of replacements are drawn: no run gets that far, so no step's own tasks are touched."""


class Pipeline:
    """The groups of each step. Made by `Training`, lives for the run.

    Args:
        start: begins a play (see `ahead.Start`).
        version: of the engine's weights now.
        seed, steps: of the run.
        starts: where groups may begin besides the tasks' initial states.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        start: Start,
        curriculum: Curriculum,
        *,
        version: Callable[[], int],
        seed: int,
        steps: int,
        starts: StartPool | None = None,
    ) -> None:
        self.settings, self.curriculum, self.version = settings, curriculum, version
        self.seed, self.steps, self.starts = seed, steps, starts
        self.ahead = Ahead(start, whole=settings.max_staleness == 0)
        self._stale = StaleCount(max_staleness=settings.max_staleness)
        self._released = 0
        self._step, self._extras, self._rounds = -1, 0, 1
        self._taken: list[Group] = []

    def take(self, step: int) -> list[Group]:
        """One batch of groups for the update of `step`, none of it too old."""
        self._step, self._extras, self._rounds = step, 0, 1
        self._release(step)
        return self._fresh(self.settings.groups_per_step)

    def more(self, count: int) -> list[Group]:
        """As many groups again for the same step, of other tasks or start states."""
        self._rounds += 1
        self.ahead.issue(self._extra_requests(count))
        return self._fresh(count)

    def metrics(self) -> dict[str, float]:
        """What became of the groups since the last call."""
        metrics = {"rollout/rounds_count": float(self._rounds)}
        return metrics | (self._stale.metrics() if self.settings.max_staleness else {})

    def dropped(self) -> list[Trajectory]:
        """Finished episodes that no update uses, marked with the reason: to be stored with those that were taken."""
        lost, self._stale.lost, self._taken = self._stale.lost, [], []
        return lost

    def close(self) -> None:
        """Give up what is in flight; whole groups that were not used, or not stored, count as dropped. Idempotent."""
        unused = [t for group in [*self._taken, *self.ahead.close()] for t in group.trajectories]
        self._stale.lost += [set_aside(t, "the run stopped before an update could use it") for t in unused]
        self._taken = []

    def _release(self, step: int) -> None:
        ahead = self.settings.max_staleness
        first = max(step, self._released) if ahead else step
        last = max(step, min(step + ahead, self.steps - 1))  # nothing is played that no step will use
        for batch in range(first, last + 1):
            self.ahead.issue(self._batch_requests(batch))
        self._released = max(self._released, last + 1)

    def _fresh(self, count: int) -> list[Group]:
        """Finished groups, those that grew too old replaced by new ones."""
        kept: list[Group] = []
        while len(kept) < count:
            taken = self.ahead.take(count - len(kept))
            fresh = self._stale.keep(taken, self.version())
            if lost := len(taken) - len(fresh):
                log.info("step %d: %d groups were too old (rollout.max_staleness)", self._step, lost)
                self.ahead.issue(self._extra_requests(lost))
            kept += fresh
            if self.settings.max_staleness:  # without it the journal has them
                self._taken += fresh
        return kept

    def _batch_requests(self, batch: int) -> list[GroupRequest]:
        tasks = self.curriculum.next(batch, self.settings.groups_per_step)
        return [self._request(batch, index, task) for index, task in enumerate(tasks)]

    def _extra_requests(self, count: int) -> list[GroupRequest]:
        first = self.settings.groups_per_step + self._extras
        tasks = self.curriculum.next(EXTRA_DRAWS * (1 + self._extras) + self._step, count)
        self._extras += count
        return [self._request(self._step, first + index, task) for index, task in enumerate(tasks)]

    def _request(self, step: int, index: int, task: Task) -> GroupRequest:
        request = GroupRequest(
            key=f"{self.seed}/{step}/{index}",
            task=task,
            seed=episode_seed("train", self.seed, step, index),
            size=self.settings.group_size,
        )
        return request if self.starts is None else self.starts.place(request, step, index)


def open_pipeline(
    config: LoopConfig,
    collector: Collector,
    curriculum: Curriculum,
    engine: Engine,
    starts: StartPool | None = None,
) -> Pipeline:
    """The pipeline of a run.

    Raises:
        ConfigError: `rollout.max_staleness` above 0 with several processes: each would take other groups than the rest.
    """
    ahead, processes = config.rollout.max_staleness, int(os.environ.get("WORLD_SIZE", "1"))
    if ahead and processes > 1:
        raise ConfigError(
            f"rollout.max_staleness={ahead} runs with one process, and {processes} were started: which episodes are "
            "ready is a matter of time, and would differ between ranks. Use rollout.max_staleness=0, or one process"
        )
    return Pipeline(
        config.rollout,
        collector.start if ahead else finished(collector.collect),
        curriculum,
        version=lambda: engine.version,
        seed=config.run.seed,
        steps=config.run.steps,
        starts=starts,
    )


def fill_with_informative(
    groups: Sequence[Group],
    *,
    wanted: int,
    max_rounds: int,
    score: Callable[[Sequence[Group]], list[Group]],
    more: Callable[[int], list[Group]],
) -> list[Group]:
    """Dynamic sampling: for every group whose members all earned the same, one more, until `wanted` can teach.

    Args:
        groups: the first round's.
        max_rounds: rounds of collection, the first included.
        score: gives groups their rewards, and tells the curriculum; asked once of each.
        more: plays as many further groups.

    Returns:
        All groups that were played, scored, those without a lesson too: they are part of what happened. At most
        `wanted` of them can teach; fewer, where the rounds did not suffice.

    Sources: arXiv:2503.14476 section 3.2 (DAPO).
    """
    scored = score(groups)
    for _ in range(1, max_rounds):
        missing = wanted - sum(map(is_informative, scored))
        if missing <= 0:
            break
        scored += score(more(missing))
    return scored
