"""The states that episodes may begin in, one class for each kind of start behind one contract.

    SnapshotStates   states of the best episodes of each task, drawn by value (SnapshotRL, S3RL)
    FailureStates    a few turns before the end of the policy's own failed episodes (failure replay)
    RestartStates    a few turns before the end of own solved and own failed episodes, as often of either (Satori)

A guide's prefixes are another matter: they are played when they are needed (`guide_starts`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import Group, Trajectory, Way, Waypoint
from rollwright.curriculum.curriculum_settings import StartSettings
from rollwright.curriculum.waypoints import from_row, point_row, to_row, waypoint_of, waypoints_of

Array = NDArray[Any]


class StartStates(Protocol):
    """The states of one kind. Draws depend on the generator and on what was learned, on nothing else."""

    every: int
    """Turns between the states that episodes are to leave here; 0 where they leave none."""

    @property
    def count(self) -> int:
        """States that are kept."""
        ...

    def learn(self, groups: Sequence[Group]) -> None:
        """Take in states of episodes with a way (`Group.ways`)."""
        ...

    def draw(self, rng: random.Random) -> Waypoint | None:
        """One state; None where there is none yet."""
        ...

    def rows(self) -> list[dict[str, Any]]:
        """Everything that draws depend on, as JSON."""
        ...

    def take_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The inverse of `rows`."""
        ...


def ways_in(groups: Sequence[Group]) -> list[tuple[Group, Trajectory, Way]]:
    """The episodes that can be learned from and whose way is known, each with its group."""
    return [
        (group, trajectory, group.ways[trajectory.id])
        for group in groups
        for trajectory in group.trajectories
        if trajectory.id in group.ways and trajectory.learnable
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """One episode that later ones may begin in: its waypoints and the f of each. `earned` ranks it in its task."""

    earned: float
    waypoints: tuple[Waypoint, ...]
    values: tuple[float, ...]

    @property
    def task(self) -> str:
        """The task whose episode was there."""
        return self.waypoints[0].task.id


class SnapshotStates:
    """States of the best episodes of each task: one of k clusters of like value f, then a state in it.

    Args:
        horizon: H, the turn limit of an episode from its initial state.
    """

    def __init__(self, settings: StartSettings, *, horizon: int) -> None:
        self.settings, self.horizon = settings, horizon
        # A teacher's states were taken before the first step, and the policy's own episodes do not extend them.
        self.every = settings.every if settings.source == "own" else 0
        self.visited: list[Visited] = []
        self._clustered: tuple[list[Waypoint], list[list[int]]] | None = None

    @property
    def count(self) -> int:
        """States that are kept."""
        return sum(len(one.waypoints) for one in self.visited)

    def draw(self, rng: random.Random) -> Waypoint | None:
        """A state of a cluster, both uniformly."""
        waypoints, clusters = self.clusters()
        return waypoints[rng.choice(rng.choice(clusters))] if clusters else None

    def clusters(self) -> tuple[list[Waypoint], list[list[int]]]:
        """All waypoints, and their numbers by cluster; one cluster of all where they are drawn uniformly."""
        if self._clustered is None:
            owners = [one.task for one in self.visited for _ in one.waypoints]
            values = np.array([value for one in self.visited for value in one.values])
            labels = np.zeros(len(values), np.int64)
            if self.settings.pick == "clusters":
                # Returns of unlike tasks differ in scale: unscaled, the clusters would only tell tasks apart.
                # Progress is a share of one turn limit and compares as it is.
                scaled = values if self.settings.value == "progress" else scaled_within(values, owners)
                labels = cluster_values(scaled, self.settings.clusters)
            members = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
            self._clustered = [w for one in self.visited for w in one.waypoints], members
        return self._clustered

    def learn(self, groups: Sequence[Group]) -> None:
        """Keep the states of the best `episodes` of each task.

        Of episodes that earned the same the newest stay. No more than `capacity` waypoints are kept in all.
        """
        new = [self._visit(trajectory, way, group.start) for group, trajectory, way in ways_in(groups)]
        candidates = [one for one in (*self.visited, *new) if one.waypoints]
        best_first = sorted(reversed(candidates), key=lambda one: -one.earned)  # keeps the order of equals
        per_task: Counter[str] = Counter()
        kept: set[int] = set()
        room = self.settings.capacity
        for one in best_first:
            # An episode that no longer fits is passed over: a shorter one behind it may still fit.
            if per_task[one.task] < self.settings.episodes and len(one.waypoints) <= room:
                per_task[one.task] += 1
                room -= len(one.waypoints)
                # By identity: a task's parameters are a dict, so a `Visited` has no hash.
                kept.add(id(one))
        # In order of arrival, not of rank: the next `learn` finds the newest of equals by it.
        self.visited = [one for one in candidates if id(one) in kept]
        self._clustered = None

    def _visit(self, trajectory: Trajectory, way: Way, start: Waypoint | None) -> Visited:
        waypoints = waypoints_of(trajectory, way, start, every=self.settings.every)
        # A waypoint's `passed` counts from the initial state, so the end must count the prefix too.
        end = len(trajectory.turns) + (len(start.passed) if start else 0)
        left = [end - len(waypoint.passed) for waypoint in waypoints]
        if self.settings.pick == "clusters" and self.settings.value == "progress":
            values = [1.0 - turns / self.horizon for turns in left]
        else:
            returns = trajectory.returns_to_go(self.settings.gamma)
            # Waypoints lie before turns of this episode itself, so `turns` lies between 1 and the length of `returns`.
            values = [returns[-turns] for turns in left]
        # An episode from a waypoint is ranked by what it earned itself: its prefix is somebody else's merit.
        return Visited(earned=trajectory.total_reward, waypoints=waypoints, values=tuple(values))

    def rows(self) -> list[dict[str, Any]]:
        """One per episode: its way is kept once, whatever the number of its states."""
        return [to_row(one.waypoints) | {"earned": one.earned, "values": one.values} for one in self.visited]

    def take_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The inverse of `rows`."""
        self.visited = [
            Visited(earned=row["earned"], waypoints=from_row(row), values=tuple(row["values"])) for row in rows
        ]
        self._clustered = None


class FailureStates:
    """`back` turns before the end of each failed episode, or where it began if it was shorter; the newest are kept.

    A failed episode that began at such a state itself leaves one too: what the policy gets wrong there comes later.
    """

    every = 1

    def __init__(self, settings: StartSettings) -> None:
        self.settings = settings
        self.waypoints: list[Waypoint] = []

    @property
    def count(self) -> int:
        """States that are kept."""
        return len(self.waypoints)

    def draw(self, rng: random.Random) -> Waypoint | None:
        """One of them, uniformly."""
        return rng.choice(self.waypoints) if self.waypoints else None

    def learn(self, groups: Sequence[Group]) -> None:
        """Take in a state of each episode that failed by the world's verdict."""
        for group, trajectory, way in ways_in(groups):
            # None: nobody judged it, or `starts.max_turns` cut it. That is no failure.
            if trajectory.success is not False:
                continue
            found = waypoints_of(trajectory, way, group.start)
            if found:  # the initial state is none: whoever fails in the first turn begins there anyway
                nearest = found[-min(self.settings.back, len(found))]
                self.waypoints.append(replace(nearest, kind="failure", status=-1))
        self.waypoints = self.waypoints[-self.settings.capacity :]

    def rows(self) -> list[dict[str, Any]]:
        """One per state."""
        return [point_row(one) for one in self.waypoints]

    def take_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The inverse of `rows`."""
        self.waypoints = [waypoint_of(row) for row in rows]


SOLVED, FAILED = 1, -1
Ends = tuple[Waypoint, ...]
"""The last states of one episode, at most `back` of them."""


class RestartStates:
    """Restart and explore: the last turns of own episodes are taken back, and the next action begins with a reflection.

    A task takes part once one of its episodes was solved and one failed. Then either kind is drawn as often, so that
    the policy learns to repair what is wrong and to leave what is right. t of the last turns are taken back, t uniform
    in 1 to `back`, and at least one turn is left. Only episodes from the initial state leave states here.

    Args:
        reflections: token ids of the texts that the first action may begin with; drawn uniformly.
    """

    every = 1

    def __init__(self, settings: StartSettings, *, reflections: Sequence[tuple[int, ...]] = ()) -> None:
        self.settings, self.reflections = settings, list(reflections)
        self.ends: dict[str, dict[int, list[Ends]]] = {}
        """Task -> status -> the newest `episodes` of that outcome, the newest last."""

    @property
    def count(self) -> int:
        """States that are kept."""
        return sum(len(ends) for sides in self.ends.values() for side in sides.values() for ends in side)

    @property
    def paired(self) -> list[str]:
        """The tasks that take part, in order."""
        return [task for task, sides in self.ends.items() if sides[SOLVED] and sides[FAILED]]

    def draw(self, rng: random.Random) -> Waypoint | None:
        """A task, an outcome, an episode of both, and how far it is taken back: each uniformly."""
        tasks = self.paired
        if not tasks:
            return None
        sides = self.ends[rng.choice(tasks)]
        status = SOLVED if rng.random() < 0.5 else FAILED
        ends = rng.choice(sides[status])
        back = 1 + rng.randrange(len(ends))
        forced = rng.choice(self.reflections) if self.reflections else ()
        return replace(ends[-back], kind="restart", forced_ids=forced, status=status)

    def learn(self, groups: Sequence[Group]) -> None:
        """Take in the last states of episodes from the initial state that have a verdict."""
        for group, trajectory, way in ways_in(groups):
            if group.start is not None or trajectory.success is None:
                continue
            # The very last one is a turn before the end: an episode that is over cannot go on.
            ends = waypoints_of(trajectory, way)[-self.settings.back :]
            if ends:
                # Moved to the end of the dict: `_make_room` drops the task that was not played for longest.
                sides = self.ends.pop(group.task.id, None) or {SOLVED: [], FAILED: []}
                side = sides[SOLVED if trajectory.success else FAILED]
                side.append(ends)
                del side[: -self.settings.episodes]
                self.ends[group.task.id] = sides
        self._make_room()

    def _make_room(self) -> None:
        while len(self.ends) > 1 and self.count > self.settings.capacity:
            del self.ends[next(iter(self.ends))]

    def rows(self) -> list[dict[str, Any]]:
        """One per episode."""
        return [
            to_row(ends) | {"status": status}
            for sides in self.ends.values()
            for status, side in sides.items()
            for ends in side
        ]

    def take_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The inverse of `rows`."""
        self.ends = {}
        for row in rows:
            ends = from_row(row)
            self.ends.setdefault(ends[0].task.id, {SOLVED: [], FAILED: []})[row["status"]].append(ends)


def scaled_within(values: Array, owners: Sequence[str]) -> Array:
    """[n] float64: values scaled to [0, 1] among those of the same owner; 0.5 where all of them are equal."""
    scaled = np.full(len(values), 0.5)
    names = np.asarray(owners)
    for name in np.unique(names):
        mine = names == name
        low, high = values[mine].min(), values[mine].max()
        if high > low:
            scaled[mine] = (values[mine] - low) / (high - low)
    return scaled


def cluster_values(values: Array, count: int) -> Array:
    """[n] int64 labels 0, 1, ... of k-means on numbers; every label has a member.

    Lloyd's algorithm from quantiles of the distinct values: nothing is drawn, so the labels depend on the values alone.
    At most `count` clusters, fewer where there are fewer distinct values.
    """
    distinct = np.unique(values)
    count = min(count, len(distinct))
    if not count:
        return np.zeros(0, np.int64)
    # Quantiles of all values would coincide where many are equal, and clusters would be lost from the start.
    means = np.quantile(distinct, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        nearest = np.abs(values[:, None] - means[None, :]).argmin(axis=1)
        labels = np.unique(nearest, return_inverse=True)[1]  # an empty cluster leaves
        moved = np.array([values[labels == label].mean() for label in range(int(labels.max()) + 1)])
        if np.array_equal(moved, means):
            break
        means = moved
    return labels.astype(np.int64)
