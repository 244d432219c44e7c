"""The reward contract: a reward sees a whole group and returns one Score per trajectory, with its parts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from rollwright.errors import RewardFault
from rollwright.types import Group, Score, Trajectory, Turn

log = logging.getLogger(__name__)


class Reward(Protocol):
    """Scores the trajectories of a group. May hold state (`state_dict`/`load_state_dict`) that is checkpointed.

    A verifier that cannot decide returns a Score with value None. Whatever it raises becomes a fault, never a score.
    """

    name: str

    def score(self, group: Group) -> Sequence[Score]: ...


@runtime_checkable
class StatefulReward(Reward, Protocol):
    """A reward with state (a running mean, a cache) that a checkpoint keeps."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class EnvReward:
    """The environment's own rewards, taken as they are: the default."""

    name = "env"

    def score(self, group: Group) -> list[Score]:
        return [
            Score(value=_paid(t), verifier=self.name, turn_parts=tuple(turn.paid for turn in t.turns))
            for t in group.trajectories
        ]


def _paid(trajectory: Trajectory) -> float:
    return math.fsum(number for turn in trajectory.turns for number in turn.paid.values())


def score_group(group: Group, reward: Reward) -> Group:
    """The group with each trajectory's score attached and its parts laid on the turns that earned them.

    Faulted trajectories are not shown to the reward and keep no score.

    Raises:
        RewardFault: the reward raised, or returned another number of scores than it was given trajectories.
    """
    judged = [t for t in group.trajectories if not t.stop_reason.is_fault and t.turns]
    if not judged:
        return group
    try:
        scores = list(reward.score(group.with_trajectories(judged)))
    except Exception as error:
        raise RewardFault(f"reward {reward.name!r} failed on group {group.id}: {error!r}") from error
    if len(scores) != len(judged):
        raise RewardFault(f"reward {reward.name!r} gave {len(scores)} scores for {len(judged)} trajectories")
    by_id = {t.id: place_score(t, score) for t, score in zip(judged, scores, strict=True)}
    return group.with_trajectories([by_id.get(t.id, t) for t in group.trajectories])


def place_score(trajectory: Trajectory, score: Score) -> Trajectory:
    """Lay the score's parts on the turns: `turn_parts` where given, else everything on the last turn.

    They take the place of what lay there. What the environment paid stays in `Turn.env_rewards`, so that a trajectory
    can be scored again, by the same reward or by another one, from the same ground.
    """
    if score.value is None:
        return replace(trajectory, score=score)
    if score.turn_parts is not None:
        if len(score.turn_parts) != len(trajectory.turns):
            raise RewardFault(
                f"verifier {score.verifier!r} gave parts for {len(score.turn_parts)} turns of {len(trajectory.turns)}"
            )
        parts: Sequence[Mapping[str, float]] = score.turn_parts
    else:
        last = score.parts or {score.verifier: score.value}
        parts = [{} for _ in trajectory.turns[:-1]] + [last]
    turns = tuple(_with_rewards(turn, dict(p)) for turn, p in zip(trajectory.turns, parts, strict=True))
    return replace(trajectory, turns=turns, score=score)


def _with_rewards(turn: Turn, parts: dict[str, float]) -> Turn:
    return replace(turn, rewards=parts, env_rewards=None if parts == turn.paid else dict(turn.paid))
