"""Advantages on the clock of tokens: returns-to-go, REINFORCE, REINFORCE++, generalised advantage estimation.

Every function takes flat action tokens (see `maths.sequences`), so the walk goes from one token the policy sampled
to the next and never touches an observation. Nothing here carries a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rollwright.maths.advantages.groups import group_mean
from rollwright.maths.advantages.whitening import whiten
from rollwright.maths.sequences import (
    next_in_segment,
    require_finite_entries,
    require_length,
    reverse_discounted_sum,
    segment_sum,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueAdvantages:
    """What an actor and its critic are trained on; both tensors have the shape of the rewards they came from."""

    advantages: Tensor
    """Not whitened."""
    returns: Tensor
    """advantages + values: the critic's regression target, taken before any whitening."""


def bootstrap_values(values_after: Tensor, *, terminated: Tensor, truncated: Tensor) -> Tensor:
    """What follows each sequence: the critic's value where a limit cut it, 0 where the task itself ended it.

    Args:
        values_after: [S] float, the critic's value of the state after the last action.
        terminated: [S] bool, the task ended. Wins over `truncated` where both are true.
        truncated: [S] bool, a limit (turns, tokens, time) cut the episode.

    Raises:
        ValueError: a sequence is neither, so nobody can say what follows it; a value that is needed is not finite;
            tensors of different lengths.
    """
    for name, of in (("values_after", values_after), ("terminated", terminated), ("truncated", truncated)):
        require_length(name, of, values_after.numel(), per="sequence")
    open_ended = ~(terminated.bool() | truncated.bool())
    if open_ended.any():
        raise ValueError(
            f"sequences {open_ended.nonzero()[:, 0].tolist()} are neither terminated nor truncated: "
            "an unfinished episode has no return yet"
        )
    cut = truncated.bool() & ~terminated.bool()
    require_finite_entries(values_after=torch.where(cut, values_after, torch.zeros_like(values_after)))
    # `where` in place of a product with the mask: a value that is not needed may be NaN, and 0 * NaN is NaN.
    return torch.where(cut, values_after, torch.zeros_like(values_after))


def returns_to_go(rewards: Tensor, sequence_index: Tensor, *, num_sequences: int, gamma: float) -> Tensor:
    """Discounted sum of this and all later rewards of the same sequence, one `gamma` per action token. [N] -> [N].

    Raises:
        ValueError: a reward that is not finite.
    """
    require_finite_entries(rewards=rewards)
    return reverse_discounted_sum(rewards, sequence_index, num_sequences, gamma).detach()


def reinforce(rewards: Tensor, sequence_index: Tensor, *, num_sequences: int, gamma: float) -> Tensor:
    """Plain REINFORCE: the advantage of a token is its return-to-go, without any baseline. [N] -> [N].

    Sources: Williams 1992.
    """
    return returns_to_go(rewards, sequence_index, num_sequences=num_sequences, gamma=gamma)


def reinforce_plus_plus(rewards: Tensor, sequence_index: Tensor, *, num_sequences: int, gamma: float) -> Tensor:
    """REINFORCE++: returns-to-go, whitened over all tokens of the batch. [N] -> [N].

    Args:
        rewards: [N] float, the per-token KL penalty already inside.
        sequence_index: [N] int, the trajectory of each token: later turns reach back to earlier ones.
        num_sequences: S.
        gamma: discount per action token.

    Raises:
        ValueError: fewer than two tokens, or a reward that is not finite.

    Sources: arXiv:2501.03262.
    """
    return whiten(returns_to_go(rewards, sequence_index, num_sequences=num_sequences, gamma=gamma))


def reinforce_plus_plus_baseline(
    rewards: Tensor, sequence_index: Tensor, group_index: Tensor, *, num_sequences: int
) -> Tensor:
    """REINFORCE++ with the group's mean score as baseline, broadcast to tokens and whitened over the batch.

    Args:
        rewards: [N] float per token; a sequence's score is their sum.
        sequence_index: [N] int, the trajectory of each token.
        group_index: [S] int, the group of each trajectory.
        num_sequences: S.

    Returns:
        [N] float.

    Sources: arXiv:2501.03262.
    """
    scores = segment_sum(rewards, sequence_index, num_sequences)
    # Whitening comes after the broadcast, so that a long sequence weighs more in mean and variance.
    return whiten((scores - group_mean(scores, group_index))[sequence_index])


def gae(
    rewards: Tensor,
    values: Tensor,
    sequence_index: Tensor,
    *,
    num_sequences: int,
    gamma: float,
    gae_lambda: float,
    last_values: Tensor | None = None,
) -> ValueAdvantages:
    """Generalised advantage estimation over consecutive entries of each sequence: tokens, or turns.

    Args:
        rewards: [N] float.
        values: [N] float, the critic's value *before* the entry was chosen (read one position before a token).
        sequence_index: [N] int, the trajectory of each entry.
        num_sequences: S.
        gamma: discount per entry.
        gae_lambda: 0 trusts the critic after one step, 1 is the return minus the value.
        last_values: [S] float, what follows each trajectory (see `bootstrap_values`); None = all terminated.

    Returns:
        Advantages and critic targets, [N] each.

    Raises:
        ValueError: tensors of other lengths than these, or numbers that are not finite.

    Sources: arXiv:1506.02438.
    """
    ends = values.new_zeros(num_sequences) if last_values is None else last_values
    require_length("rewards", rewards, sequence_index.numel(), per="entry")
    require_length("values", values, sequence_index.numel(), per="entry")
    require_length("last_values", ends, num_sequences, per="sequence")
    require_finite_entries(rewards=rewards, values=values, last_values=ends)
    # "Next" is the next action token: observations between two turns are not in the flat batch.
    deltas = rewards + gamma * next_in_segment(values, sequence_index, ends) - values
    advantages = reverse_discounted_sum(deltas, sequence_index, num_sequences, gamma * gae_lambda).detach()
    # The targets use the advantages as they are: whitened ones no longer have the unit of the reward.
    return ValueAdvantages(advantages=advantages, returns=advantages + values.detach())
