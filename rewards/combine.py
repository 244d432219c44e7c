"""A weighted sum of several rewards that can still be explained: every constituent keeps its name in the parts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rollwright.config import create
from rollwright.contracts import ConfigError, EnvReward, Group, Reward, Score, StatefulReward, Trajectory, scores_of
from rollwright.rewards.success import SuccessReward


class CombinedReward:
    """value = sum of weight x value. Cannot tell where one constituent cannot: half a sum would pass for a whole one.

    A part is called after its reward, `reward/part` where it has another name of its own. What a constituent lays on
    turns stays on them; the rest lies on the last turn.
    """

    name = "combine"

    def __init__(self, weighted: Sequence[tuple[Reward, float]]) -> None:
        self._weighted = tuple(weighted)

    def score(self, group: Group) -> list[Score]:
        """The weighted sum of the parts; none where a part has none."""
        # By `scores_of`, which checks the contract: the error then names the reward that broke it and not the sum.
        columns = [scores_of(reward, group) for reward, _ in self._weighted]
        return [
            self._combine(trajectory, scores)
            for trajectory, scores in zip(group.trajectories, zip(*columns, strict=True), strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts that have one, by name."""
        # By name: `build` lets no two rewards have the same one.
        return {r.name: dict(r.state_dict()) for r, _ in self._weighted if isinstance(r, StatefulReward)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the states of the parts."""
        for reward, _ in self._weighted:
            if isinstance(reward, StatefulReward):
                reward.load_state_dict(state[reward.name])

    def _combine(self, trajectory: Trajectory, scores: Sequence[Score]) -> Score:
        # All of the reasons, so that nobody mends one and then meets the next.
        undecided = [f"{score.verifier}: {score.message}".rstrip(": ") for score in scores if score.value is None]
        if undecided:
            return Score(value=None, verifier=self.name, message="; ".join(undecided))
        turns: list[dict[str, float]] = [defaultdict(float) for _ in trajectory.turns]
        for (reward, weight), score in zip(self._weighted, scores, strict=True):
            for turn, earned in zip(turns, _by_turn(score, len(turns)), strict=True):
                for part, number in earned.items():
                    # Added up and not set: a reward may pay the same part at several turns.
                    turn[part if part == reward.name else f"{reward.name}/{part}"] += weight * number
        turn_parts = tuple(dict(turn) for turn in turns)
        # From the weighted parts themselves, so that they sum to the value as the contract asks.
        value = math.fsum(number for turn in turn_parts for number in turn.values())
        return Score(value=value, verifier=self.name, turn_parts=turn_parts)


def _by_turn(score: Score, num_turns: int) -> Sequence[Mapping[str, float]]:
    if score.turn_parts is not None:
        return score.turn_parts
    # A reward without parts is a single part under its own name.
    last = score.parts or {score.verifier: score.value or 0.0}
    return [*({} for _ in range(num_turns - 1)), last]


Options = Mapping[str, Any]


def build(
    *, weights: Mapping[str, float], rewards: Sequence[Reward] | Mapping[str, Options | None] = ()
) -> CombinedReward:
    """The weighted sum of rewards by name.

    Args:
        weights: one weight per reward, by name: `env`, `success`, or the name of one in `rewards`.
        rewards: further rewards that `weights` may name: rewards that were built, or component name -> its options.

    Raises:
        ConfigError: no weights, a weight that is not finite, a name that no reward has or that two have.
    """
    # Always at hand: they need no options.
    known: dict[str, Reward] = {"env": EnvReward(), "success": SuccessReward()}
    if isinstance(rewards, Mapping):
        rewards = [create("rewards", name, options) for name, options in rewards.items()]
    for reward in rewards:
        if reward.name in known:
            raise ConfigError(f"two rewards are called {reward.name!r}: parts would be mixed up; rename one")
        known[reward.name] = reward
    unknown = [name for name in weights if name not in known]
    # A reward that is built and not weighted is most likely a misspelt weight.
    unused = [reward.name for reward in rewards if reward.name not in weights]
    if not weights or unknown or unused:
        raise ConfigError(
            f"weights must name the rewards to add, got {dict(weights)}: unknown {unknown}, without weight {unused}; "
            f"known here are {', '.join(known)}"
        )
    if not all(math.isfinite(weight) for weight in weights.values()):
        raise ConfigError(f"weights must be finite, got {dict(weights)}")
    return CombinedReward([(known[name], weight) for name, weight in weights.items()])
