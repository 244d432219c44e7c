"""Scores of a step's groups: each group once, shared out over the ranks; and ReMax's greedy episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollwright.contracts import Group, Reward, StatefulReward, Trajectory
from rollwright.curriculum import StartPool
from rollwright.learner import Ranks
from rollwright.rollout import Collector, EpisodeRequest, FaultLog, score_or_note


def score_once(
    groups: Sequence[Group], reward: Reward, faults: FaultLog, ranks: Ranks
) -> tuple[list[Group], list[Group]]:
    """Score the groups that have no score yet. All ranks call with the same groups.

    Returns:
        All groups in their order, those scored before as they were; and the newly scored ones alone.

    Raises:
        FaultBudgetExceeded: the reward failed too often.
    """
    is_new = [not any(t.score is not None for t in group.trajectories) for group in groups]
    fresh = _scored([group for group, new in zip(groups, is_new, strict=True) if new], reward, faults, ranks)
    coming = iter(fresh)
    return [next(coming) if new else group for group, new in zip(groups, is_new, strict=True)], fresh


def _scored(groups: Sequence[Group], reward: Reward, faults: FaultLog, ranks: Ranks) -> list[Group]:
    def work(mine: Sequence[Group]) -> list[Group]:
        return [score_or_note(group, reward, faults) for group in mine]

    # A reward that remembers has to see every group on every rank.
    return work(groups) if isinstance(reward, StatefulReward) else ranks.spread(groups, work)


def greedy_requests(
    groups: Sequence[Group], collector: Collector, starts: StartPool | None = None
) -> list[EpisodeRequest]:
    """One greedy episode for each group, from the group's own start."""
    greedy = replace(collector.sampling, temperature=0.0)
    requests = []
    for group in groups:
        request = collector.request(f"{group.id} greedy", group.task, group.seed, sampling=greedy)
        if group.start is not None and starts is not None:
            request = replace(request, start=group.start, max_turns=starts.limit_from(group.start))
        requests.append(request)
    return requests


def greedy_returns(
    groups: Sequence[Group], played: Sequence[Trajectory], reward: Reward, faults: FaultLog, ranks: Ranks
) -> dict[str, float]:
    """Id of each group -> the return of its greedy episode, as the reward scores it. All ranks call alike.

    A group whose greedy episode faulted for good, or got no score, is not among them: it has no baseline.

    Raises:
        FaultBudgetExceeded: the reward failed too often.
    """
    lone = [group.with_trajectories([t]) for group, t in zip(groups, played, strict=True)]
    scored, _ = score_once(lone, reward, faults, ranks)
    return {group.id: t.total_reward for group in scored for t in group.trajectories if t.learnable}
