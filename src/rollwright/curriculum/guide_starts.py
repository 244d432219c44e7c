"""Guide prefixes: somebody else plays a group's task first, and the group begins after some of those turns (RLGF).

    for each group that has a prefix (b = 1):
        the guide plays the group's own task and seed to the end: L turns
        k ~ Uniform{1, ..., L - 1}
        all members of the group begin after its first k turns

Nothing is kept from one step to the next. Source: arXiv:2306.11816 (PPO++).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rollwright.contracts import Group, Task, Waypoint
from rollwright.curriculum.prefixes import is_prefixed, prefix_length
from rollwright.curriculum.turn_depth import replayed_turns
from rollwright.curriculum.waypoints import waypoints_of
from rollwright.rollout import GroupRequest

PlayGuide = Callable[[Sequence[GroupRequest]], list[Group]]
"""Plays groups by the guide; all of them come back, in the order asked for (`Collector.collect_by`)."""


class GuidePrefixes:
    """The waypoints that a guide leaves for the groups of one step.

    Args:
        frac: beta, the share of groups that begin behind a prefix.
        play: who plays it.
        knows: whether the guide can play a task; groups of other tasks begin at the initial state.
        backward_every: in place of a random length, the whole episode but one turn at first, and one turn less after
            every so many steps (`turn_depth.replayed_turns`); 0 = random.
    """

    def __init__(
        self, frac: float, *, seed: int, play: PlayGuide, knows: Callable[[Task], bool], backward_every: int = 0
    ) -> None:
        self.frac, self.seed, self.play, self.knows, self.backward_every = frac, seed, play, knows, backward_every
        self.turns = self.lost = 0
        """Turns that the guide has played since `metrics`, and episodes of it that no group could begin in."""

    def starts(self, requests: Sequence[GroupRequest], step: int, first: int) -> list[Waypoint | None]:
        """Where each of these groups begins; None for the task's own initial state.

        Args:
            first: the number of the first of them within the step.
        """
        chosen = [
            place
            for place in range(len(requests))
            if is_prefixed(self.frac, seed=self.seed, step=step, group=first + place)
            and self.knows(requests[place].task)
        ]
        asked = [
            replace(requests[place], key=f"{requests[place].key} guide", size=1, waypoint_every=1) for place in chosen
        ]
        found: list[Waypoint | None] = [None] * len(requests)
        for place, group in zip(chosen, self.play(asked) if asked else [], strict=True):
            found[place] = self._start(group, step, first + place)
        return found

    def _start(self, group: Group, step: int, index: int) -> Waypoint | None:
        # A guide that faulted may have been replaced by another episode of its own (`rollout.refills`).
        whole = [t for t in group.trajectories if not t.stop_reason.is_fault and t.id in group.ways]
        if not whole:
            self.lost += 1
            return None
        played = whole[0]
        self.turns += len(played.turns)
        if self.backward_every:
            length = replayed_turns(step, length=len(played.turns), every=self.backward_every)
        else:
            length = prefix_length(len(played.turns), self.frac, seed=self.seed, step=step, group=index)
        # The first waypoint lies after one turn.
        found = waypoints_of(played, group.ways[played.id])
        return replace(found[length - 1], kind="guide_prefix") if length else None

    def metrics(self) -> dict[str, float]:
        """What the guide has played since the last call."""
        told = {"starts/guide_turns_count": float(self.turns), "starts/guide_lost_count": float(self.lost)}
        self.turns = self.lost = 0
        return told
