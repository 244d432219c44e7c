"""Soft penalty for long episodes: nothing up to a length, then falling in a straight line to -1 at the limit.

Source: arXiv:2503.14476 eq. 13 (DAPO). The length is the number of action tokens of the episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rollwright.contracts import ConfigError, EnvReward, Group, Reward, Score, StatefulReward, Trajectory, scores_of


def overlong_penalty(num_tokens: int, *, max_tokens: int, buffer_tokens: int) -> float:
    """0 up to `max_tokens - buffer_tokens`, from there down by 1 / buffer_tokens per token, never below -1."""
    # Tokens within the buffer; the three cases of the equation in one line.
    excess = num_tokens - (max_tokens - buffer_tokens)
    return 0.0 if excess <= 0 else max(-1.0, -excess / buffer_tokens)


class OverlongReward:
    """Another reward plus the penalty as part `overlong` on the last turn. No score where the other has none."""

    name = "overlong"

    def __init__(self, base: Reward, *, max_tokens: int, buffer_tokens: int, weight: float) -> None:
        self._base = base
        self._max_tokens = max_tokens
        self._buffer_tokens = buffer_tokens
        self._weight = weight

    def score(self, group: Group) -> list[Score]:
        """The base reward plus the penalty for length, which is never above 0."""
        scores = scores_of(self._base, group)
        return [self._shape(t, score) for t, score in zip(group.trajectories, scores, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The state of the base reward, if it has one."""
        return dict(self._base.state_dict()) if isinstance(self._base, StatefulReward) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of the base reward."""
        if isinstance(self._base, StatefulReward):
            self._base.load_state_dict(state)

    def _shape(self, trajectory: Trajectory, score: Score) -> Score:
        # A penalty alone would pass for a whole score.
        if score.value is None:
            return score
        penalty = self._weight * overlong_penalty(
            trajectory.num_action_tokens, max_tokens=self._max_tokens, buffer_tokens=self._buffer_tokens
        )
        # A score without parts is one part under its verifier's name.
        parts: Mapping[str, float] = score.parts or {score.verifier: score.value}
        turns = score.turn_parts
        return replace(
            score,
            value=score.value + penalty,
            verifier=self.name,
            # Parts and turn parts must each sum to the value, so the penalty joins whichever of them is there.
            parts={} if turns is not None and not score.parts else {**parts, "overlong": penalty},
            turn_parts=None if turns is None else (*turns[:-1], {**turns[-1], "overlong": penalty}),
        )


def build(*, max_tokens: int, buffer_tokens: int, weight: float = 1.0, base: Reward | None = None) -> OverlongReward:
    """The penalty on top of `base`, which is the environment's own reward where None.

    Args:
        max_tokens: action tokens of an episode from which on the penalty is full.
        buffer_tokens: how many tokens before that it begins.
        weight: the full penalty, in the reward's unit.

    Raises:
        ConfigError: the buffer is not between 1 and `max_tokens`, or the weight is below 0.
    """
    # 0 would divide by zero; more than `max_tokens` would punish an empty episode.
    if not 1 <= buffer_tokens <= max_tokens:
        raise ConfigError(f"overlong needs 1 <= buffer_tokens <= max_tokens, got {buffer_tokens} and {max_tokens}")
    if not math.isfinite(weight) or weight < 0:
        raise ConfigError(f"overlong needs a weight of 0 or more, got {weight}: it would pay for length")
    return OverlongReward(base or EnvReward(), max_tokens=max_tokens, buffer_tokens=buffer_tokens, weight=weight)
