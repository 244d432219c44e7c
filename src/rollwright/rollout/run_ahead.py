"""Groups in flight and groups that are ready: what lets the generator run ahead of the learner, and no further.

`Ahead` holds what was asked for and hands out what is finished; how far ahead anything is asked for is decided by
`training.pipeline`. Staleness is counted here: how many weight updates lie between the oldest token of an episode
that is to be trained on and the weights that the update starts from.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean

from rollwright.contracts import Group, RollwrightError, Score, Trajectory
from rollwright.rollout.collector import GroupRequest, Progress

Start = Callable[[Sequence[GroupRequest], Progress], "Future[list[Group]]"]
"""Begins to play groups; the future brings all of them, in order, or the error that ended them."""


class Ahead:
    """A bounded line of groups between a generator and a learner. Made by the pipeline, lives for the run.

    The bound is the caller's: nothing is played that was not issued. An error of the generator is raised by the next
    `take`, whatever it waits for.

    Args:
        start: begins a play of one group.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._watch: Progress | None = None
        self._plays: list[Future[list[Group]]] = []  # one per group, in the order of issue
        self._changed = threading.Condition()

    @property
    def outstanding(self) -> int:
        """Groups that were issued and not taken, finished or not."""
        return len(self._plays)

    def issue(self, requests: Sequence[GroupRequest]) -> None:
        """Have these groups played, each by itself."""
        # A play for each group, so that one can be taken while others still run.
        for request in requests:
            play = self._start([request], self._played)
            self._plays.append(play)
            play.add_done_callback(self._wake)

    def take(self, count: int) -> list[Group]:
        """`count` finished groups, of those that are finished the ones issued first; waits until there are as many.

        Raises:
            ValueError: fewer were issued: the wait would have no end.
            Whatever ended the generator.
        """
        if count > self.outstanding:
            raise ValueError(f"{count} groups are wanted and {self.outstanding} were issued: issue more first")
        # A play is done before its callback wakes this, and the check holds the lock: no wake-up is lost.
        with self._changed:
            self._changed.wait_for(lambda: self._failed() or self._finished() >= count)
        if failed := self._failed():
            raise failed
        taken = [play for play in self._plays if play.done()][:count]
        self._plays = [play for play in self._plays if play not in taken]
        return [group for play in taken for group in play.result()]

    @contextmanager
    def watched(self, watch: Progress) -> Iterator[None]:
        """Meanwhile tell `watch` of every episode that ends, whichever step it is for."""
        self._watch = watch
        try:
            yield
        finally:
            self._watch = None

    def _played(self, trajectory: Trajectory) -> None:
        watch = self._watch  # of another thread, and possibly gone the next moment
        if watch is not None:
            watch(trajectory)

    def close(self) -> list[Group]:
        """Give up what is in flight; returns the groups that were finished and not taken. Idempotent."""
        plays, self._plays = self._plays, []
        # `cancel` says False of a play that has ended; one that ended in an error leaves nothing.
        left = [play for play in plays if not play.cancel() and play.exception() is None]
        return [group for play in left for group in play.result()]

    def _wake(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _finished(self) -> int:
        return sum(play.done() for play in self._plays)

    def _failed(self) -> BaseException | None:
        for play in self._plays:
            if play.cancelled():
                return RollwrightError("the generator was stopped while the learner waited for its episodes")
            if play.done() and (error := play.exception()) is not None:
                return error
        return None


def oldest_version(trajectory: Trajectory) -> int | None:
    """The oldest weights among the tokens that are trained on; None where there is no such token."""
    # A turn that is not trained on may be as old as it likes.
    versions = [turn.version for turn in trajectory.turns if any(turn.policy_mask)]
    return min((version for version in versions if version >= 0), default=None)


def staleness(trajectory: Trajectory, current_version: int) -> int:
    """Weight updates between the oldest trained token and `current_version`; 0 where nothing would be trained on.

    The oldest counts, not the mean: an episode that began under old weights began with old actions.
    """
    oldest = oldest_version(trajectory)
    return 0 if oldest is None else current_version - oldest


def length_bucket(num_turns: int) -> int:
    """The largest power of two that is not above the number of turns: 1, 2-3, 4-7, 8-15 and so on."""
    # An episode without a turn counts among those of one.
    return 1 << max(0, num_turns.bit_length() - 1)


def set_aside(trajectory: Trajectory, why: str) -> Trajectory:
    """The episode as it is kept when no update uses it: undecided, so nobody learns from it, with the reason."""
    if trajectory.stop_reason.is_fault:  # says by itself that nothing is to be learned
        return trajectory
    return replace(trajectory, score=Score(value=None, verifier="staleness", message=why))


@dataclass(eq=False, slots=True, kw_only=True)
class StaleCount:
    """What was too old, by length: long episodes are the ones that grow old, and dropping them teaches haste."""

    max_staleness: int
    dropped: Counter[int] = field(default_factory=Counter)
    seen: Counter[int] = field(default_factory=Counter)
    ages: list[int] = field(default_factory=list)
    """Staleness of each episode that was kept."""
    lost: list[Trajectory] = field(default_factory=list)
    """The episodes that were dropped, marked; whoever stores them clears the list."""

    def keep(self, groups: Iterable[Group], current_version: int) -> list[Group]:
        """The groups without the episodes that are too old, and without groups of which nothing is left."""
        kept = []
        for group in groups:
            fresh = [t for t in group.trajectories if self._is_fresh(t, current_version)]
            if fresh:
                kept.append(group if len(fresh) == len(group.trajectories) else group.with_trajectories(fresh))
        return kept

    def _is_fresh(self, trajectory: Trajectory, current_version: int) -> bool:
        age, bucket = staleness(trajectory, current_version), length_bucket(len(trajectory.turns))
        fresh = age <= self.max_staleness
        self.seen[bucket] += 1
        self.dropped[bucket] += not fresh
        if not fresh:
            self.lost.append(set_aside(trajectory, f"{age} weight updates old, rollout.max_staleness is below that"))
        # An episode without a trained token has no age: its 0 would pull the mean down.
        elif oldest_version(trajectory) is not None:
            self.ages.append(age)
        return fresh

    def metrics(self) -> dict[str, float]:
        """Shares per length and overall, and the age of what was kept, since the last call."""
        total = sum(self.seen.values())
        metrics = {
            "rollout/staleness_mean": fmean(self.ages) if self.ages else 0.0,
            "rollout/staleness_max": float(max(self.ages, default=0)),
            "rollout/stale_frac": sum(self.dropped.values()) / max(1, total),
        }
        for bucket in sorted(self.seen):
            metrics[f"rollout/stale_turns_{bucket}_frac"] = self.dropped[bucket] / self.seen[bucket]
        # `lost` stays: whoever stores those episodes clears it.
        self.dropped.clear()
        self.seen.clear()
        self.ages.clear()
        return metrics
