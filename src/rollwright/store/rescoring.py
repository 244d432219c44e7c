"""Stored trajectories scored again, by any reward: a new store with other scores, other labels, or fewer episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from rollwright.contracts import DataError, Group, Reward, Trajectory, score_group
from rollwright.run_io import held
from rollwright.store.trajectory_store import TrajectoryStore


@dataclass(kw_only=True)
class Rescored:
    """What a pass over a store came to. agreed, differed: episodes on whose success world and reward agree, or not."""

    seen: int = 0
    kept: int = 0
    undecided: int = 0
    agreed: int = 0
    differed: int = 0

    def __str__(self) -> str:
        both = self.agreed + self.differed
        said = f"; the world's verdict was the same in {self.agreed} of {both}" if both else ""
        return f"{self.seen} episodes scored, {self.undecided} undecided, {self.kept} kept{said}"


def score_store(
    source: TrajectoryStore,
    target: TrajectoryStore,
    reward: Reward,
    *,
    verdict_from: float | None = None,
    keep_from: float | None = None,
    shard: int = 512,
    parallel: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Rescored:
    """Score every trajectory of `source` and append it to `target`, under the tag it had.

    Trajectories of one task and start state within a shard are scored together, as siblings. Faulted ones are left out.

    Args:
        verdict_from: also set `Trajectory.success`: true from this score on, false below, None where undecided. The
            world's own verdict is lost in the copy.
        keep_from: keep only what scores this much or more; None keeps everything, undecided episodes too.
        shard: trajectories in memory at once.
        parallel: groups scored at once, for rewards that wait for a server.
        progress: told how many more are done.

    Raises:
        DataError: the target already holds something, or is the source.
        RunFolderError: another process writes the target.
        RewardFault: the reward failed. What was written before stays.
    """
    total = Rescored()
    _require_new(target, source)
    with held(target.folder), ThreadPoolExecutor(max_workers=parallel) as pool:
        target.rescan()
        _require_new(target, source)  # another process may have written it meanwhile
        for tag in source.tags():
            # One tag at a time, because a shard has one tag. The generator reads the source as the parts are drawn.
            played = (t for t in source.iter_trajectories(tag=tag) if not t.stop_reason.is_fault and t.turns)
            while part := list(islice(played, shard)):
                places = _siblings(part)
                # The lambda looks `part` up when it runs: all groups must be back before the loop draws the next part.
                groups = pool.map(lambda rows: score_group(_group([part[row] for row in rows]), reward), places)
                scored = {
                    row: trajectory
                    for rows, group in zip(places, groups, strict=True)
                    for row, trajectory in zip(rows, group.trajectories, strict=True)
                }
                in_order = [scored[row] for row in range(len(part))]
                target.append(list(_kept(in_order, verdict_from, keep_from, total)), tag=tag)
                progress(len(part))
    return total


def _require_new(target: TrajectoryStore, source: TrajectoryStore) -> None:
    if len(target) or target.folder.resolve() == source.folder.resolve():
        raise DataError(
            f"{target.folder} already holds {len(target)} trajectories: name a new folder for the scored ones"
        )


def _siblings(part: Sequence[Trajectory]) -> list[list[int]]:
    """Places of the trajectories of one task and start state; those of one name apart, as stores may be joined."""
    # `score_group` matches scores to trajectories by id: two of one id in a group would get one score.
    copies: Counter[tuple[str, int, str]] = Counter()
    members: dict[tuple[str, int, int], list[int]] = {}
    for row, trajectory in enumerate(part):
        start = (trajectory.task.id, trajectory.seed)
        members.setdefault((*start, copies[*start, trajectory.id]), []).append(row)
        copies[*start, trajectory.id] += 1
    return list(members.values())


def _group(siblings: Sequence[Trajectory]) -> Group:
    first = siblings[0]
    return Group(id=f"{first.task.id}/{first.seed}", task=first.task, seed=first.seed, trajectories=tuple(siblings))


def _kept(
    scored: Sequence[Trajectory], verdict_from: float | None, keep_from: float | None, total: Rescored
) -> Iterator[Trajectory]:
    for trajectory in scored:
        value = trajectory.score.value if trajectory.score else None
        total.seen += 1
        total.undecided += value is None
        if verdict_from is not None:
            verdict = None if value is None else value >= verdict_from
            # Before the verdict is replaced below: afterwards the world's own is gone.
            if verdict is not None and trajectory.success is not None:
                total.agreed += verdict == trajectory.success
                total.differed += verdict != trajectory.success
            trajectory = replace(trajectory, success=verdict)
        # An undecided episode has not failed; it has no score to be compared with.
        if keep_from is None or (value is not None and value >= keep_from):
            total.kept += 1
            yield trajectory
