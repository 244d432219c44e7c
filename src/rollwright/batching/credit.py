"""From scored groups to one advantage per action token: the stage between the record and the learner.

`flatten` lays a batch of groups out flat (N action tokens of U turns of S trajectories of G groups), an estimator (see
`estimators`, `value_estimators`) judges the whole batch, and the learner takes the batch with their column.
Only what may be learned from takes part: faults, undecided scores and turns without a token of the policy are left out
here, once. What a turn of somebody else earned goes to the policy's last turn before it, so that every estimator counts
the same rewards. The clock is the policy's own, so nothing is discounted on the way. What came before the policy's
first turn is no consequence of anything it did, and counts nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from rollwright.batching.packing import segment_of
from rollwright.batching.token_batch import TokenBatch
from rollwright.contracts import Group, Trajectory, Turn
from rollwright.maths import segment_sum
from rollwright.maths.losses import kl_shaped_rewards


def members_to_learn_from(group: Group) -> list[Trajectory]:
    """The trajectories of a group that an update can use."""
    return [t for t in group.trajectories if t.learnable and policy_turns(t)]


def policy_turns(trajectory: Trajectory) -> list[tuple[Turn, float]]:
    """The turns in which the policy wrote a token, and what each earned: its own reward and those of the turns after it
    that the policy did not write (a guide's, a data set's, forced ones)."""
    return _counted(trajectory, lambda turn: turn.reward)


def _counted(trajectory: Trajectory, worth: Callable[[Turn], float]) -> list[tuple[Turn, float]]:
    played: list[tuple[Turn, list[float]]] = []
    for turn in trajectory.turns:
        # A turn of somebody else cannot be learned from, but the policy's earlier choice led to what it earned.
        if any(turn.policy_mask):
            played.append((turn, [worth(turn)]))
        elif played:
            played[-1][1].append(worth(turn))
    # fsum: the exact sum does not depend on the order of the parts, so a re-read store gives the same bits.
    return [(turn, math.fsum(parts)) for turn, parts in played]


def policy_return(trajectory: Trajectory) -> float:
    """What estimators compare: the undiscounted sum of rewards from the policy's first turn on."""
    return math.fsum(reward for _, reward in policy_turns(trajectory))


def with_members(groups: Sequence[Group], min_members: int) -> list[Group]:
    """The groups with so many trajectories to learn from, whole."""
    return [group for group in groups if len(members_to_learn_from(group)) >= min_members]


def can_whiten(groups: Sequence[Group]) -> bool:
    """Whether there are two action tokens to learn from: one alone has no spread to be divided by."""
    turns = (turn for g in groups for t in members_to_learn_from(g) for turn, _ in policy_turns(t))
    return sum(sum(turn.policy_mask) for turn in turns) > 1


def flatten(groups: Sequence[Group], *, min_members: int = 1) -> TokenBatch:
    """Lay the learnable trajectories out flat; groups with fewer than `min_members` of them are left out.

    Raises:
        ValueError: nothing is left to learn from.
    """
    # Groups are filtered by what is left of them: a sibling lost to a fault is no sibling to compare with.
    learnable = {g.id: members_to_learn_from(g) for g in groups}
    kept = {name: members for name, members in learnable.items() if len(members) >= min_members}
    trajectories = [t for members in kept.values() for t in members]
    if not trajectories:
        raise ValueError(f"none of {len(groups)} groups has {min_members} or more trajectories to learn from")
    played = [(s, turn, reward) for s, t in enumerate(trajectories) for turn, reward in policy_turns(t)]
    turns = tuple(turn for _, turn, _ in played)
    batch = TokenBatch.of(
        [segment_of(turn, sequence=s, mask=turn.policy_mask) for s, turn, _ in played],
        logprobs_sampled=torch.tensor([x for turn in turns for x in _of_the_policy(turn)], dtype=torch.float32),
        # Per turn and not per episode: an episode may span several versions of the weights.
        versions=[turn.version for turn in turns],
    )
    # A turn's reward lies on the last token that the policy wrote in it: later tokens of the turn were forced.
    last_tokens = batch.tokens_per_turn.cumsum(0) - 1
    earned = torch.tensor([reward for *_, reward in played], dtype=torch.float32)
    return replace(
        batch,
        rewards=torch.zeros(len(batch)).index_copy(0, last_tokens, earned),
        turn_rewards=earned,
        scores=torch.tensor([policy_return(t) for t in trajectories]),
        turns=turns,
        trajectories=tuple(trajectories),
        # Counted over the groups that are left, in the order of `group_ids`.
        group_index=torch.tensor([g for g, members in enumerate(kept.values()) for _ in members]),
        group_ids=tuple(kept),
    )


def cost_batch(batch: TokenBatch, cost_at: Callable[[Turn], float]) -> TokenBatch:
    """The same tokens with costs where the rewards were: every estimator then judges what was spent.

    A cost lies where a reward of its turn would lie, and a turn of somebody else costs the policy's turn before it.

    Args:
        batch: of `flatten`.
        cost_at: what a turn costs.
    """
    spent = [torch.tensor([cost for _, cost in _counted(t, cost_at)]) for t in batch.trajectories]
    per_turn = torch.cat(spent).float()
    last_tokens = batch.tokens_per_turn.cumsum(0) - 1
    return replace(
        batch,
        rewards=torch.zeros(len(batch)).index_copy(0, last_tokens, per_turn),
        turn_rewards=per_turn,
        scores=torch.tensor([math.fsum(one.tolist()) for one in spent]),
    )


def _of_the_policy(turn: Turn) -> list[float]:
    """The log-probs of the tokens that the policy chose."""
    return [x for x, chosen in zip(turn.action_logprobs, turn.policy_mask, strict=True) if chosen]


def with_kl(batch: TokenBatch, *, kl_coef: float) -> TokenBatch:
    """The batch with the KL to a reference inside its rewards: k1 of every action token, times `kl_coef`.

    Args:
        batch: with `logprobs_old`, by the policy that the update begins with, and `logprobs_ref`.

    Raises:
        ValueError: one of the two is not known.

    Sources: arXiv:1909.08593 (PPO), arXiv:2501.03262 (REINFORCE++), arXiv:2402.14740 (RLOO, summed per answer).
    """
    if batch.logprobs_old is None or batch.logprobs_ref is None:
        raise ValueError("a KL in the reward needs `logprobs_old` and `logprobs_ref` of every token")
    blank = torch.zeros_like(batch.rewards)
    # From rewards of 0 the function leaves minus the penalty: the sign is turned to get what is lost.
    penalties = -kl_shaped_rewards(blank, batch.logprobs_old, batch.logprobs_ref, kl_coef=kl_coef)
    # All three views change together: estimators read tokens, turns or whole returns, and must see the same rewards.
    return replace(
        batch,
        rewards=batch.rewards - penalties,
        turn_rewards=batch.turn_rewards - segment_sum(penalties, batch.turn_index, len(batch.segments)),
        scores=batch.scores - segment_sum(penalties, batch.sequence_index, batch.num_sequences),
    )


def states_after_cuts(batch: TokenBatch) -> dict[int, tuple[int, ...]]:
    """What the policy would have been given next, by number of the trajectory, for those that a limit cut.

    A critic reads the value of what follows behind these ids. Where the next prompt no longer fitted into the context
    (or was not recorded) they are the state right behind the last action, before the environment's answer: 0 would say
    that nothing follows, and reward an overflow wherever steps cost something.
    """
    # Only a limit leaves something behind the end; after a task's own end there is no state to ask for.
    cut = [s for s, t in enumerate(batch.trajectories) if t.stop_reason.is_truncation]
    return {s: _state_after(batch.trajectories[s]) for s in cut}


def _state_after(trajectory: Trajectory) -> tuple[int, ...]:
    last = trajectory.turns[-1]
    return trajectory.next_prompt_ids or last.prompt_ids + last.action_ids
