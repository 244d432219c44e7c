"""From scored groups to one advantage per action token: the stage between the record and the learner.

`flatten` lays a batch of groups out flat (N action tokens of U turns of S trajectories of G groups), `group_advantages`
and `value_advantages` apply the named estimator to the whole batch, `to_segments` hands the result to the learner.
Only what may be learned from takes part: faults, undecided scores and turns without a token are left out here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rollwright import advantages as adv
from rollwright.batching import Segment
from rollwright.types import Group, Trajectory, Turn

GroupEstimator = Literal[
    "grpo", "dr_grpo", "rloo", "opo", "pass@k", "remax", "reinforce", "reinforce++", "reinforce++baseline", "gigpo"
]
ValueEstimator = Literal["gae", "turn_gae", "bilevel_v1", "bilevel_v2"]
NEEDS_SIBLINGS = ("grpo", "dr_grpo", "rloo", "opo", "pass@k", "reinforce++baseline", "gigpo")
"""Estimators whose baseline is the group: a group with one learnable member has none and is left out."""


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
    """[N] float32; a turn's reward lies on its last action token."""

    @property
    def sequence_index(self) -> Tensor:
        """[N] the trajectory of each action token."""
        return self.trajectory_index[self.turn_index]

    @property
    def scores(self) -> Tensor:
        """[S] float32, undiscounted returns."""
        return torch.tensor([t.total_reward for t in self.trajectories])

    @property
    def turn_rewards(self) -> Tensor:
        """[U] float32."""
        return torch.tensor([turn.reward for turn in self.turns])

    @property
    def lengths(self) -> Tensor:
        """[S] action tokens per trajectory."""
        return torch.bincount(self.sequence_index, minlength=len(self.trajectories))


def flatten(groups: Sequence[Group], *, min_members: int = 1) -> FlatBatch:
    """Lay the learnable trajectories out flat; groups with fewer than `min_members` of them are left out.

    Raises:
        ValueError: nothing is left to learn from.
    """
    learnable = {g.id: [t for t in g.trajectories if t.learnable and t.num_action_tokens] for g in groups}
    kept = {name: members for name, members in learnable.items() if len(members) >= min_members}
    trajectories = [t for members in kept.values() for t in members]
    if not trajectories:
        raise ValueError(f"none of {len(groups)} groups has {min_members} or more trajectories to learn from")
    turns = [(s, turn) for s, t in enumerate(trajectories) for turn in t.turns if any(turn.policy_mask)]
    counts = [sum(turn.policy_mask) for _, turn in turns]
    rewards = [[0.0] * (n - 1) + [turn.reward] for n, (_, turn) in zip(counts, turns, strict=True)]
    return FlatBatch(
        trajectories=tuple(trajectories),
        turns=tuple(turn for _, turn in turns),
        turn_index=torch.repeat_interleave(torch.arange(len(turns)), torch.tensor(counts)),
        trajectory_index=torch.tensor([s for s, _ in turns]),
        group_index=torch.tensor([g for g, members in enumerate(kept.values()) for _ in members]),
        group_ids=tuple(kept),
        rewards=torch.tensor([r for row in rewards for r in row], dtype=torch.float32),
    )


def _token_args(batch: FlatBatch) -> tuple[Tensor, Tensor]:
    return batch.rewards, batch.sequence_index


def group_advantages(
    batch: FlatBatch,
    how: GroupEstimator,
    *,
    gamma: float = 1.0,
    eps: float = 1e-6,
    gigpo_scale: Literal["none", "std"] = "none",
    step_weight: float = 1.0,
    greedy_scores: Mapping[str, float] | None = None,
) -> Tensor:
    """One advantage per action token by a critic-free estimator. -> [N] float32.

    Args:
        gamma: discount, per action token for reinforce and reinforce++, per turn for gigpo; unused by the others.
        eps: added to the standard deviation (grpo, gigpo with std).
        gigpo_scale, step_weight: see `advantages.gigpo`.
        greedy_scores: for remax, the return of the greedy episode of each group, by group id.

    Raises:
        ValueError: an unknown estimator, or remax without greedy scores.
    """
    num = len(batch.trajectories)
    per_trajectory: dict[str, Callable[[], Tensor]] = {
        "grpo": lambda: adv.grpo(batch.scores, batch.group_index, eps=eps),
        "dr_grpo": lambda: adv.dr_grpo(batch.scores, batch.group_index),
        "rloo": lambda: adv.rloo(batch.scores, batch.group_index),
        "opo": lambda: adv.opo(batch.scores, batch.lengths, batch.group_index),
        "pass@k": lambda: adv.pass_at_k_advantages(batch.scores, batch.group_index),
        "remax": lambda: adv.remax(batch.scores, _greedy(batch, greedy_scores)),
    }
    if how in per_trajectory:
        return per_trajectory[how]()[batch.sequence_index]
    if how == "reinforce":
        return adv.reinforce(*_token_args(batch), num_sequences=num, gamma=gamma)
    if how == "reinforce++":
        return adv.reinforce_plus_plus(*_token_args(batch), num_sequences=num, gamma=gamma)
    if how == "reinforce++baseline":
        return adv.reinforce_plus_plus_baseline(*_token_args(batch), batch.group_index, num_sequences=num)
    if how == "gigpo":
        return adv.gigpo(
            batch.turn_rewards,
            batch.trajectory_index,
            [turn.state_key for turn in batch.turns],
            batch.group_index,
            gamma=gamma,
            scale=gigpo_scale,
            step_weight=step_weight,
            eps=eps,
        ).total[batch.turn_index]
    raise ValueError(f"unknown advantage estimator {how!r}")


def _greedy(batch: FlatBatch, greedy_scores: Mapping[str, float] | None) -> Tensor:
    if greedy_scores is None:
        raise ValueError("remax needs the return of one greedy episode per group: pass greedy_scores")
    return torch.tensor([greedy_scores[batch.group_ids[g]] for g in batch.group_index.tolist()])


def value_advantages(
    batch: FlatBatch,
    values: Tensor,
    how: ValueEstimator,
    *,
    gamma: float,
    gae_lambda: float,
    turn_gamma: float,
    rewards: Tensor | None = None,
    bootstrap_truncated: bool = False,
) -> adv.ValueAdvantages:
    """Advantages and critic targets per action token, [N] each, not whitened.

    Args:
        values: [N] float, read one position before each token.
        rewards: [N] float in place of the batch's own (a KL penalty inside); None = the batch's own.
        bootstrap_truncated: an episode that a limit cut ends in the critic's value of its last state instead of 0.
            Off where the limit is part of the task.
    """
    earned = batch.rewards if rewards is None else rewards
    ends = _last_values(batch, values) if bootstrap_truncated else None
    if how == "gae":
        num = len(batch.trajectories)
        index = batch.sequence_index
        return adv.gae(earned, values, index, num_sequences=num, gamma=gamma, gae_lambda=gae_lambda, last_values=ends)
    args = (earned, values, batch.turn_index, batch.trajectory_index)
    if how == "turn_gae":
        return adv.turn_gae(*args, gamma=turn_gamma, gae_lambda=gae_lambda, last_values=ends)
    if how == "bilevel_v1":
        return adv.bilevel_gae_v1(*args, gamma=gamma, turn_gamma=turn_gamma, gae_lambda=gae_lambda, last_values=ends)
    return adv.bilevel_gae_v2(
        *args,
        gamma=gamma,
        gae_lambda=gae_lambda,
        turn_gamma=turn_gamma,
        turn_gae_lambda=gae_lambda,
        turn_reward="sum",
        last_values=ends,
    )


def _last_values(batch: FlatBatch, values: Tensor) -> Tensor:
    """[S] the critic's last reading of each truncated trajectory, 0 for terminated ones."""
    last = torch.zeros(len(batch.trajectories))
    last[batch.sequence_index] = values.float()  # later tokens overwrite earlier ones
    cut = torch.tensor([t.stop_reason.is_truncation for t in batch.trajectories])
    return adv.bootstrap_values(last, terminated=~cut, truncated=cut)


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
    """One `Segment` per turn, in the batch's order; each [N] tensor is cut into its turns' action tokens."""
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
