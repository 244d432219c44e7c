"""The blueprint's numbers for values and credit of steps, worked out by hand (arXiv:2501.11223 and its framework)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from rollwright.contracts.errors import ConfigError
from rollwright.critics.critic_body import policy_body
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.step_value import StepLoss, StepValue, ValueRows
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.maths import ranking_accuracy, signed_value, terminal_shares
from rollwright.maths.advantages import turn_gae
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model

STATES = ((5, 6, 7), (5, 6, 8, 9), (11,), (12, 13))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=2, context_length=64, seed=0)
    return path


def model(folder: Path, *, updates: int = 60, frozen: bool = True) -> StepValue:
    """A small value model; with a frozen body an update is one of the head alone, which takes no time."""
    torch.manual_seed(0)
    policy, _ = load_policy(folder, "float32")
    settings = TurnCriticSettings(heads={"v": 1}, width=64, deeper=(32,))
    kind = FrozenValueLearner if frozen else ValueLearner
    learner = kind(Accelerator(), policy_body(policy), settings, OptimiserSettings(learning_rate=1e-2))
    return StepValue(learner, updates=updates, batch_size=4)


def rows(*targets: float, counts: tuple[float, ...] | None = None) -> ValueRows:
    counted = torch.tensor(counts) if counts else torch.ones(len(targets))
    return ValueRows(states=STATES[: len(targets)], targets=torch.tensor(targets), counts=counted)


def draws() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_value_head_says_numbers_between_minus_one_and_one() -> None:
    found = signed_value(torch.tensor([0.0, 1.0, -2.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.4621, -0.7616]), atol=5e-5, rtol=0)
    # A target of 1 is only approached: some loss is left for every finite logit.
    assert 0 < float((1 - signed_value(torch.tensor(8.0, dtype=torch.float64))) ** 2) < 1e-5


@given(st.floats(-30, 30))
def test_it_is_two_sigmoids_less_one(logit: float) -> None:
    z = torch.tensor(logit, dtype=torch.float64)
    torch.testing.assert_close(signed_value(z), 2 * torch.sigmoid(z) - 1, atol=1e-12, rtol=0)


def test_credit_of_steps_and_of_their_tokens() -> None:
    """V = [.2, .4, .5], 1 at the end, gamma .96, lambda .95, for steps of 2, 1 and 3 tokens."""
    turn_index = torch.tensor([0, 0, 1, 2, 2, 2])
    values = torch.tensor([0.2, 0.4, 0.5])[turn_index]
    rewards = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    found = turn_gae(rewards, values, turn_index, torch.zeros(3, dtype=torch.long), gamma=0.96, gae_lambda=0.95)
    steps = torch.tensor([0.67283, 0.5360, 0.5])
    torch.testing.assert_close(found.advantages, steps[turn_index], atol=1e-5, rtol=0)
    # Targets of the value are returns, A + V, and not advantages.
    torch.testing.assert_close(found.returns, steps[turn_index] + values, atol=1e-5, rtol=0)
    deltas = turn_gae(rewards, values, turn_index, torch.zeros(3, dtype=torch.long), gamma=0.96, gae_lambda=0.0)
    torch.testing.assert_close(deltas.advantages[[0, 2, 3]], torch.tensor([0.184, 0.08, 0.5]), atol=1e-6, rtol=0)


def test_what_the_ends_below_say_of_a_node() -> None:
    """root -> (a -> (right, wrong, right), b -> (wrong), c, whose end nobody judged)."""
    parents = [None, 0, 0, 0, 1, 1, 1, 2, 3]
    outcomes = [None, None, None, None, True, False, True, False, None]
    found = terminal_shares(parents, outcomes)
    assert [None if one is None else (round(one.value, 6), one.count) for one in found] == [
        (0.0, 4),  # 2 of 4
        (0.333333, 3),  # 2 of 3
        (-1.0, 1),
        None,  # nothing judged below: no target
        (1.0, 1),
        (-1.0, 1),
        (1.0, 1),
        (-1.0, 1),
        None,
    ]
    with pytest.raises(ValueError, match="does not come before"):
        terminal_shares([1, None], [None, None])
    with pytest.raises(ValueError, match="2 parents and 1 outcomes"):
        terminal_shares([None, 0], [True])


def test_ranking_of_pairs() -> None:
    better, worse = torch.tensor([0.5, 0.1, 0.3, 0.2]), torch.tensor([0.1, 0.4, 0.3, 0.0])
    assert ranking_accuracy(better, worse) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert ranking_accuracy(torch.zeros(5), torch.zeros(5)) == 0.5, "a model that says the same of all"
    assert ranking_accuracy(torch.zeros(0), torch.zeros(0)) is None
    with pytest.raises(ValueError, match="shape"):
        ranking_accuracy(torch.zeros(2), torch.zeros(3))


def test_a_model_that_was_told_nothing_is_not_asked(folder: Path) -> None:
    with pytest.raises(ConfigError, match="before it was fitted"):
        model(folder).read(STATES)


def test_the_value_model_learns_what_it_is_told(folder: Path) -> None:
    value = model(folder)
    first = value.fit(rows(1.0, -1.0, 0.25, -0.5), draws=draws())["critic/loss"]
    last = value.fit(rows(1.0, -1.0, 0.25, -0.5), draws=draws())["critic/loss"]
    assert 0 < last < first / 10
    found = value.read(STATES)
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0, 0.25, -0.5]), atol=0.1, rtol=0)
    assert bool((found.abs() <= 1).all())


def test_rows_weigh_by_their_counts(folder: Path) -> None:
    """The same state with two targets: the value is their mean by counts, (3 * 1 + 1 * -1) / 4."""
    value = model(folder, updates=100)
    # Another state, as what the head sees is scaled by how states differ.
    told = ValueRows(
        states=(STATES[0], STATES[0], STATES[1]),
        targets=torch.tensor([1.0, -1.0, 0.0]),
        counts=torch.tensor([3.0, 1.0, 1.0]),
    )
    value.fit(told, draws=draws())
    assert float(value.read(STATES[:1])) == pytest.approx(0.5, abs=0.03)


def test_a_value_behind_its_bound_has_no_gradient() -> None:
    """Old value 0, bound 0.2: what has moved to 0.4 towards its target 1 rests, what moved away from it comes back."""
    logits = torch.logit((torch.tensor([0.4, 0.1, -0.4]) + 1) / 2).requires_grad_()
    columns = {"target": torch.ones(3), "old": torch.zeros(3), "share": torch.tensor([1.0, 1.0, 2.0])}
    losses = StepLoss(0.2)({"v": logits[None]}, columns)
    # max((1 - 0.4)^2, (1 - 0.2)^2), (1 - 0.1)^2, 2 (1 + 0.4)^2
    torch.testing.assert_close(losses, torch.tensor([0.64, 0.81, 3.92]), atol=1e-5, rtol=0)
    losses.sum().backward()
    assert logits.grad is not None
    assert [bool(slope) for slope in logits.grad] == [False, True, True]
    free = StepLoss(None)({"v": logits[None]}, columns)
    torch.testing.assert_close(free, torch.tensor([0.36, 0.81, 3.92]), atol=1e-5, rtol=0)


def test_rows_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lie in \[-1, 1\], got 1.5"):
        rows(0.0, 1.5)
    with pytest.raises(ValueError, match="never counted"):
        rows(0.0, 1.0, counts=(1.0, 0.0))
    with pytest.raises(ValueError, match="targets"):
        ValueRows(states=STATES, targets=torch.zeros(3), counts=torch.ones(4))
    with pytest.raises(ValueError, match="no further hidden layers"):
        TurnCriticSettings(width=0, deeper=(8,))


def test_a_value_model_goes_on_where_it_stood(folder: Path, tmp_path: Path) -> None:
    one, other = (model(folder, updates=3, frozen=False) for _ in range(2))
    one.fit(rows(1.0, -1.0), draws=draws())
    one.save_state(tmp_path)
    other.load_state(tmp_path)
    assert other.fitted
    for value in (one, other):
        value.fit(rows(-1.0, 1.0), draws=draws(), clip_eps=0.2)
    assert torch.equal(one.read(STATES), other.read(STATES))
