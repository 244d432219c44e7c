"""Satori's reward: right or wrong, an outcome model's preference, and a bonus for what became of a restart.

    R = (solved - 1) + sigmoid(score of the outcome model) + bonus          each a part of its own, on the last turn
    bonus = +beta behind a failed episode if solved now, -beta behind a solved one if failed now, else 0

What became of the earlier episode is known where `starts=restarts` or `starts=failures` chose the start (a failure's
status is that of a failed episode); elsewhere the bonus is 0. Source: arXiv:2502.02508.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from rollwright.contracts import ConfigError, Group, Score, Trajectory

if TYPE_CHECKING:
    from rollwright.methods import OutcomeModel

Dtype = Literal["float32", "bfloat16", "float16"]


class RestartBonusReward:
    """The three parts; no score where the world gave no verdict, or the outcome model could not read the episode."""

    name = "restart_bonus"

    def __init__(self, *, beta: float, model: OutcomeModel | None) -> None:
        self.beta = beta
        self._model = model

    def score(self, group: Group) -> Sequence[Score]:
        """What each episode earns; the group's start says what it follows."""
        status = group.start.status if group.start is not None else 0
        model = self._model
        liked = model.scores(group.trajectories) if model else [None] * len(group.trajectories)
        return [self._score(one, status, score) for one, score in zip(group.trajectories, liked, strict=True)]

    def _score(self, trajectory: Trajectory, status: int, liked: float | None) -> Score:
        from rollwright.maths import (
            reflection_bonus,
        )  # torch comes with it, which the reward's name alone does not need

        if trajectory.success is None:
            # A cut episode is no failure: to call it one would teach haste.
            return Score(value=None, verifier=self.name, message="the environment gave no verdict")
        if self._model is not None and liked is None:
            return Score(value=None, verifier=self.name, message="the outcome model cannot judge this episode")
        parts = {
            "rule": float(trajectory.success) - 1.0,
            "bonus": reflection_bonus(trajectory.success, status, beta=self.beta),
        }
        if liked is not None:
            parts["preference"] = 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, liked))))
        return Score(value=math.fsum(parts.values()), verifier=self.name, parts=parts)


def build(
    *, beta: float = 0.5, path: str = "", dtype: Dtype = "float32", device: str = "auto", token_budget: int = 8192
) -> RestartBonusReward:
    """Satori's reward.

    Args:
        beta: the bonus; 0 = none (the paper's ablation).
        path: folder of a pair model (`<run>/pair_model` of recipes/reward_pairs.py), whose score is the preference;
            empty = no preference.
        dtype: of its weights.
        device: "auto" is the GPU where there is one.
        token_budget: tokens of one forward pass, padding included.

    Raises:
        ConfigError: an option without meaning, or a verifier, whose score is a probability already.
        FileNotFoundError: no such folder.
        DataError: no outcome model in it.
    """
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 <= beta < math.inf:
        raise ConfigError(f"restart_bonus: beta is {beta!r}; expected a number of 0 or more, such as 0.5")
    if dtype not in get_args(Dtype):
        raise ConfigError(f"restart_bonus: dtype is {dtype!r}; expected one of {', '.join(get_args(Dtype))}")
    if not path:
        return RestartBonusReward(beta=beta, model=None)
    from rollwright.methods import OutcomeModel

    model = OutcomeModel.load(path, dtype=dtype, device=device, token_budget=token_budget)
    if model.card.kind != "scalar":
        raise ConfigError(
            f"restart_bonus: {path} is a verifier, whose score is a probability already; the preference is the sigmoid "
            "of a pair model's score: train one with recipes/reward_pairs.py and name its `pair_model` folder"
        )
    return RestartBonusReward(beta=beta, model=model)
