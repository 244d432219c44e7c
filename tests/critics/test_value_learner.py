"""Turn-level critics: what is read where, what an update changes, and how the slow copy follows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from rollwright.contracts.errors import ConfigError, NonFiniteUpdate
from rollwright.critics.critic_body import policy_body
from rollwright.critics.turn_critic import TurnCritic, TurnCriticSettings, ValueLearner
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.maths.value_targets import outcome_loss, td_target
from rollwright.models.loading import load_policy
from rollwright.models.scoring import body_of
from rollwright.models.tiny_model import make_tiny_model

STATES = ((5, 6, 7), (5, 6, 8, 9), (11,))
ACTION = (12, 13)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=2, context_length=64, seed=0)
    return path


def learner(folder: Path, *, polyak: float | None = None, rate: float = 3e-3, **shape: object) -> ValueLearner:
    torch.manual_seed(0)
    policy, _ = load_policy(folder, "float32")
    settings = TurnCriticSettings(**({"heads": {"v": 2, "q": 2}, "width": 32} | shape))  # type: ignore[arg-type]
    return ValueLearner(
        Accelerator(), policy_body(policy), settings, OptimiserSettings(learning_rate=rate), polyak=polyak
    )


def test_every_head_starts_at_its_bias(folder: Path) -> None:
    values = learner(folder, bias=-4.4).read(STATES)
    assert {name: rows.shape for name, rows in values.items()} == {"v": (2, 3), "q": (2, 3)}
    assert all((rows == -4.4).all() for rows in values.values())


@torch.no_grad()
def test_values_are_read_at_the_last_token(folder: Path) -> None:
    torch.manual_seed(1)
    policy, _ = load_policy(folder, "float32")
    critic = learner(folder)
    for parameter in critic._fast.module.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    module = critic._fast.module
    assert isinstance(module, TurnCritic)
    expected = []
    for ids in (*STATES, STATES[0] + ACTION):
        hidden = module.body(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]
        expected.append(module.heads["v"][1](hidden).item())
    # A state, and the same state with an action behind it, share their prefix in one packed row.
    values = critic.read((*STATES, STATES[0] + ACTION))
    torch.testing.assert_close(values["v"][1], torch.tensor(expected), rtol=0, atol=1e-5)
    assert len({round(x, 4) for x in expected}) == 4
    again = critic.read((STATES[1], STATES[0], list(STATES[1])))["v"]  # equal ones are read once
    torch.testing.assert_close(again, values["v"][:, [1, 0, 1]], rtol=0, atol=1e-5)
    assert body_of(policy) is not module.body


@pytest.mark.long
def test_only_the_trained_head_learns(folder: Path) -> None:
    critic = learner(folder)
    targets = torch.tensor([1.0, -2.0, 0.5])
    losses = [critic.update({"v": (STATES, targets)})["critic/loss"] for _ in range(150)]
    assert losses[-1] < 1e-3 < losses[0]
    assert (critic.read(STATES)["v"] - targets).abs().max() < 0.05
    assert (critic.read(STATES)["q"] == 0).all(), "its head never moved off zero"
    assert critic.step == 150


def test_micro_batches_change_no_gradient(folder: Path) -> None:
    targets = torch.tensor([1.0, -2.0, 0.5])
    whole, cut = learner(folder), learner(folder)
    cut._reader.token_budget = 4
    for critic in (whole, cut):
        critic.update({"v": (STATES, targets)})
    for one, other in zip(whole._fast.module.parameters(), cut._fast.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_the_slow_copy_follows_by_tau(folder: Path) -> None:
    critic = learner(folder, polyak=0.25, rate=1e-2)
    critic.update({"v": (STATES, torch.tensor([3.0, 3.0, 3.0]))})
    fast, slow = critic._fast.module, critic._slow
    assert slow is not None
    gap = sum((a - b).abs().sum().item() for a, b in zip(fast.parameters(), slow.parameters(), strict=True))
    assert gap > 0
    for _ in range(3):
        critic._follow()
    left = sum((a - b).abs().sum().item() for a, b in zip(fast.parameters(), slow.parameters(), strict=True))
    assert left == pytest.approx(gap * 0.75**3, rel=1e-3)
    with pytest.raises(ConfigError, match="no slow copy"):
        learner(folder).read(STATES, slow=True)


@pytest.mark.long
def test_a_bootstrapped_critic_finds_the_values_of_the_chain(folder: Path) -> None:
    """CHAIN-3 under a policy that moves on with probability 0.8: V = (-3.155, -2.047, -0.589)."""
    critic = learner(folder, polyak=0.3, rate=1e-2, heads={"v": 1}, bias=-2.0)
    moves = [(0, 1, -1.0, False), (1, 2, -1.0, False), (2, 0, 0.0, True)]
    back = [(0, 0, -1.0, False), (1, 0, -1.0, False), (2, 1, -1.0, False)]
    weights = torch.tensor([0.8] * 3 + [0.2] * 3)
    states, following, rewards, done = (list(column) for column in zip(*moves, *back, strict=True))
    for _ in range(300):
        after = critic.read([STATES[s] for s in following], slow=True)["v"][0]
        targets = td_target(torch.tensor(rewards), after, torch.tensor(done), gamma=0.95)
        critic.update({"v": ([STATES[s] for s in states], targets)}, weights={"v": weights})
    found = critic.read(STATES)["v"][0]
    torch.testing.assert_close(found, torch.tensor([-3.155316, -2.047113, -0.588952]), rtol=0, atol=0.05)


def test_a_resumed_critic_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    targets = torch.tensor([1.0, -2.0, 0.5])
    straight, first, second = (learner(folder, polyak=0.1) for _ in range(3))
    for _ in range(4):
        straight.update({"q": (STATES, targets)})
    for _ in range(2):
        first.update({"q": (STATES, targets)})
    first.save_state(tmp_path)
    second.load_state(tmp_path)
    for _ in range(2):
        second.update({"q": (STATES, targets)})
    assert torch.equal(straight.read(STATES)["q"], second.read(STATES)["q"])
    assert torch.equal(straight.read(STATES, slow=True)["q"], second.read(STATES, slow=True)["q"])
    assert second.step == 4


def test_a_broken_loss_moves_nothing(folder: Path) -> None:
    critic = learner(folder)
    before = [p.detach().clone() for p in critic._fast.module.parameters()]
    with pytest.raises(NonFiniteUpdate, match="critic loss"):
        critic.update({"v": (STATES, torch.tensor([1.0, float("nan"), 0.0]))})
    assert all(torch.equal(a, b) for a, b in zip(before, critic._fast.module.parameters(), strict=True))
    with pytest.raises(ValueError, match="empty"):
        critic.read([()])


def test_each_head_learns_from_its_own_rows_by_its_own_loss(folder: Path) -> None:
    """2 rows of q at 3, 1 row of v as a probability of 1: the means 9 * 2 heads and log 2 * 2 heads, added."""
    critic = learner(folder)
    critic.losses["v"] = outcome_loss
    rows = {"q": (STATES[:2], torch.tensor([[3.0, 3.0]])), "v": (STATES[2:], torch.tensor([1.0]))}
    first = critic.update(rows)["critic/loss"]
    assert first == pytest.approx(2 * 9.0 + 2 * math.log(2), rel=1e-5)
    for _ in range(150):
        critic.update(rows)
    values = critic.read(STATES)
    assert (values["q"][:, :2] - 3.0).abs().max() < 0.1 and bool((values["v"][:, 2] > 2.0).all())
    alone = learner(folder).update(
        {"q": (STATES[:2], torch.tensor([3.0, 3.0]))}, weights={"q": torch.tensor([1.0, 0.0])}
    )
    assert alone["critic/loss"] == pytest.approx(2 * 9.0 / 2)


def test_rows_without_a_target_of_their_own_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="'v' has 3 sequences, 2 targets and 3 weights"):
        learner(folder).update({"v": (STATES, torch.zeros(2))})
