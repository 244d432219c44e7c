"""What ILQL and Monte-Carlo Q-learning share: chains out of stores, the targets and loss of a token, acting with Q.

The losses are LMRL-Gym's: means over action tokens, squares halved. Sources: arXiv:2206.11871, arXiv:2311.18232.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from rollwright.batching import Segment
from rollwright.config import Config
from rollwright.contracts import ConfigError
from rollwright.critics.critic_targets import Columns, Readings
from rollwright.critics.token_steps import StoredSteps, TokenSteps
from rollwright.generation import Engine, PerturbedEngine
from rollwright.maths import expectile_loss, td_target
from rollwright.models import ChatCodec
from rollwright.store import data_checks
from rollwright.store.replay import TurnTable, keep_trajectories, valid_turns


class TokenQSettings(Config):
    """What both methods set: discount, conservatism, fitting, decoding."""

    gamma: float = Field(0.99, ge=0, le=1, description="Discount per action token.")
    cql_weight: float = Field(0.5, ge=0, description="Weight of the conservative term.")
    beta: float = Field(16.0, ge=0, description="Weight of Q added to the policy's logits; 0 = act as the policy does.")
    updates: int = Field(50, ge=1, description="Optimiser steps per step of the run.")
    trajectories: int = Field(8, ge=1, description="Trajectories per optimiser step.")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate for the critic.")
    decay: bool = Field(False, description="Decay the learning rate linearly to 0 over the run.")
    width: int = Field(256, ge=1, description="Width of the heads' hidden layer.")
    frozen: bool = Field(
        False, description="Train only the heads, on the policy's frozen layers; each turn is then read once."
    )
    depth: float = Field(1.0, gt=0, le=1, description="Share of those layers to keep, counted from the bottom.")
    bias: float = Field(
        0.0, description="Initial value of all states; learning is faster when it is close to the mean return."
    )


ENGINES_WITH_Q = (
    "decoding with Q changes the logits inside the engine, with the weights of a critic in this process: use "
    "engine.name=vllm or transformers, not {}"
)
"""The error where the engine cannot; in braces the name of the engine that was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChains:
    """Whole trajectories of some stores, drawn as chains of action tokens. Made by `open`."""

    stored: StoredSteps
    turns: NDArray[Any]
    owners: NDArray[Any]

    @classmethod
    def open(
        cls, stores: Sequence[str], codec: ChatCodec, policy: nn.Module, *, truncated_end: bool = False
    ) -> StoredChains:
        """All trajectories that may be learned from. Reads them once.

        Args:
            truncated_end: a limit is the task's own end, so that nothing comes after a cut episode.

        Raises:
            ConfigError: no store is named.
            DataError: nothing tells good episodes from bad ones, or the ids are another tokenizer's.
        """
        if not stores:
            raise ConfigError("a token-level Q learns from stored trajectories: name some in replay.stores")
        table = TurnTable(*stores)
        turns = valid_turns(table)
        data_checks.require_outcomes(table, turns)
        data_checks.require_own_tokens(stores, table, codec, policy)
        # Only trajectories with a turn to learn from can be drawn.
        owners = np.unique(table.owners()[turns])
        return cls(stored=StoredSteps.scan(table, turns, truncated_end=truncated_end), turns=turns, owners=owners)

    def draw(self, draws: np.random.Generator, count: int) -> TokenSteps:
        """So many trajectories, uniformly; one that is drawn twice counts once."""
        # With replacement, so that the number of draws may exceed the number of trajectories.
        chosen = draws.choice(self.owners, count)
        return self.stored.steps(keep_trajectories(self.stored.table, chosen, among=self.turns))


class Reads(Protocol):
    """A critic with a slow copy, as far as targets need it."""

    def read_tokens(self, segments: Sequence[Segment], *, slow: bool = False) -> dict[str, Tensor]:
        """Values of every action token, in the flat order. -> name of the head -> [heads, N] float32."""


def implicit_targets(
    critic: Reads, steps: TokenSteps, *, gamma: float, highest: float | None = None
) -> dict[str, Tensor]:
    """What Q is regressed on, r + gamma V(next action state), and V, the smaller slow Q of the token. [n] each.

    One number of each per entry, Q's the mean over its steps, and the entry's weight. After the last token of an ended
    trajectory comes nothing, after a cut one the value of the prompt that would have come next, or of the state behind
    its last action.

    Args:
        highest: what no return exceeds (0 where all rewards are costs); a larger target is cut to it. None = no bound,
            as in the papers.
    """
    readings = steps.readings
    # V of the fast critic: in ILQL only Q has a slow copy.
    after = steps.next_values(critic.read_tokens(readings)["v"][0])
    # No step is marked as ended: `next_values` gives 0 behind an ended trajectory already.
    wanted_q = td_target(steps.rewards, after, torch.zeros_like(steps.rewards).bool(), gamma=gamma)
    wanted_q = wanted_q if highest is None else wanted_q.clamp(max=highest)
    # The turns alone: behind the states after a cut no action is known.
    slow = critic.read_tokens(steps.segments, slow=True)["q"]
    return {"q": steps.per_entry(wanted_q), "v": slow.min(dim=0).values, "weights": steps.weights}


def token_q_loss(values: Readings, targets: Columns, *, cql_weight: float) -> Tensor:
    """0.5 (Q_j(s, a) - y)^2 + w_cql CE(Q_j(s, .), a), added over the heads, per entry and times its weight. [n]

    Args:
        targets: "q" [n] what Q is regressed on, "weights" [n] what each entry counts.
    """
    # [n] is broadcast over the heads: all regress on one target.
    errors = 0.5 * (values["q"] - targets["q"]).square() + cql_weight * values["cql"]
    return targets["weights"] * errors.sum(dim=0)


def implicit_loss(values: Readings, targets: Columns, *, cql_weight: float, expectile: float) -> Tensor:
    """`token_q_loss`, and half the expectile regression of V. [n]

    Args:
        targets: as for `token_q_loss`, and "v" [n] what V is regressed on.
    """
    v_losses = expectile_loss(values["v"][0], targets["v"], expectile=expectile)
    return token_q_loss(values, targets, cql_weight=cql_weight) + 0.5 * targets["weights"] * v_losses


def decode_with(engine: Engine, critic: nn.Module, *, beta: float) -> None:
    """From here on the engine samples from softmax(logits + beta * Q), by the critic's weights of that moment.

    Raises:
        ConfigError: the engine cannot change its logits, or the critic is not whole on this rank (ZeRO-3).
    """
    from rollwright.critics.vocabulary_critic import Perturbation

    if not isinstance(engine, PerturbedEngine):
        raise ConfigError(ENGINES_WITH_Q.format(engine.name))
    # ZeRO-3 leaves an empty tensor where this rank does not hold the parameter.
    if not all(parameter.numel() for parameter in critic.parameters()):
        raise ConfigError("decoding with Q needs the critic whole on each rank: use ZeRO-1 or ZeRO-2")
    engine.perturb(Perturbation(critic=critic, beta=beta))  # type: ignore[arg-type]
