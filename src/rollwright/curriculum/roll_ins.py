"""Roll-in and roll-out (RLGF): one plays an episode, from a turn in the midst of it another plays on.

    PPO++        the guide plays the group's task to its end; b ~ Bernoulli(beta), k ~ Uniform{1, ..., L-1}; the group's
                 episodes begin behind its first k turns (b = 0: at the start), and the policy plays them
    AggreVaTeD   the policy plays; b and k are drawn for each episode; the guide goes on behind the first k turns, and
                 plays the whole episode where b = 0

Prefixes are cut between turns: a cut inside a tool call would be parsed as another call. Episodes of the second kind
are one record each, the policy's turns with the guide's behind them; `branch` says where the two meet.

Source: arXiv:2306.11816.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from rollwright.contracts import Branch, Group, Score, Start, Trajectory, Waypoint
from rollwright.curriculum.prefixes import is_prefixed, prefix_length
from rollwright.curriculum.waypoints import waypoints_of
from rollwright.maths import GuidedMode
from rollwright.rollout import GroupRequest

Watch = Callable[[Trajectory], None]
Plays = Callable[[Sequence[GroupRequest], Watch | None], list[Group]]
"""Plays groups and tells of every episode that ends: `Collector.collect`."""


class RollIns:
    """Plays a step's groups, begun by a guide or ended by one. Call `begin` before each step.

    Args:
        plays: who acts is in the requests (`GroupRequest.guide_frac`): 1 = the guide, None = the policy.
        seed: of the run. beta: share of episodes (PPO++: of groups) with a prefix.
        horizon: the turn limit of an episode from its initial state.

    Attributes:
        played: the roll-ins of the step as they were played, marked so that nobody learns from them.
    """

    def __init__(self, plays: Plays, *, seed: int, beta: float, horizon: int) -> None:
        self.plays, self.seed, self.beta, self.horizon = plays, seed, beta, horizon
        self.begin(0, "ppo++")

    def begin(self, step: int, mode: GuidedMode) -> None:
        """A step begins, whose episodes are all of this mode."""
        self.step, self.mode = step, mode
        self.played: list[Group] = []
        self._prefixes: list[int] = []
        self._steps = 0

    def play(self, asked: Sequence[GroupRequest], watch: Watch | None = None) -> list[Group]:
        """The groups that were asked for, in their order."""
        return (self._behind_guide if self.mode == "ppo++" else self._ended_by_guide)(asked, watch)

    def _behind_guide(self, asked: Sequence[GroupRequest], watch: Watch | None) -> list[Group]:
        """PPO++: all members of a group begin behind one prefix, or their comparison would be one of prefixes."""
        chosen = [place for place in range(len(asked)) if self._is_prefixed(place)]
        rolled = self._roll_in([_alone(asked[place], "roll-in", guide_frac=1.0) for place in chosen])
        starts = {place: self._cut(place, group) for place, group in zip(chosen, rolled, strict=True)}
        return self._play_on([self._placed(one, starts.get(place)) for place, one in enumerate(asked)], watch)

    def _ended_by_guide(self, asked: Sequence[GroupRequest], watch: Watch | None) -> list[Group]:
        """AggreVaTeD: each member has a roll-in and a prefix of its own."""
        members = [(one, str(member)) for one in asked for member in range(one.size)]
        chosen = [place for place in range(len(members)) if self._is_prefixed(place)]
        rolled = self._roll_in([_alone(members[place][0], f"{members[place][1]}/roll-in") for place in chosen])
        before = {place: _in_place(group) for place, group in zip(chosen, rolled, strict=True)}
        starts = {place: self._cut(place, group) for place, group in zip(chosen, rolled, strict=True)}
        placed = [
            self._placed(_alone(one, member, guide_frac=1.0), starts.get(place))
            for place, (one, member) in enumerate(members)
        ]
        ends = [_in_place(group) for group in self._play_on(placed, watch)]
        whole = iter(
            spliced(before[place] if one.start else None, end, name=one.key)
            for place, (one, end) in enumerate(zip(placed, ends, strict=True))
        )
        return [
            Group(id=one.key, task=one.task, seed=one.seed, trajectories=tuple(next(whole) for _ in range(one.size)))
            for one in asked
        ]

    def _is_prefixed(self, place: int) -> bool:
        return is_prefixed(self.beta, seed=self.seed, step=self.step, group=place)

    def _roll_in(self, requests: Sequence[GroupRequest]) -> list[Group]:
        """Whole episodes, at every state of which another may begin; where b = 0 none is needed, and none is played."""
        requests = [replace(request, waypoint_every=1) for request in requests]
        groups = self.plays(requests, None) if requests else []
        self.played += [group.with_trajectories([_undecided(t) for t in group.trajectories]) for group in groups]
        self._steps += num_turns(groups)
        return groups

    def _cut(self, place: int, group: Group) -> Waypoint | None:
        """The state behind the first k turns of a roll-in; None where it is too short, or was lost to a fault."""
        trajectory = _in_place(group)
        way, length = group.ways.get(trajectory.id), len(trajectory.turns)
        turns = prefix_length(length, self.beta, seed=self.seed, step=self.step, group=place)
        if way is None or not turns:
            return None
        # Waypoints lie behind the first turn, the second, and so on.
        return replace(waypoints_of(trajectory, way)[turns - 1], kind="guide_prefix")

    def _placed(self, request: GroupRequest, start: Waypoint | None) -> GroupRequest:
        if start is None:
            return request
        # At least 1: 0 would be read as no limit of its own.
        return replace(request, start=start, max_turns=max(1, self.horizon - len(start.passed)))

    def _play_on(self, requests: Sequence[GroupRequest], watch: Watch | None) -> list[Group]:
        groups = self.plays(requests, watch)
        starts = [request.start for request in requests for _ in range(request.size)]
        self._prefixes += [len(start.passed) if start else 0 for start in starts]
        # A world without exact snapshots does the actions of the prefix again for each episode.
        self._steps += sum(len(start.passed) for start in starts if start is not None and start.snapshot is None)
        self._steps += num_turns(groups)
        return groups

    def metrics(self) -> dict[str, float]:
        """What the step's roll-ins and prefixes were."""
        return {
            "rlgf/ppo_frac": float(self.mode == "ppo++"),
            "rlgf/prefix_frac": fmean([turns > 0 for turns in self._prefixes] or [0]),
            "rlgf/prefix_turns_mean": fmean(self._prefixes or [0]),
            "rlgf/env_steps_count": float(self._steps),
        }


def num_turns(groups: Sequence[Group]) -> int:
    """Turns of all episodes."""
    return sum(len(t.turns) for group in groups for t in group.trajectories)


def _alone(request: GroupRequest, name: str, *, guide_frac: float | None = None) -> GroupRequest:
    """One episode of the group's task and seed, under a name of its own."""
    return replace(request, key=f"{request.key}/{name}", size=1, guide_frac=guide_frac)


def _in_place(group: Group) -> Trajectory:
    """The episode of a group of one; where it was lost to faults and replaced, the one in its place."""
    return next((t for t in group.trajectories if not t.stop_reason.is_fault), group.trajectories[-1])


def _undecided(trajectory: Trajectory) -> Trajectory:
    if trajectory.stop_reason.is_fault:  # says by itself that nothing is to be learned
        return trajectory
    score = Score(value=None, verifier="rlgf", message="a roll-in: others began in the midst of it")
    return replace(trajectory, score=score)


def spliced(prefix: Trajectory | None, end: Trajectory, *, name: str) -> Trajectory:
    """One episode of the first turns of `prefix`, as many as lie before `end`, and the turns of `end`."""
    if prefix is None:
        return replace(end, id=name)
    turns = end.start.prefix_turns
    return replace(
        end,
        id=name,
        turns=(*prefix.turns[:turns], *end.turns),
        version=prefix.version,
        start=Start(),
        branch=Branch(parent=prefix.id, turn=turns),
    )
