"""Filling a store: episodes played, scored and appended, shard by shard, and what a full store is worth.

An episode that the reward cannot score is kept, undecided, and counted at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rollwright.contracts import FaultBudgetExceeded, Group, Reward, Score, Trajectory
from rollwright.rollout import Collector, EpisodeRequest, FaultLog, rollout_metrics, score_or_note
from rollwright.run_io import Progress, RunFacts, StepReport
from rollwright.store import TrajectoryStore, unpack_text

log = logging.getLogger(__name__)
Play = Callable[[Sequence[EpisodeRequest], Callable[[object], None]], list[Trajectory]]
"""(requests, told of each one that is done) -> their episodes."""


def fill_store(
    store: TrajectoryStore,
    wanted: Sequence[EpisodeRequest],
    collector: Collector,
    reward: Reward,
    facts: RunFacts,
    *,
    shard: int,
    tag: str,
    play: Play | None = None,
) -> None:
    """Play, score and append what the store lacks. By name, not by number: a damaged shard leaves a gap anywhere.

    Args:
        shard: episodes written together.
        tag: what the store calls their source.
        play: what plays the requests, in place of the collector's `play`; it may give several episodes for a request,
            the first of which has its name.

    Raises:
        FaultBudgetExceeded: too many episodes faulted, or could not be scored (then the shard is stored first).
    """
    # A damaged shard is not among the headers, so its episodes are played again.
    there = {unpack_text(row["id"]) for _, row in store.headers()}
    lacking = [request for request in wanted if request.key not in there]
    report = StepReport(len(wanted), unit="episode")
    # What an earlier start has played is no work of this one.
    report.begin(len(wanted) - len(lacking))
    for start in range(0, len(lacking), shard):
        part = lacking[start : start + shard]
        done = len(wanted) - len(lacking) + start
        with Progress(f"episodes from {done} of {len(wanted)}", total=len(part)) as bar:
            played = (play or collector.play)(part, lambda _, bar=bar: bar.advance())  # type: ignore[misc]
        scored, error = scored_alone(played, reward, collector.faults)
        store.append(scored, tag=tag)
        facts.played(scored)
        facts.set_clocks(collector.occupancy.seconds())
        # With every shard, so that a kill costs the record no more than the episodes.
        facts.save()
        report.step(done + len(part), rollout_metrics([_alone(t) for t in scored]) | {"time/step_s": report.elapsed()})
        # Only now, as what was played is stored by now.
        if error is not None:
            raise error


def scored_alone(
    played: Sequence[Trajectory], reward: Reward, faults: FaultLog
) -> tuple[list[Trajectory], FaultBudgetExceeded | None]:
    """The episodes with their rewards laid on the turns; undecided where the reward failed, which is noted.

    Where it failed too often the rest is undecided too, and the error comes second: what was played is stored first.
    """
    done: list[Trajectory] = []
    for trajectory in played:
        try:
            done.extend(score_or_note(_alone(trajectory), reward, faults).trajectories)
        except FaultBudgetExceeded as error:
            left = Score(value=None, verifier=reward.name, message="no score: the reward had failed too often")
            rest = played[len(done) :]
            # An episode that faulted has nothing to be scored.
            return done + [replace(t, score=left) if t.learnable else t for t in rest], error
    return done, None


def _alone(trajectory: Trajectory) -> Group:
    """The episode as a group of its own, as nothing here compares siblings."""
    return Group(id=trajectory.id, task=trajectory.task, seed=trajectory.seed, trajectories=(trajectory,))


def worth_of_store(store: TrajectoryStore) -> str:
    """One line: how many, how good, how many without a score. Those have no part in the mean."""
    rows = [row for _, row in store.headers()]
    verdicts = [row["success"] for row in rows if row["success"] is not None]
    returns = [row["total_reward"] for row in rows if row["score"] is not None and row["score"]["value"] is not None]
    doubts, unjudged = len(_undecided(store)), sum(row["score"] is None for row in rows)
    said = [f"{len(rows)} episodes", f"{store.turn_count} turns"]
    said.append(f"mean return {sum(returns) / len(returns):.3f}" if returns else "no return known")
    said += [f"success {sum(verdicts) / len(verdicts):.3f}"] if verdicts else []
    said += [f"{doubts} UNDECIDED"] if doubts else []
    said += [f"{unjudged} faulted or empty"] if unjudged else []
    return f"{', '.join(said)}: {Path(store.folder)}"


def _undecided(store: TrajectoryStore) -> list[str]:
    """For each episode that the reward could not score: why."""
    scores = [row["score"] for _, row in store.headers()]
    return [unpack_text(score["message"]) for score in scores if score is not None and score["value"] is None]


def warn_of_undecided(store: TrajectoryStore, reward: Reward) -> None:
    """Say how much of the store nobody will learn from, why, and how it can be scored after all."""
    reasons = _undecided(store)
    judged = sum(row["score"] is not None for _, row in store.headers())
    if not reasons:
        return
    none = len(reasons) == judged
    log.log(
        logging.ERROR if none else logging.WARNING,
        "%s: the reward %r could not tell of %d of %d episodes. Nobody learns from %s. The first: %s. "
        "To score them anew once it can: rollwright score %s --into FOLDER --reward NAME key=value ...",
        "NOTHING HERE IS SCORED" if none else "Some episodes are undecided",
        reward.name,
        len(reasons),
        judged,
        "this store" if none else "those",
        reasons[0] or "no reason given",
        store.folder,
    )
