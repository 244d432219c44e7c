"""Advantages on two clocks: turns (what the environment answers) and the tokens inside a turn.

Tokens are flat; `turn_index` [N] names the turn of each token and `trajectory_index` [U] the trajectory of each turn.
Turns of a trajectory are numbered in the order in which they were played, and each has at least one token.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.maths.advantages.tokens import ValueAdvantages, gae
from rollwright.maths.sequences import (
    is_segment_end,
    is_segment_start,
    next_in_segment,
    require_finite_entries,
    require_length,
    reverse_discounted_sum,
    segment_count,
    segment_sum,
)

TurnReward = Literal["sum", "last_token"]


def _num_trajectories(trajectory_index: Tensor, last_values: Tensor | None) -> int:
    # Every trajectory has a turn, so the highest number names the last one.
    count = int(trajectory_index.max()) + 1
    if last_values is not None:
        require_length("last_values", last_values, count, per="trajectory")
    return count


def _check_tokens(rewards: Tensor, values: Tensor, turn_index: Tensor) -> None:
    require_length("rewards", rewards, turn_index.numel(), per="token")
    require_length("values", values, turn_index.numel(), per="token")
    require_finite_entries(rewards=rewards, values=values)


def _pick(values: Tensor, chosen: Tensor, turn_index: Tensor, num_turns: int) -> Tensor:
    """The chosen entry of each turn, ordered by turn. [N] -> [U]."""
    # The first (or last) token is marked once in each turn that has tokens, so a count of 0 is an empty turn.
    counts = segment_count(chosen, turn_index, num_turns)
    if (counts != 1).any():
        raise ValueError(f"turns {(counts != 1).nonzero()[:, 0].tolist()} have no action token: drop them first")
    picked = torch.zeros(num_turns, dtype=values.dtype, device=values.device)
    return picked.index_copy(0, turn_index[chosen], values[chosen])


def _turn_level(
    rewards: Tensor, values: Tensor, turn_index: Tensor, num_turns: int, turn_reward: TurnReward
) -> tuple[Tensor, Tensor]:
    """Reward of each turn, and the value read before its first token. -> [U], [U]."""
    # The value before the first token is that of the state in which the whole turn is chosen.
    turn_values = _pick(values, is_segment_start(turn_index, num_turns), turn_index, num_turns)
    # "last_token" is the sparse form of VAGEN's code: a reward inside a turn stays below the level of turns.
    if turn_reward == "sum":
        return segment_sum(rewards, turn_index, num_turns), turn_values
    return _pick(rewards, is_segment_end(turn_index, num_turns), turn_index, num_turns), turn_values


def turn_gae(
    rewards: Tensor,
    values: Tensor,
    turn_index: Tensor,
    trajectory_index: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    last_values: Tensor | None = None,
) -> ValueAdvantages:
    """GAE with one decision per turn, given to all tokens of the turn.

    Args:
        rewards: [N] float per token; a turn earns their sum.
        values: [N] float; a turn's value is the one before its first token.
        turn_index: [N] int.
        trajectory_index: [U] int.
        gamma: discount per turn.
        gae_lambda: per turn.
        last_values: [S] float, what follows each trajectory; None = all terminated.

    Returns:
        [N] each; the returns of a turn (the critic's target at its first token) are repeated over its tokens.

    Raises:
        ValueError: a turn without action tokens, tensors of other lengths than these, or numbers that are not finite.
    """
    _check_tokens(rewards, values, turn_index)
    num_turns = trajectory_index.numel()
    turn_rewards, turn_values = _turn_level(rewards, values, turn_index, num_turns, "sum")
    turns = gae(
        turn_rewards,
        turn_values,
        trajectory_index,
        num_sequences=_num_trajectories(trajectory_index, last_values),
        gamma=gamma,
        gae_lambda=gae_lambda,
        last_values=last_values,
    )
    return ValueAdvantages(advantages=turns.advantages[turn_index], returns=turns.returns[turn_index])


def bilevel_gae_v1(
    rewards: Tensor,
    values: Tensor,
    turn_index: Tensor,
    trajectory_index: Tensor,
    *,
    gamma: float,
    turn_gamma: float,
    gae_lambda: float,
    last_values: Tensor | None = None,
) -> ValueAdvantages:
    """Bi-level GAE, first form: turn advantages at the turns' last tokens become the rewards of GAE inside each turn.

    Only the reward on a turn's last token takes part between turns; a reward in the middle of a turn stays inside it.

    Args:
        rewards: [N] float per token.
        values: [N] float per token.
        turn_index: [N] int.
        trajectory_index: [U] int.
        gamma: discount per token inside a turn.
        turn_gamma: discount per turn.
        gae_lambda: shared by both levels.
        last_values: [S] float, what follows each trajectory; None = all terminated.

    Returns:
        [N] each, not whitened. With gamma = turn_gamma = gae_lambda = 1 it equals `gae`.

    Raises:
        ValueError: as for `turn_gae`.

    Sources: the turn-aware advantage estimate of VAGEN.
    """
    _check_tokens(rewards, values, turn_index)
    num_turns = trajectory_index.numel()
    ends = is_segment_end(turn_index, num_turns)
    # This form reads the value of a turn at its last token; `turn_gae` and the second form read it at the first.
    end_values = _pick(values, ends, turn_index, num_turns)
    turns = gae(
        _pick(rewards, ends, turn_index, num_turns),
        end_values,
        trajectory_index,
        num_sequences=_num_trajectories(trajectory_index, last_values),
        gamma=turn_gamma,
        gae_lambda=gae_lambda,
        last_values=last_values,
    )
    # The turn's return takes the place of the reward on its last token.
    targets = torch.where(ends, (turns.advantages + end_values)[turn_index], rewards)
    # No `last_values` here: what follows the turn is in that return already.
    return gae(targets, values, turn_index, num_sequences=num_turns, gamma=gamma, gae_lambda=gae_lambda)


def bilevel_gae_v2(
    rewards: Tensor,
    values: Tensor,
    turn_index: Tensor,
    trajectory_index: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    turn_gamma: float,
    turn_gae_lambda: float,
    turn_reward: TurnReward,
    last_values: Tensor | None = None,
) -> ValueAdvantages:
    """Bi-level GAE, second form: token GAE whose carry at a turn's border is the next turn's own advantage.

    Args:
        rewards: [N] float per token.
        values: [N] float per token.
        turn_index: [N] int.
        trajectory_index: [U] int.
        gamma: discount per token.
        gae_lambda: per token.
        turn_gamma: discount per turn.
        turn_gae_lambda: per turn.
        turn_reward: "sum" over the turn's tokens, or only the one on its "last_token".
        last_values: [S] float, what follows each trajectory; None = all terminated.

    Returns:
        [N] each, not whitened.

    Raises:
        ValueError: as for `turn_gae`, or a word for `turn_reward` that is not known.

    Sources: the bi-level estimate of VAGEN, second form.
    """
    require_choice("turn_reward", turn_reward, TurnReward)
    _check_tokens(rewards, values, turn_index)
    num_turns = trajectory_index.numel()
    num_trajectories = _num_trajectories(trajectory_index, last_values)
    after = values.new_zeros(num_trajectories) if last_values is None else last_values
    turn_rewards, turn_values = _turn_level(rewards, values, turn_index, num_turns, turn_reward)
    turns = gae(
        turn_rewards,
        turn_values,
        trajectory_index,
        num_sequences=num_trajectories,
        gamma=turn_gamma,
        gae_lambda=turn_gae_lambda,
        last_values=after,
    )
    # After the last token of a turn comes the first token of the next one.
    next_turn_values = next_in_segment(turn_values, trajectory_index, after)
    # No further turn has an advantage after the last one, also where a bootstrap value follows.
    next_turn_advantages = next_in_segment(turns.advantages, trajectory_index, torch.zeros_like(after))
    deltas = rewards + gamma * next_in_segment(values, turn_index, next_turn_values) - values
    carried = gamma * gae_lambda * next_turn_advantages[turn_index]
    # The scan below restarts at each turn, so the carry from the next turn enters at the border by hand.
    deltas = torch.where(is_segment_end(turn_index, num_turns), deltas + carried, deltas)
    advantages = reverse_discounted_sum(deltas, turn_index, num_turns, gamma * gae_lambda).detach()
    return ValueAdvantages(advantages=advantages, returns=advantages + values.detach())
