"""Advantage estimators against numbers worked out by hand, slow loops that read like the formula, and reductions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollwright.maths.advantages import (
    bilevel_gae_v1,
    bilevel_gae_v2,
    bootstrap_values,
    dr_grpo,
    gae,
    gigpo,
    grpo,
    opo,
    pass_at_k_advantages,
    reinforce,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    remax,
    returns_to_go,
    rloo,
    turn_gae,
    whiten,
)
from tests.maths.padded_layout import (
    flatten_padded,
    gae_padded,
    padded_sequence_index,
    returns_to_go_padded,
    unflatten_padded,
)


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def i(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def close(actual: Tensor, *expected: float, atol: float = 5e-7) -> None:
    torch.testing.assert_close(actual.double(), f(*expected), atol=atol, rtol=0)


REWARDS, VALUES = f(0, 0, 1), f(0.5, 0.6, 0.8)
ONE_SEQUENCE = i(0, 0, 0)


def test_token_gae_by_hand() -> None:
    result = gae(REWARDS, VALUES, ONE_SEQUENCE, num_sequences=1, gamma=1.0, gae_lambda=0.95)
    close(result.advantages, 0.4705, 0.39, 0.2)  # .2; .2 + .95 * .2; .1 + .95 * .39
    close(result.returns, 0.9705, 0.99, 1.0)
    close(whiten(result.advantages), 0.842364, 0.262789, -1.105153)
    shorter = gae(f(0.1, -0.2, 1), VALUES, ONE_SEQUENCE, num_sequences=1, gamma=0.9, gae_lambda=0.5)
    close(shorter.advantages, 0.1445, 0.01, 0.2)


@pytest.mark.parametrize("junk", [0.0, 7.0, -100.0, math.nan])
def test_gae_does_not_see_observation_tokens(junk: float) -> None:
    mask = i(1, 0, 0, 1, 1)
    result = gae_padded(f(0, 0, 0, 0, 1), f(0.5, junk, junk, 0.6, 0.8), mask, gamma=1.0, gae_lambda=0.95)
    close(result.advantages, 0.4705, 0, 0, 0.39, 0.2)
    close(result.returns, 0.9705, 0, 0, 0.99, 1.0)


def test_a_reward_on_a_masked_token_raises() -> None:
    with pytest.raises(ValueError, match=r"1 reward\(s\) stand on masked tokens, first at \[1\]"):
        gae_padded(f(0, 1, 0), VALUES, i(1, 0, 1), gamma=1.0, gae_lambda=1.0)
    with pytest.raises(ValueError, match="masked tokens"):
        returns_to_go_padded(f(0, 1, 0), i(1, 0, 1), gamma=1.0)


def test_gae_reduces_to_returns_and_to_temporal_differences() -> None:
    rewards, values, index = f(1, 2, 3, 4, 5), f(0.1, 0.2, 0.3, 0.4, 0.5), i(0, 1, 0, 1, 0)  # interleaved sequences
    monte_carlo = gae(rewards, values, index, num_sequences=2, gamma=1.0, gae_lambda=1.0)
    close(monte_carlo.advantages, 9 - 0.1, 6 - 0.2, 8 - 0.3, 4 - 0.4, 5 - 0.5)
    one_step = gae(rewards, values, index, num_sequences=2, gamma=1.0, gae_lambda=0.0)
    close(one_step.advantages, 1 + 0.3 - 0.1, 2 + 0.4 - 0.2, 3 + 0.5 - 0.3, 4 - 0.4, 5 - 0.5)


def test_only_truncated_sequences_bootstrap() -> None:
    ends = bootstrap_values(f(10, 10, 10), terminated=i(0, 1, 1) == 1, truncated=i(1, 0, 1) == 1)
    close(ends, 10, 0, 0)
    result = gae(f(0, 0), f(1, 1), i(0, 1), num_sequences=3, gamma=0.5, gae_lambda=1.0, last_values=ends)
    close(result.advantages, 0.5 * 10 - 1, -1)
    with pytest.raises(ValueError, match=r"\[1\] are neither terminated nor truncated"):
        bootstrap_values(f(1, 1), terminated=i(1, 0) == 1, truncated=i(0, 0) == 1)


def slow_gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, last: float) -> dict[int, float]:
    result: dict[int, float] = {}
    carry, following = 0.0, last
    for t in reversed(range(len(rewards))):
        if mask[t]:
            carry = float(rewards[t]) + gamma * following - float(values[t]) + gamma * lam * carry
            result[t], following = carry, float(values[t])
    return result


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 1), lam=st.floats(0, 1), last=st.floats(-3, 3))
def test_padded_gae_equals_the_slow_loop(seed: int, gamma: float, lam: float, last: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, 9, generator=generator) < 0.6
    rewards = torch.randn(4, 9, generator=generator, dtype=torch.float64) * mask
    values = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    ends = f(last, 0, -last, 1)
    result = gae_padded(rewards, values, mask, gamma=gamma, gae_lambda=lam, last_values=ends)
    expected = torch.zeros(4, 9, dtype=torch.float64)
    for row in range(4):
        for t, advantage in slow_gae(rewards[row], values[row], mask[row], gamma, lam, float(ends[row])).items():
            expected[row, t] = advantage
    torch.testing.assert_close(result.advantages, expected)
    torch.testing.assert_close(result.returns, (expected + values) * mask)


def test_turn_gae_by_hand() -> None:
    # Two turns of 2 and 3 tokens; only the first token's value of a turn counts, and the sum of its rewards.
    result = turn_gae(
        f(0, 0, 0.25, 0.25, 0.5), f(0.5, 9, 0.7, 9, 9), i(0, 0, 1, 1, 1), i(0, 0), gamma=1.0, gae_lambda=0.95
    )
    close(result.advantages, 0.485, 0.485, 0.3, 0.3, 0.3)
    close(result.returns, 0.985, 0.985, 1.0, 1.0, 1.0)


BILEVEL = {"rewards": f(0, 0.2, 0, 1), "values": f(0.5, 0.6, 0.7, 0.8)}
TURNS, TRAJECTORIES = i(0, 0, 1, 1), i(0, 0)


def test_bilevel_gae_by_hand() -> None:
    mask = i(0, 1, 1, 0, 1, 1)
    rewards, values = f(0, 0, 0.2, 0, 0, 1), f(0, 0.5, 0.6, 0, 0.7, 0.8)
    flat_rewards, flat_values = flatten_padded(rewards, mask), flatten_padded(values, mask)
    first = bilevel_gae_v1(flat_rewards, flat_values, TURNS, TRAJECTORIES, gamma=1.0, turn_gamma=0.9, gae_lambda=0.95)
    close(unflatten_padded(first.advantages, mask), 0, 0.56645, 0.491, 0, 0.29, 0.2)
    second = bilevel_gae_v2(
        flat_rewards,
        flat_values,
        TURNS,
        TRAJECTORIES,
        gamma=1.0,
        gae_lambda=0.95,
        turn_gamma=0.9,
        turn_gae_lambda=0.95,
        turn_reward="last_token",
    )
    close(unflatten_padded(second.advantages, mask), 0, 0.65575, 0.585, 0, 0.29, 0.2)
    turns = turn_gae(flat_rewards, flat_values, TURNS, TRAJECTORIES, gamma=0.9, gae_lambda=0.95)
    close(turns.advantages[[0, 2]], 0.5865, 0.3)


def test_bilevel_turn_reward_is_the_last_token_or_the_sum() -> None:
    common = {"gamma": 1.0, "gae_lambda": 1.0, "turn_gamma": 1.0, "turn_gae_lambda": 1.0}
    rewards, values = f(0, 0, 0.5, 0), f(0, 0, 0, 0)
    summed = bilevel_gae_v2(rewards, values, TURNS, TRAJECTORIES, turn_reward="sum", **common)
    close(summed.advantages, 0.5, 0.5, 0.5, 0)
    sparse = bilevel_gae_v2(rewards, values, TURNS, TRAJECTORIES, turn_reward="last_token", **common)
    close(sparse.advantages, 0, 0, 0.5, 0)


def test_bilevel_v1_without_discount_is_plain_gae() -> None:
    plain = gae(BILEVEL["rewards"], BILEVEL["values"], i(0, 0, 0, 0), num_sequences=1, gamma=1.0, gae_lambda=1.0)
    nested = bilevel_gae_v1(
        **BILEVEL, turn_index=TURNS, trajectory_index=TRAJECTORIES, gamma=1.0, turn_gamma=1.0, gae_lambda=1.0
    )
    torch.testing.assert_close(nested.advantages, plain.advantages)


def test_bilevel_v2_bootstraps_the_truncated_trajectory() -> None:
    ends = f(2.0, 0.0)
    result = bilevel_gae_v2(
        f(0, 0), f(0.5, 0.5), i(0, 1), i(0, 1),
        gamma=1.0, gae_lambda=1.0, turn_gamma=1.0, turn_gae_lambda=1.0, turn_reward="sum", last_values=ends,
    )  # fmt: skip
    close(result.advantages, 1.5, -0.5)


def test_turn_without_tokens_raises() -> None:
    with pytest.raises(ValueError, match=r"turns \[1\] have no action token"):
        turn_gae(f(1), f(0), i(0), i(0, 0), gamma=1.0, gae_lambda=1.0)


def test_group_estimators_by_hand() -> None:
    scores, group = f(1, 0, 0, 1), i(5, 5, 5, 5)
    close(grpo(scores, group, eps=1e-6), 0.866024, -0.866024, -0.866024, 0.866024)
    close(grpo(scores, group, eps=1e-4), 0.865875, -0.865875, -0.865875, 0.865875)
    close(dr_grpo(scores, group), 0.5, -0.5, -0.5, 0.5)
    close(rloo(scores, group), 0.666667, -0.666667, -0.666667, 0.666667)
    close(rloo(f(1, 0, 0, 0), group), 1, -1 / 3, -1 / 3, -1 / 3)


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo, pass_at_k_advantages])
def test_equal_scores_teach_nothing(estimator) -> None:
    assert estimator(torch.full((7,), 0.1), torch.zeros(7, dtype=torch.long)).abs().max() < 1e-7
    assert grpo(torch.full((7,), 0.1), torch.zeros(7, dtype=torch.long)).tolist() == [0.0] * 7


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo, pass_at_k_advantages])
def test_a_group_of_one_or_a_score_that_is_not_finite_raises(estimator) -> None:
    with pytest.raises(ValueError, match=r"group\(s\) \[3\] have a single trajectory"):
        estimator(f(1, 0, 1), i(2, 2, 3))
    with pytest.raises(ValueError, match="finite"):
        estimator(f(1, math.nan), i(2, 2))


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.floats(-10, 10), min_size=2, max_size=12),
    shift=st.floats(-5, 5),
    other=st.lists(st.floats(-10, 10), min_size=2, max_size=5),
)
def test_a_bonus_paid_to_every_sibling_changes_nothing(scores: list[float], shift: float, other: list[float]) -> None:
    base, neighbour = f(*scores), f(*other)
    group = torch.tensor([0] * len(scores) + [1] * len(other))
    for estimator in (dr_grpo, rloo):
        before = estimator(torch.cat([base, neighbour]), group)
        after = estimator(torch.cat([base + shift, neighbour]), group)
        torch.testing.assert_close(before, after, atol=1e-9, rtol=0)
        torch.testing.assert_close(before[: len(scores)].sum(), f(0)[0], atol=1e-9, rtol=0)


def test_remax_pass_at_k_and_opo_by_hand() -> None:
    close(remax(f(1, 0), f(0.25, 0.5)), 0.75, -0.5)
    close(pass_at_k_advantages(f(1, 0.25, 0, 3, 3), i(0, 0, 0, 1, 1)), 0.75, 0, 0, 0, 0)
    close(pass_at_k_advantages(f(2, 0), i(0, 0), divide_by_std=True, eps=0.0), math.sqrt(2), 0)
    close(opo(f(1, 0), i(1, 3), i(0, 0)), 0.75, -0.25)  # baseline (1 * 1 + 3 * 0) / 4
    with pytest.raises(ValueError, match="1 action token or more"):
        opo(f(1, 0), i(1, 0), i(0, 0))


def test_reinforce_plus_plus_by_hand() -> None:
    index = i(0, 0, 1)
    close(returns_to_go(f(0, 1, 0), index, num_sequences=2, gamma=1.0), 1, 1, 0)
    close(reinforce_plus_plus(f(0, 1, 0), index, num_sequences=2, gamma=1.0), 0.57735, 0.57735, -1.154701)
    close(returns_to_go_padded(f(0, 0, 1), i(1, 0, 1), gamma=0.5), 0.5, 0, 1)
    close(reinforce(f(1, 2), i(0, 0), num_sequences=1, gamma=0.5), 2, 2)


def test_reinforce_plus_plus_baseline_by_hand() -> None:
    # Scores 1 and 0 in one group: centred +-.5 on 2 and 1 tokens, whitened like [.5, .5, -.5].
    result = reinforce_plus_plus_baseline(f(0, 1, 0), i(0, 0, 1), i(9, 9), num_sequences=2)
    close(result, 0.57735, 0.57735, -1.154701)
    # A second group of equal scores: [.5, -.5, 0, 0] over its deviation sqrt(.5 / 3).
    two = reinforce_plus_plus_baseline(f(1, 0, 10, 10), i(0, 1, 2, 3), i(4, 4, 7, 7), num_sequences=4)
    close(two, 1.224745, -1.224745, 0, 0)


GIGPO = {
    "turn_rewards": f(0, 0, 1, 0, 0),  # A visits s0 s1 s2 and wins, B visits s0 s1 and does not
    "trajectory_index": i(0, 0, 0, 1, 1),
    "anchors": ["s0", "s1", "s2", "s0", "s1"],
    "group_index": i(0, 0),
    "gamma": 0.95,
}


def test_gigpo_by_hand() -> None:
    result = gigpo(**GIGPO, scale="none")
    close(result.episode, 0.5, 0.5, 0.5, -0.5, -0.5)
    close(result.step, 0.45125, 0.475, 0, -0.45125, -0.475)
    close(result.total, 0.95125, 0.975, 0.5, -0.95125, -0.975)
    assert result.lone_frac == pytest.approx(0.2)
    by_turns = gigpo(**GIGPO, scale="none", episode_mean="turns")
    close(by_turns.episode, 0.4, 0.4, 0.4, -0.6, -0.6)
    half = gigpo(**GIGPO, scale="none", step_weight=0.5)
    close(half.total, 0.725625, 0.7375, 0.5, -0.725625, -0.7375)


def test_gigpo_with_std_by_hand() -> None:
    # Two numbers at distance d have the unbiased std d / sqrt 2: each becomes +-1 / sqrt 2.
    result = gigpo(**GIGPO, scale="std", eps=0.0)
    h = math.sqrt(0.5)
    close(result.total, 2 * h, 2 * h, h, -2 * h, -2 * h)


def test_gigpo_compares_anchors_within_a_group_only() -> None:
    result = gigpo(f(1, 0, 5, 3), i(0, 1, 2, 3), ["same"] * 4, i(0, 0, 1, 1), gamma=1.0, scale="none")
    close(result.step, 0.5, -0.5, 1, -1)


@pytest.mark.parametrize(("scale", "estimator"), [("none", dr_grpo), ("std", grpo)])
def test_gigpo_without_repeated_anchors_is_grpo(scale: str, estimator) -> None:
    changed = GIGPO | {"anchors": ["a", "b", "c", "d", "e"], "turn_rewards": f(0.1, 0.2, 1, 0, 0.3)}
    result = gigpo(**changed, scale=scale)
    torch.testing.assert_close(result.total, estimator(f(1.3, 0.3), i(0, 0))[GIGPO["trajectory_index"]])
    assert result.lone_frac == 1.0


def test_gigpo_bad_input() -> None:
    with pytest.raises(ValueError, match="5 turns need as many anchors, got 1"):
        gigpo(**(GIGPO | {"anchors": ["s0"]}), scale="none")
    with pytest.raises(ValueError, match=r"trajectories \[2\] have no turns"):
        gigpo(**(GIGPO | {"group_index": i(0, 0, 0)}), scale="none")
    with pytest.raises(ValueError, match="single trajectory"):
        gigpo(**(GIGPO | {"group_index": i(0, 1)}), scale="none")


def expected_bandit_gradient(rewards: Tensor, estimator) -> tuple[Tensor, Tensor]:
    """Mean and variance of the gradient estimate, over all pairs of arms of a uniform softmax bandit."""
    arms = rewards.numel()
    gradients = []
    for first in range(arms):
        for second in range(arms):
            drawn = i(first, second)
            advantages = estimator(rewards[drawn])
            score = torch.nn.functional.one_hot(drawn, arms).double() - 1 / arms  # gradient of log pi at zero logits
            gradients.append((advantages[:, None] * score).mean(0))
    stacked = torch.stack(gradients)
    return stacked.mean(0), stacked.var(0, correction=0)


def test_bandit_gradients_by_enumeration() -> None:
    rewards, group = f(1, 0, 0.5), i(0, 0)
    close(expected_bandit_gradient(rewards, lambda r: rloo(r, group))[0], 1 / 6, -1 / 6, 0)
    close(expected_bandit_gradient(rewards, lambda r: dr_grpo(r, group))[0], 1 / 12, -1 / 12, 0)
    for scale in (1, 10):
        with_std = expected_bandit_gradient(scale * rewards, lambda r: grpo(r, group, eps=0.0))[0]
        close(with_std, 0.157135, -0.157135, 0)


def test_a_baseline_removes_variance_and_no_bias() -> None:
    rewards = f(11, 10)
    plain_mean, plain_variance = expected_bandit_gradient(rewards, lambda r: r)
    rloo_mean, rloo_variance = expected_bandit_gradient(rewards, lambda r: rloo(r, i(0, 0)))
    assert plain_mean[0].item() == pytest.approx(0.25) and rloo_mean[0].item() == pytest.approx(0.25)
    assert plain_variance[0].item() == pytest.approx(13.78125)
    assert rloo_variance[0].item() == pytest.approx(0.0625)


def test_padding_round_trip_and_interleaved_order() -> None:
    mask = i(1, 0, 1, 0, 1, 1).reshape(2, 3)
    padded = f(1, 9, 2, 9, 3, 4).reshape(2, 3)
    close(flatten_padded(padded, mask), 1, 2, 3, 4)
    assert padded_sequence_index(mask).tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(unflatten_padded(flatten_padded(padded, mask), mask), padded * mask)
    with pytest.raises(ValueError, match="3 flat entries cannot fill a mask with 4 places"):
        unflatten_padded(f(1, 2, 3), mask)
