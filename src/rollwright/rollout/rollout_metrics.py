"""What the rollouts of one step looked like, as named numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from rollwright.batching import members_to_learn_from, policy_return, policy_turns
from rollwright.contracts import Group, StopReason, Trajectory


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the learnable trajectories of `groups`; shares of stop reasons over all of them."""
    everyone = [t for group in groups for t in group.trajectories]
    good = [t for t in everyone if t.learnable]
    metrics = {f"rollout/{reason.value}_frac": count for reason, count in stop_fractions(everyone).items()}
    metrics["rollout/episodes_count"] = float(len(everyone))
    metrics["rollout/groups_informative_frac"] = _mean([float(is_informative(group)) for group in groups])
    if not good:
        return metrics
    judged = [t.success for t in good if t.success is not None]
    turns = [turn for t in good for turn in t.turns]
    return metrics | {
        "rollout/num_turns_mean": _mean([len(t.turns) for t in good]),
        "rollout/action_tokens_mean": _mean([len(turn.action_ids) for turn in turns]),
        "rollout/prompt_tokens_mean": _mean([len(turn.prompt_ids) for turn in turns]),
        "rollout/action_cut_frac": _mean([float(turn.finish == "length") for turn in turns]),
        "rollout/nll_mean": -_mean([lp for turn in turns for lp in turn.action_logprobs]),
        "rollout/success_frac": _mean([float(s) for s in judged]),
        "reward/total_mean": _mean([t.total_reward for t in good]),
        "time/env_step_s": _mean([turn.timings.env_s for turn in turns]),
        "time/engine_wait_s": _mean([turn.timings.engine_wait_s for turn in turns]),
        **{f"reward/{part}_mean": value for part, value in _parts(good).items()},
    }


def is_informative(group: Group) -> bool:
    """Whether the members of a group that an update can use earned different returns, by what the estimators compare:
    only then can they be told apart."""
    return len({round(policy_return(t), 9) for t in members_to_learn_from(group)}) > 1


def met_again_frac(groups: Sequence[Group]) -> float:
    """Share of the policy's turns whose state another turn of their group was in too: where GiGPO's step part compares.

    The first turns of a group always meet: all of its episodes begin in one state.
    """
    met = everywhere = 0
    for group in groups:
        visits = Counter(turn.state_key for t in members_to_learn_from(group) for turn, _ in policy_turns(t))
        met += sum(count for count in visits.values() if count > 1)
        everywhere += visits.total()
    return met / max(1, everywhere)


def stop_fractions(trajectories: Sequence[Trajectory]) -> dict[StopReason, float]:
    """Share of each stop reason, all reasons listed."""
    counts = Counter(t.stop_reason for t in trajectories)
    return {reason: counts[reason] / max(1, len(trajectories)) for reason in StopReason}


def _parts(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean per trajectory of each named reward part."""
    sums: Counter[str] = Counter()
    for trajectory in trajectories:
        for turn in trajectory.turns:
            sums.update({name: value for name, value in turn.rewards.items()})  # type: ignore[dict-item]
    return {name: value / len(trajectories) for name, value in sums.items()}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
