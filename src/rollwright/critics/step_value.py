"""The value of a step in [-1, 1], for a search: read at the last token of the state that the step led to.

The head is an MLP of three layers on a transformer; its output is 2 sigmoid(z) - 1. It is fitted to what trees say of
their nodes, each row weighed by how often it was counted, and later to returns, with a bound on how far a value moves.
Source: arXiv:2501.11223 and its released framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rollwright.contracts import ConfigError, Task, Turn
from rollwright.critics.critic_settings import TurnCriticFit
from rollwright.critics.critic_targets import Columns, Readings
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.open_critics import CriticRun, open_turn_critic
from rollwright.critics.turn_critic import ValueLearner, readings
from rollwright.learner import Learner
from rollwright.maths import require_length, signed_value
from rollwright.maths.losses import value_loss
from rollwright.models import ChatCodec

Ids = tuple[int, ...]
HEAD = "v"


class StepValueFit(TurnCriticFit):
    """The value model of a search: a model of its own beside the policy, and how it is fitted."""

    width: int = Field(1024, ge=1, description="Width of the head's first hidden layer.")
    second_width: int = Field(256, ge=1, description="Width of the head's second hidden layer.")
    updates: int = Field(20, ge=1, description="Optimiser steps per step of the run.")
    clip_eps: float | None = Field(
        0.2, gt=0, description="Phase 2: maximum change of a value in one step of the run; null = not limited."
    )


@dataclass(frozen=True, kw_only=True)
class ValueRows:
    """What a value model is fitted to.

    states: [N] the ids at whose end a value is read. targets: [N] in [-1, 1]. counts: [N] how often each was counted.

    Raises:
        ValueError: other lengths, a target outside [-1, 1], or a count that is not above 0.
    """

    states: Sequence[Ids]
    targets: Tensor
    counts: Tensor

    def __post_init__(self) -> None:
        for name, column in (("targets", self.targets), ("counts", self.counts)):
            require_length(name, column, len(self.states), per="state")
        if len(self.states) and not bool((self.targets.abs() <= 1).all()):
            raise ValueError(f"values of steps lie in [-1, 1], got {float(self.targets[self.targets.abs().argmax()])}")
        if len(self.states) and not bool((self.counts > 0).all()):
            raise ValueError("a state that was never counted has no target: leave it out")

    def __add__(self, other: ValueRows) -> ValueRows:
        """These rows and then the others."""
        return ValueRows(
            states=[*self.states, *other.states],
            targets=torch.cat([self.targets, other.targets]),
            counts=torch.cat([self.counts, other.counts]),
        )


class StepValue:
    """A value model of states: ids in, values in (-1, 1) out.

    Args:
        critic: with one head `v`, whose output is the logit z.
        updates, batch_size: of one `fit`.
    """

    def __init__(self, critic: ValueLearner | FrozenValueLearner, *, updates: int, batch_size: int) -> None:
        self.critic, self.updates, self.batch_size = critic, updates, batch_size

    @property
    def fitted(self) -> bool:
        """Whether it was ever told anything: before that, it says 0 of every state."""
        return self.critic.step > 0

    def read(self, states: Sequence[Sequence[int]]) -> Tensor:
        """[N] values. Raises ConfigError where nothing was learned yet."""
        if not self.fitted:
            raise ConfigError(
                "the value model was asked for the values of states before it was fitted to anything, and would say 0 "
                "of all of them: run phase 1 first (algorithm.phase_one_steps of 1 or more), or load a fitted one"
            )
        return self._read(states)

    def _read(self, states: Sequence[Sequence[int]]) -> Tensor:
        return signed_value(self.critic.read(states)[HEAD][0]) if len(states) else torch.zeros(0)

    def fit(self, rows: ValueRows, *, draws: np.random.Generator, clip_eps: float | None = None) -> dict[str, float]:
        """Optimiser steps on these rows, passes of shuffled batches one after the other.

        Args:
            draws: the order.
            clip_eps: a value gets no gradient once it has moved so far towards its target; None = no bound.

        Returns:
            Metrics, the loss being the mean over all steps; empty without rows.

        Raises:
            NonFiniteUpdate: loss or gradient is not finite; nothing has moved in that step.
        """
        if not len(rows.states):
            return {}
        # Read once: the bound holds for all steps of this fit together.
        old = self._read(rows.states)
        # The mean weight is 1, so that the learning rate means the same for small and large trees.
        shares = rows.counts / rows.counts.mean()
        found: list[dict[str, float]] = []
        for places in _batches(len(rows.states), self.batch_size, self.updates, draws):
            columns = {"target": rows.targets[places], "old": old[places], "share": shares[places]}
            states = self.critic.body.own_ids([rows.states[place] for place in places])
            found.append(self.critic.update_tokens(readings(states), columns, StepLoss(clip_eps)))
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def save_state(self, folder: Path) -> None:
        """Write what a checkpoint needs."""
        self.critic.save_state(folder)

    def load_state(self, folder: Path) -> None:
        """Continue from it."""
        self.critic.load_state(folder)


@dataclass(frozen=True)
class StepLoss:
    """The squared error of a value, the worse of bounded and unbounded, times what its row counts."""

    clip_eps: float | None

    def __call__(self, values: Readings, columns: Columns) -> Tensor:
        said = signed_value(values[HEAD][0])
        old = None if self.clip_eps is None else columns["old"]
        # `value_loss` is half of the squared error.
        return 2.0 * columns["share"] * value_loss(said, columns["target"], values_old=old, clip_eps=self.clip_eps)


def _batches(count: int, size: int, updates: int, draws: np.random.Generator) -> list[np.ndarray]:
    """`updates` batches of [size] places, every place once before any comes again."""
    needed = updates * min(size, count)
    passes = [draws.permutation(count) for _ in range(-(-needed // count))]
    return list(np.concatenate(passes)[:needed].reshape(updates, -1))


def open_step_value(config: CriticRun, learner: Learner, codec: ChatCodec, fit: StepValueFit) -> StepValue:
    """The value model that these settings describe; its body begins as the policy's, unless told otherwise."""
    critic = open_turn_critic(config, learner, codec, fit, {HEAD: 1}, name="critic", deeper=(fit.second_width,))
    assert isinstance(critic, ValueLearner | FrozenValueLearner)
    return StepValue(critic, updates=fit.updates, batch_size=fit.batch_size)


class SuccessChance:
    """A value model as a search asks it: the chance of success at a state, for worlds that pay 1 for success alone.

    On the scale of the episode's return, so that it can be compared with episodes that ended.
    """

    def __init__(self, value: StepValue) -> None:
        self.value = value

    def __call__(self, task: Task, turns: tuple[Turn, ...], prompt_ids: Ids) -> float:
        """(1 + value) / 2. Raises ConfigError where the model was told nothing yet."""
        return self.values([(task, turns, prompt_ids)])[0]

    def values(self, states: Sequence[tuple[Task, tuple[Turn, ...], Ids]]) -> list[float]:
        """The same of many states, in one pass."""
        # Where no prompt fits any more, nobody can act: that state is lost.
        readable = [place for place, (*_, prompt) in enumerate(states) if prompt]
        found = [0.0] * len(states)
        for place, value in zip(readable, self.value.read([states[p][2] for p in readable]).tolist(), strict=True):
            found[place] = (1.0 + value) / 2.0
        return found
