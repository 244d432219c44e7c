"""What off-policy recipes share: stored turns as segments, objectives on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from rollwright.contracts.record import Trajectory
from rollwright.critics.outcome_values import outcomes
from rollwright.critics.replay_updates import WebRLObjective, WeightedLikelihood, imitate, stored_batch
from rollwright.learner.learner import Learner
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.store.replay import TurnTable, valid_turns
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders


def episode(name: str, *turns: tuple[tuple[int, ...], tuple[int, ...]], reward: float, success: bool) -> Trajectory:
    paid = [None] * (len(turns) - 1) + [reward]
    made = [builders.turn(*ids, earned) for ids, earned in zip(turns, paid, strict=True)]
    return builders.episode(name, *made, success=success)


@pytest.fixture
def table(tmp_path: Path) -> TurnTable:
    store = TrajectoryStore(tmp_path / "store")
    good = episode("good", ((5, 6), (7, 8)), ((5, 9), (10,)), reward=1.0, success=True)
    bad = episode("bad", ((5, 6), (11, 12)), reward=0.0, success=False)
    store.append([good, bad])
    return TurnTable(store)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=2, context_length=64, seed=0)
    return path


def learner(folder: Path, rate: float = 1e-2) -> Learner:
    policy, _ = load_policy(folder, "float32")
    return Learner(Accelerator(), policy, learning_rate=rate)


def test_imitation_raises_what_is_weighted_and_leaves_the_rest(table: TurnTable, folder: Path) -> None:
    model, turns = learner(folder), valid_turns(table)
    batch = stored_batch(table.transitions(turns), [1.0, 1.0, 0.0])
    before = [float(row.sum()) for row in batch.by_turn(model.logprobs(batch))]
    metrics = imitate(
        model,
        table,
        turns,
        np.array([1.0, 1.0, 0.0]),
        updates=15,
        batch_size=8,
        draws=np.random.default_rng(0),
        loss=WeightedLikelihood(),
    )
    after = [float(row.sum()) for row in batch.by_turn(model.logprobs(batch))]
    assert after[0] > before[0] + 1 and after[1] > before[1] + 1 and after[2] < before[2]
    assert 0 < metrics["policy/kept_frac"] < 1
    assert not imitate(
        model,
        table,
        turns,
        np.zeros(3),
        updates=5,
        batch_size=8,
        draws=np.random.default_rng(0),
        loss=WeightedLikelihood(),
    ), "nothing worth imitating, no step"


def test_the_sum_over_an_action_counts_turns_of_weight_zero(table: TurnTable, folder: Path) -> None:
    """Loss = -(1 / batch) * sum of the kept actions' log-probs, as the DigiRL card has it."""
    model = learner(folder)
    batch = stored_batch(table.transitions([0, 1, 2]), [1.0, 0.0, 0.0])
    expected = -float(batch.by_turn(model.logprobs(batch))[0].sum()) / 3
    assert model.update(batch, WeightedLikelihood())["optim/loss"] == pytest.approx(expected, abs=1e-5)
    token_mean = WeightedLikelihood(aggregation="token-mean")
    again = learner(folder)
    assert again.update(batch, token_mean)["optim/loss"] == pytest.approx(expected * 3 / 5, abs=1e-5)


@pytest.mark.parametrize(("form", "expected"), [("squared", (1.0 + 0.25) / 2), ("released", 0.5 / 2)])
def test_webrl_at_the_reference_through_the_learner(table: TurnTable, folder: Path, form: str, expected: float) -> None:
    """At pi = pi_ref the log-ratio is 0: the squared form leaves A^2, the released one 0.5 for a target of 1."""
    model = learner(folder)
    turns = table.transitions([0, 2])
    weights = [1.0, -0.5] if form == "squared" else [1.0, -0.6]
    batch = stored_batch(turns, weights)
    batch = batch.with_columns(logprobs_ref=model.logprobs(batch))
    loss = model.update(batch, WebRLObjective(form=form, num_tokens=2.0))["optim/loss"]  # type: ignore[arg-type]
    assert loss == pytest.approx(expected, abs=1e-5)


def test_outcomes_take_the_verdict_before_the_return(table: TurnTable) -> None:
    assert outcomes(table).tolist() == [1.0, 0.0]


def test_reference_log_probs_travel_with_their_turn(table: TurnTable) -> None:
    batch = stored_batch(table.transitions([0, 1]), [0.5, -1.0])
    batch = batch.with_columns(logprobs_ref=torch.tensor([-1.0, -2.0, -3.0]))
    assert batch.logprobs_ref is not None
    assert [row.tolist() for row in batch.by_turn(batch.logprobs_ref)] == [[-1.0, -2.0], [-3.0]]
    assert [row.tolist() for row in batch.by_turn(batch.advantages)] == [[0.5, 0.5], [-1.0]]
    with pytest.raises(ValueError, match="`logprobs_ref` needs one number per action token"):
        batch.with_columns(logprobs_ref=torch.zeros(2))
    with pytest.raises(ValueError, match="2 turns need as many weights, got 1"):
        stored_batch(table.transitions([0, 1]), [0.5])
