"""Does it end well? Outcomes of stored trajectories, critics fitted to them, and the values along a trajectory.

The critic's head says a logit; its loss is `maths.outcome_loss`. Sources: arXiv:2406.11896 (DigiRL), arXiv:2411.02337
(WebRL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.critics.critic_learner import TurnValues
from rollwright.critics.critic_settings import TurnCriticFit
from rollwright.critics.replay_updates import shuffled_batches
from rollwright.store.replay import Transition, TurnTable

Array = NDArray[Any]


OutcomeBy = Literal["verdict", "reward"]


def outcomes(table: TurnTable, by: OutcomeBy = "verdict") -> Array:
    """[S] float64 in {0, 1}: the verdict where there is one, else whether the return is above 0.

    Args:
        by: "reward" asks the return alone: what an outcome model said counts, not what the world knows.
    """
    require_choice("by", by, OutcomeBy)
    verdict, earned = table.trajectories["success"], table.trajectories["total_reward"]
    if by == "reward":
        return (earned > 0).astype(np.float64)
    # -1 is stored where the world gave no verdict.
    result: Array = np.where(verdict >= 0, verdict == 1, earned > 0).astype(np.float64)
    return result


def instruction_prompts(table: TurnTable, trajectories: Array) -> list[tuple[int, ...]]:
    """The first prompt of each trajectory: what an instruction-level value sees."""
    return [table.prompt_ids(int(table.trajectories["first_turn"][s])) for s in trajectories]


def fit_outcomes(critic: TurnValues, head: str, prompts: Sequence[Sequence[int]], labels: Array) -> dict[str, float]:
    """One step on 0/1 labels, one per prompt (DigiRL eq. 4.5 and 4.6); the head's loss is `maths.outcome_loss`."""
    return critic.update({head: (prompts, torch.as_tensor(labels, dtype=torch.float32))})


def fit_instructions(
    critic: TurnValues, fit: TurnCriticFit, table: TurnTable, turns: Array, labels: Array, draws: np.random.Generator
) -> dict[str, float]:
    """V of the instruction alone: does it end well? Steps on the first prompts of these turns' trajectories.

    Args:
        labels: [S] outcome of every trajectory of the table.

    Returns:
        Metrics of the last step; empty where there was none.
    """
    owners = np.unique(table.owners()[turns])
    metrics: dict[str, float] = {}
    for _ in range(fit.updates if len(owners) else 0):
        # With replacement, as there may be fewer trajectories than a batch holds.
        some = draws.choice(owners, fit.batch_size)
        metrics = fit_outcomes(critic, "v", instruction_prompts(table, some), labels[some])
    return metrics


def fit_steps(
    critic: TurnValues, batch: Sequence[Transition], labels: Array, *, both_ends: bool = True
) -> dict[str, float]:
    """One step of V at each turn's state: does an episode that stands here end well?

    Args:
        labels: [S] outcome of every trajectory of the table that the turns come from.
        both_ends: at the states that come after the turns, too.
    """
    # Behind an ended episode there is no state to value.
    ends = [t for t in batch if t.next_prompt_ids] if both_ends else []
    prompts = [t.prompt_ids for t in batch] + [t.next_prompt_ids for t in ends]
    return fit_outcomes(critic, "v", prompts, labels[[t.trajectory for t in (*batch, *ends)]])


def fit_passes(
    critic: TurnValues,
    fit: TurnCriticFit,
    table: TurnTable,
    turns: Array,
    labels: Array,
    draws: np.random.Generator,
    *,
    both_ends: bool,
) -> dict[str, float]:
    """`fit.updates` passes of `fit_steps` over these turns, shuffled. -> metrics of the last step."""
    metrics: dict[str, float] = {}
    for _ in range(fit.updates):
        for batch in shuffled_batches(turns, fit.batch_size, draws):
            metrics = fit_steps(critic, table.transitions(batch), labels, both_ends=both_ends)
    return metrics


def fit_states(
    critic: TurnValues, fit: TurnCriticFit, table: TurnTable, turns: Array, labels: Array, draws: np.random.Generator
) -> dict[str, float]:
    """V of the states on both ends of a turn: steps on turns drawn uniformly with replacement.

    Args:
        labels: [S] outcome of every trajectory of the table.

    Returns:
        Metrics of the last step; empty where there was none.
    """
    metrics: dict[str, float] = {}
    for _ in range(fit.updates if len(turns) else 0):
        metrics = fit_steps(critic, table.transitions(draws.choice(turns, fit.batch_size)), labels)
    return metrics


def success_probability(critic: TurnValues, head: str, prompts: Sequence[Sequence[int]]) -> Tensor:
    """[N] the smallest head's probability of success at each prompt; no prompt, no number."""
    if not prompts:
        return torch.zeros(0)
    # The smallest of the heads: an average would let one that overrates a state carry it.
    return critic.read(prompts)[head].sigmoid().min(dim=0).values


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSteps:
    """What outcome advantages are computed from, for whole trajectories: see `advantages.outcomes`.

    values: [U] before each turn. index: [U] its trajectory, counted from 0. won: [S] outcome. ends: [S] value of what
    follows the last turn; 0 unless a limit cut the episode there.
    """

    values: Tensor
    index: Tensor
    won: Tensor
    ends: Tensor


def outcome_steps(critic: TurnValues, head: str, table: TurnTable, turns: Array, labels: Array) -> OutcomeSteps:
    """The values along the trajectories that these turns make up.

    Args:
        turns: [U] all turns of some trajectories, in order.
        labels: [S] outcome of every trajectory of the table.
    """
    batch = table.transitions(turns)
    values = success_probability(critic, head, [t.prompt_ids for t in batch])
    # Sorted like the turns, so `index` numbers the trajectories in their order.
    owners, index = np.unique([t.trajectory for t in batch], return_inverse=True)
    cut = [k for k, t in enumerate(batch) if t.truncated and t.next_prompt_ids]  # what follows has a value
    # 0 after the task's own end: what it was worth is in `won`.
    ends = torch.zeros(len(owners))
    ends[index[cut]] = success_probability(critic, head, [batch[k].next_prompt_ids for k in cut])
    won = torch.as_tensor(labels[owners], dtype=torch.float32)
    return OutcomeSteps(values=values, index=torch.as_tensor(index), won=won, ends=ends)
