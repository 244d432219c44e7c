"""From scored groups to one advantage per action token: the stage between the record and the learner.

`flatten` lays a batch of groups out flat (N action tokens of U turns of S trajectories of G groups), an estimator (see
`estimators`, `value_estimators`) judges the whole batch, `to_segments` hands the result to the learner.
Only what may be learned from takes part: faults, undecided scores and turns without a token of the policy are left out
here, once. What a turn of somebody else earned goes to the policy's last turn before it, so that every estimator counts
the same rewards. The clock is the policy's own, so nothing is discounted on the way. What came before the policy's
first turn is no consequence of anything it did, and counts nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rollwright.batching.packing import Segment
from rollwright.contracts import Group, Trajectory, Turn, require_choice
from rollwright.maths import require_length, segment_sum
from rollwright.maths.losses import kl_shaped_rewards


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatBatch:
    """A batch of groups, flat. Tensors are int64 unless said otherwise."""

    trajectories: tuple[Trajectory, ...]
    turns: tuple[Turn, ...]
    turn_index: Tensor
    """[N] the turn of each action token."""
    trajectory_index: Tensor
    """[U] the trajectory of each turn."""
    group_index: Tensor
    """[S] the group of each trajectory."""
    group_ids: tuple[str, ...]
    """[G] the ids of the groups that `group_index` counts."""
    rewards: Tensor
    """[N] float32; what a turn earned (see `turn_rewards`) lies on its last action token."""
    penalties: Tensor | None = None
    """[N] float32, taken off `rewards` already and off what is summed up here (see `with_kl`); None = none."""

    @property
    def sequence_index(self) -> Tensor:
        """[N] the trajectory of each action token."""
        return self.trajectory_index[self.turn_index]

    @property
    def scores(self) -> Tensor:
        """[S] float32, undiscounted returns from the policy's first turn on, without the penalties."""
        totals = [policy_return(t) for t in self.trajectories]
        return self._without_penalties(torch.tensor(totals), self.sequence_index)

    @property
    def turn_rewards(self) -> Tensor:
        """[U] float32, with what turns of others earned up to the policy's next one, without the penalties."""
        earned = [reward for t in self.trajectories for _, reward in policy_turns(t)]
        return self._without_penalties(torch.tensor(earned), self.turn_index)

    def _without_penalties(self, earned: Tensor, index: Tensor) -> Tensor:
        return earned if self.penalties is None else earned - segment_sum(self.penalties, index, len(earned))

    @property
    def lengths(self) -> Tensor:
        """[S] action tokens per trajectory."""
        return torch.bincount(self.sequence_index, minlength=len(self.trajectories))


def members_to_learn_from(group: Group) -> list[Trajectory]:
    """The trajectories of a group that an update can use."""
    return [t for t in group.trajectories if t.learnable and policy_turns(t)]


def policy_turns(trajectory: Trajectory) -> list[tuple[Turn, float]]:
    """The turns in which the policy wrote a token, and what each earned: its own reward and those of the turns after it
    that the policy did not write (a guide's, a data set's, forced ones)."""
    played: list[tuple[Turn, list[float]]] = []
    for turn in trajectory.turns:
        if any(turn.policy_mask):
            played.append((turn, [turn.reward]))
        elif played:
            played[-1][1].append(turn.reward)
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


def flatten(groups: Sequence[Group], *, min_members: int = 1) -> FlatBatch:
    """Lay the learnable trajectories out flat; groups with fewer than `min_members` of them are left out.

    Raises:
        ValueError: nothing is left to learn from.
    """
    learnable = {g.id: members_to_learn_from(g) for g in groups}
    kept = {name: members for name, members in learnable.items() if len(members) >= min_members}
    trajectories = [t for members in kept.values() for t in members]
    if not trajectories:
        raise ValueError(f"none of {len(groups)} groups has {min_members} or more trajectories to learn from")
    earned = [policy_turns(t) for t in trajectories]
    turns = [turn for played in earned for turn, _ in played]
    counts = [sum(turn.policy_mask) for turn in turns]
    paid = [reward for played in earned for _, reward in played]
    rewards = [[0.0] * (n - 1) + [reward] for n, reward in zip(counts, paid, strict=True)]
    return FlatBatch(
        trajectories=tuple(trajectories),
        turns=tuple(turns),
        turn_index=torch.repeat_interleave(torch.arange(len(turns)), torch.tensor(counts)),
        trajectory_index=torch.tensor([s for s, played in enumerate(earned) for _ in played]),
        group_index=torch.tensor([g for g, members in enumerate(kept.values()) for _ in members]),
        group_ids=tuple(kept),
        rewards=torch.tensor([r for row in rewards for r in row], dtype=torch.float32),
    )


def with_kl(batch: FlatBatch, logprobs: Tensor, logprobs_ref: Tensor, *, kl_coef: float) -> FlatBatch:
    """The batch with the KL to a reference inside its rewards: k1 of every action token, times `kl_coef`.

    Args:
        logprobs: [N] float, by the policy that the update begins with.
        logprobs_ref: [N] float, by the frozen reference.

    Sources: arXiv:1909.08593 (PPO), arXiv:2501.03262 (REINFORCE++), arXiv:2402.14740 (RLOO, summed per answer).
    """
    penalties = -kl_shaped_rewards(torch.zeros_like(batch.rewards), logprobs, logprobs_ref, kl_coef=kl_coef)
    return replace(batch, rewards=batch.rewards - penalties, penalties=penalties)


def states_after_cuts(batch: FlatBatch) -> dict[int, tuple[int, ...]]:
    """What the policy would have been given next, by number of the trajectory, for those that a limit cut.

    A critic reads the value of what follows behind these ids. Where the next prompt no longer fitted into the context
    (or was not recorded) they are the state right behind the last action, before the environment's answer: 0 would say
    that nothing follows, and reward an overflow wherever steps cost something.
    """
    cut = [s for s, t in enumerate(batch.trajectories) if t.stop_reason.is_truncation]
    return {s: _state_after(batch.trajectories[s]) for s in cut}


def _state_after(trajectory: Trajectory) -> tuple[int, ...]:
    last = trajectory.turns[-1]
    return trajectory.next_prompt_ids or last.prompt_ids + last.action_ids


def to_segments(
    batch: FlatBatch,
    advantages: Tensor | None = None,
    *,
    returns: Tensor | None = None,
    values: Tensor | None = None,
    logprobs_old: Tensor | None = None,
    logprobs_ref: Tensor | None = None,
    sequence: Literal["trajectory", "turn"] = "trajectory",
) -> list[Segment]:
    """One `Segment` per turn, in the batch's order; each [N] tensor is cut into its turns' action tokens.

    Raises:
        ValueError: a word for `sequence` that is not known, or a tensor of another length.
    """
    require_choice("sequence", sequence, ("trajectory", "turn"))
    given = {"advantages": advantages, "returns": returns, "values": values}
    given |= {"logprobs_old": logprobs_old, "logprobs_ref": logprobs_ref}
    for name, tensor in given.items():
        if tensor is not None:
            require_length(name, tensor, len(batch.turn_index), per="action token")
    counts = torch.bincount(batch.turn_index, minlength=len(batch.turns)).tolist()

    def cut(tensor: Tensor | None) -> list[tuple[float, ...] | None]:
        if tensor is None:
            return [None] * len(counts)
        spread = zip(tensor.detach().float().cpu().split(counts), batch.turns, strict=True)
        return [_spread(part.tolist(), turn.policy_mask) for part, turn in spread]

    columns = zip(cut(advantages), cut(returns), cut(values), cut(logprobs_old), cut(logprobs_ref), strict=True)
    return [
        Segment(
            prompt_ids=turn.prompt_ids,
            action_ids=turn.action_ids,
            action_mask=turn.policy_mask,
            logprobs_sampled=turn.action_logprobs,
            advantages=a if a is not None else (0.0,) * len(turn.action_ids),
            returns=r,
            values=v,
            logprobs_old=old,
            logprobs_ref=ref,
            sequence=u if sequence == "turn" else int(batch.trajectory_index[u]),
            version=turn.version,
        )
        for u, (turn, (a, r, v, old, ref)) in enumerate(zip(batch.turns, columns, strict=True))
    ]


def flat_tokens(per_segment: Sequence[Tensor], batch: FlatBatch) -> Tensor:
    """The learner's answer per segment (one value per action id) as the batch's flat [N] tensor."""
    parts = [t.cpu()[torch.tensor(turn.policy_mask)] for t, turn in zip(per_segment, batch.turns, strict=True)]
    return torch.cat(parts)


def _spread(values: Sequence[float], mask: Sequence[bool]) -> tuple[float, ...]:
    """Values of the unmasked tokens at their places, 0 elsewhere."""
    source = iter(values)
    return tuple(next(source) if keep else 0.0 for keep in mask)
