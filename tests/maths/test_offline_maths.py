"""Targets, advantages and losses of the off-policy methods against the cards' numbers and what they reduce to."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rollwright.maths.advantages import awr_weights, digirl, digirl_released, webrl, webrl_released
from rollwright.maths.losses import webrl_released_loss, webrl_squared, weighted_nll
from rollwright.maths.value_targets import (
    chi_square_loss,
    conservative_loss,
    expectile_loss,
    outcome_loss,
    td_target,
    total_variation_loss,
)

VALUES = torch.tensor([0.2, 0.3, 0.25, 0.6], dtype=torch.float64)
INDEX = torch.zeros(4, dtype=torch.long)
WON, LOST = torch.tensor([1.0]), torch.tensor([0.0])


def close(actual: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-6)


def test_digirl_in_both_forms() -> None:
    close(digirl(VALUES, INDEX, WON), [0.2125, 0.2125, 0.675, 1.0])
    close(digirl(VALUES, INDEX, LOST), [0.1, -0.05, 0.35, -0.6])
    close(digirl_released(VALUES, INDEX, WON), [0.175, 0.15, 0.8, 1.0])  # 1.35 before the clamp
    close(digirl_released(VALUES, INDEX, LOST), [0.05, 0.0, 0.30, 0.0])


def test_which_steps_digirl_keeps() -> None:
    def kept(advantages: Tensor, threshold: float) -> list[int]:
        return (1 + (advantages > threshold).nonzero()[:, 0]).tolist()

    assert kept(digirl(VALUES, INDEX, WON), 1 / 4) == [3, 4] and kept(digirl(VALUES, INDEX, LOST), 1 / 4) == [3]
    assert kept(digirl_released(VALUES, INDEX, WON), 0) == [1, 2, 3, 4]
    assert kept(digirl_released(VALUES, INDEX, LOST), 0) == [1, 3]


def test_digirl_with_lambda_zero_is_the_one_step_term_before_the_end() -> None:
    one_step = torch.tensor([0.1, -0.05, 0.35], dtype=torch.float64)
    torch.testing.assert_close(digirl(VALUES, INDEX, WON, decay=0.0)[:3], one_step)
    assert digirl(VALUES, INDEX, WON, decay=0.0)[3] == 1.0, "0^0 is 1: the successful step always scores 1"


def test_webrl_in_both_forms() -> None:
    close(webrl(VALUES, INDEX, WON), [0.45, 0.325, 0.55, 0.40])
    close(webrl(VALUES, INDEX, LOST), [-0.05, -0.175, 0.05, -0.6])
    close(webrl(VALUES, INDEX, WON, advantage_lambda=0.0), [0.8, 0.7, 0.75, 0.4])
    close(webrl(VALUES, INDEX, WON, advantage_lambda=1.0), [0.1, -0.05, 0.35, 0.4])
    close(webrl_released(VALUES, INDEX, WON), [1.0, 1.0, 1.0, 1.0])
    close(webrl_released(VALUES, INDEX, LOST), [1.0, -0.6, 1.0, -0.6])


def test_trajectories_do_not_see_each_other() -> None:
    values = torch.cat([VALUES, VALUES])[torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])]
    index = torch.tensor([0, 1] * 4)
    both = digirl(values, index, torch.tensor([1.0, 0.0]))
    close(both[0::2], [0.2125, 0.2125, 0.675, 1.0])
    close(both[1::2], [0.1, -0.05, 0.35, -0.6])


def test_awr_weights() -> None:
    close(awr_weights(torch.tensor([0.0, 1.0, 99.0]), temperature=1.0), [1.0, math.e, 100.0])
    assert awr_weights(torch.tensor([10.0]), temperature=1.0, cap=None).item() == pytest.approx(math.exp(10), rel=1e-5)


def solve(loss: Callable[[Tensor, Tensor], Tensor], targets: list[float]) -> float:
    """The value at which the mean loss over equally likely targets is smallest."""
    data = torch.tensor(targets, dtype=torch.float64)
    grid = torch.linspace(-1.0, 5.0, 60_001, dtype=torch.float64)
    losses = torch.stack([loss(grid, torch.full_like(grid, q)) for q in data]).mean(dim=0)
    return float(grid[losses.argmin()])


def test_fixed_points_of_the_value_losses() -> None:
    q = [0.0, 1.0, 2.0, 4.0]
    assert solve(lambda v, t: total_variation_loss(v, t, alpha=0.6), q) == pytest.approx(1.0, abs=1e-3)
    assert 2.0 - 1e-3 <= solve(lambda v, t: total_variation_loss(v, t, alpha=0.8), q) <= 4.0 + 1e-3
    assert solve(lambda v, t: total_variation_loss(v, t, alpha=0.9), q) == pytest.approx(4.0, abs=1e-3)
    assert solve(lambda v, t: chi_square_loss(v, t, alpha=0.6), q) == pytest.approx(2.0, abs=1e-3)
    assert solve(lambda v, t: chi_square_loss(v, t, alpha=0.8), q) == pytest.approx(4.0, abs=1e-3)
    zeros_and_ones = [1.0] * 3 + [0.0] * 7
    for tau, expected in ((0.5, 0.3), (0.7, 0.5), (0.9, 0.794118), (0.95, 0.890625)):
        found = solve(lambda v, t, tau=tau: expectile_loss(v, t, expectile=tau), zeros_and_ones)  # type: ignore[misc]
        assert found == pytest.approx(expected, abs=1e-3)


def test_outcome_loss_converges_to_the_share_of_successes() -> None:
    logit = torch.zeros((), requires_grad=True)
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0])
    optimiser = torch.optim.SGD([logit], lr=1.0)
    for _ in range(400):
        optimiser.zero_grad()
        outcome_loss(logit.expand(4), labels).mean().backward()
        optimiser.step()
    assert torch.sigmoid(logit).item() == pytest.approx(0.25, abs=1e-3)


def test_the_conservative_gradient_is_softmax_minus_the_action() -> None:
    q = torch.randn(3, 5, dtype=torch.float32, requires_grad=True)
    actions = torch.tensor([0, 4, 2])
    conservative_loss(q, actions).sum().backward()
    expected = q.detach().softmax(dim=-1) - torch.nn.functional.one_hot(actions, 5)
    torch.testing.assert_close(q.grad, expected)


def test_td_target_stops_at_the_end() -> None:
    target = td_target(torch.tensor([1.0, 1.0]), torch.tensor([4.0, math.nan]), torch.tensor([False, True]), gamma=0.5)
    assert target.tolist() == [3.0, 1.0]


class Chain:
    """CHAIN-3: F moves on (from state 2 to the end), B moves back; reward -1 a turn, 0 on the one that ends."""

    gamma = 0.95
    forward = ((1, -1.0, False), (2, -1.0, False), (0, 0.0, True))
    back = ((0, -1.0, False), (0, -1.0, False), (1, -1.0, False))

    def q(self, values: Tensor) -> Tensor:
        """[3, 2] from state values, F first."""
        table = torch.zeros(3, 2, dtype=torch.float64)
        for action, moves in enumerate((self.forward, self.back)):
            following = torch.stack([values[to] for to, _, _ in moves])
            rewards = torch.tensor([r for _, r, _ in moves], dtype=torch.float64)
            done = torch.tensor([d for _, _, d in moves])
            table[:, action] = td_target(rewards, following, done, gamma=self.gamma)
        return table


def iterate(improve: Callable[[Tensor], Tensor], rounds: int = 500) -> Tensor:
    values = torch.zeros(3, dtype=torch.float64)
    for _ in range(rounds):
        values = improve(Chain().q(values))
    return values


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.5, [-7.529148, -6.216426, -3.452802]), (0.8, [-3.155316, -2.047113, -0.588952]), (1.0, [-1.95, -1.0, 0.0])],
)
def test_chain_values_under_a_policy(p: float, expected: list[float]) -> None:
    values = iterate(lambda q: p * q[:, 0] + (1 - p) * q[:, 1])
    close(values, expected)
    if p == 0.5:
        close(Chain().q(values)[:, 0], [-6.905605, -4.280162, 0.0])
        close(Chain().q(values)[:, 1], [-8.152690, -8.152690, -6.905605])


def test_expectile_on_two_equal_actions_is_the_policy_of_that_probability() -> None:
    def expectile(q: Tensor, tau: float = 0.8) -> Tensor:
        high, low = q.max(dim=1).values, q.min(dim=1).values
        return tau * high + (1 - tau) * low  # the expectile of two equally frequent numbers

    close(iterate(expectile), [-3.155316, -2.047113, -0.588952])
    grid = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    losses = expectile_loss(grid, torch.ones_like(grid), expectile=0.8) + expectile_loss(
        grid, torch.zeros_like(grid), expectile=0.8
    )
    assert grid[losses.argmin()].item() == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0.5, [-2.884943, -1.669145, -0.343743]),
        (1.0, [-3.583578, -2.251513, -0.650731]),
        (5.0, [-5.723768, -4.314997, -1.925926]),
    ],
)
def test_soft_values_of_the_chain(beta: float, expected: list[float]) -> None:
    close(iterate(lambda q: beta * (torch.logsumexp(q / beta, dim=1) - math.log(2))), expected)


REFERENCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def bandit(advantages: Tensor, beta: float) -> Tensor:
    """The policy over three arms that minimises the squared form with actions drawn from the reference."""
    logits = REFERENCE.log().clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimiser.zero_grad()
        logprobs = logits.log_softmax(dim=0)
        arms, mask = torch.arange(3), torch.ones(3, dtype=torch.bool)
        losses = webrl_squared(logprobs, REFERENCE.log(), advantages, mask, arms, num_sequences=3, beta=beta)
        loss = (REFERENCE * losses).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return logits.detach().softmax(dim=0)


def test_webrl_reaches_the_soft_optimum() -> None:
    q = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    soft_value = torch.log((REFERENCE * q.exp()).sum())
    assert soft_value.item() == pytest.approx(0.620115, abs=1e-6)
    close(bandit(q - soft_value, 1.0), [0.731059, 0.161365, 0.107577])


@pytest.mark.parametrize(
    ("beta", "expected"), [(1.0, [0.713759, 0.171745, 0.114496]), (10.0, [0.524948, 0.285031, 0.190021])]
)
def test_webrl_with_plain_advantages(beta: float, expected: list[float]) -> None:
    advantages = torch.tensor([0.5, -0.5, -0.5], dtype=torch.float64)
    torch.testing.assert_close(bandit(advantages, beta), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-6)


def test_the_gradient_of_the_squared_form_at_the_reference_is_a_policy_gradient() -> None:
    torch.manual_seed(0)
    logprobs = (-torch.rand(6, dtype=torch.float64)).requires_grad_()
    advantages, index = torch.tensor([0.7, -0.4], dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1])
    mask = torch.tensor([True, True, False, True, True, True])
    losses = webrl_squared(logprobs, logprobs.detach(), advantages, mask, index, num_sequences=2, beta=3.0)
    losses.sum().backward()
    expected = -2 * 3.0 * advantages[index] * mask
    torch.testing.assert_close(logprobs.grad, expected)


def tokens(total: float, count: int = 10) -> Tensor:
    return torch.full((count,), total / count, dtype=torch.float64)


@pytest.mark.parametrize(("now", "reference", "expected"), [(-4.0, -5.0, 0.405), (-1.0, -1.5, 0.05625)])
def test_the_released_webrl_loss(now: float, reference: float, expected: float) -> None:
    mask, index = torch.ones(10, dtype=torch.bool), torch.zeros(10, dtype=torch.long)
    loss = webrl_released_loss(tokens(now), tokens(reference), torch.tensor([1.0]), mask, index, num_sequences=1)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_the_released_webrl_loss_is_blind_to_failures() -> None:
    now = tokens(-4.0).requires_grad_()
    mask, index = torch.ones(10, dtype=torch.bool), torch.zeros(10, dtype=torch.long)
    loss = webrl_released_loss(now, tokens(-5.0), torch.tensor([-0.6]), mask, index, num_sequences=1)
    loss.sum().backward()
    assert loss.item() == 0.0 and not now.grad.any()


def test_weighted_nll_passes_no_gradient_through_its_weights() -> None:
    logprobs, weights = torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([0.5, 0.0], requires_grad=True)
    weighted_nll(logprobs, weights).sum().backward()
    assert logprobs.grad.tolist() == [-0.5, 0.0] and weights.grad is None
