"""Critic targets and losses against hand-made numbers and the estimators that they reduce to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollwright.maths.advantages import gae, returns_to_go
from rollwright.maths.value_targets import expectile_loss, lambda_returns, polyak_update


def test_lambda_returns_by_hand() -> None:
    rewards, values, index = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.8]), torch.tensor([0, 0])
    cut = lambda_returns(rewards, values, index, torch.tensor([2.0]), gamma=0.5, gae_lambda=0.5)
    # G_1 = 1 + .5 * 2 = 2; G_0 = .5 * (.5 * .8 + .5 * 2) = .7
    torch.testing.assert_close(cut, torch.tensor([0.7, 2.0]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_lambda_returns_are_gae_plus_value(seed: int, gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 11, generator=generator, dtype=torch.float64)
    index = torch.randint(3, (11,), generator=generator)
    ends = torch.randn(3, generator=generator, dtype=torch.float64)
    targets = lambda_returns(rewards, values, index, ends, gamma=gamma, gae_lambda=lam)
    expected = gae(rewards, values, index, num_sequences=3, gamma=gamma, gae_lambda=lam, last_values=ends)
    torch.testing.assert_close(targets, expected.returns)


def test_lambda_one_without_bootstrap_is_the_return() -> None:
    rewards, values, index = torch.tensor([1.0, 2.0, 4.0]), torch.full((3,), 9.0), torch.tensor([0, 1, 0])
    targets = lambda_returns(rewards, values, index, torch.zeros(2), gamma=0.5, gae_lambda=1.0)
    torch.testing.assert_close(targets, returns_to_go(rewards, index, num_sequences=2, gamma=0.5))


def test_expectile_loss_by_hand() -> None:
    values = torch.tensor([0.0, 0.0], requires_grad=True)
    loss = expectile_loss(values, torch.tensor([2.0, -2.0]), expectile=0.9)
    torch.testing.assert_close(loss, torch.tensor([3.6, 0.4]))
    loss.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([-3.6, 0.4]))
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        expectile_loss(values, values, expectile=1.0)


def test_a_high_expectile_approaches_the_maximum() -> None:
    targets = torch.tensor([0.0, 1.0])
    value = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([value], lr=0.1)
    for _ in range(500):
        optimiser.zero_grad()
        expectile_loss(value.expand(2), targets, expectile=0.9).sum().backward()
        optimiser.step()
    # .9 * (1 - v) = .1 * v  ->  v = .9
    assert value.item() == pytest.approx(0.9, abs=1e-4)


def test_polyak_update() -> None:
    target, source = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    polyak_update([target], [source], polyak=0.25)
    polyak_update([target], [source], polyak=0.25)
    assert target.tolist() == [0.4375, 0.4375] and target.requires_grad and target.grad_fn is None
    with pytest.raises(ValueError, match="differ in shape"):
        polyak_update([target, torch.zeros(1)], [source, torch.zeros(2)], polyak=0.5)
    assert target.tolist() == [0.4375, 0.4375]
    with pytest.raises(ValueError, match="polyak"):
        polyak_update([target], [source], polyak=0.0)
