"""The multiplier and the mixed advantage of constrained RL against worked numbers (arXiv:2310.12773)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from rollwright.batching import cost_batch, flatten, with_kl
from rollwright.contracts import ConfigError, Group, Span
from rollwright.learner import ConstraintSettings, Multiplier
from rollwright.maths import constrained_advantages, linear_dual_step, log_dual_step
from tests import builders


def stepped(multiplier: float, cost: float, *, most: float = 5.0) -> float:
    """One log step towards a limit of 0."""
    return log_dual_step(multiplier, cost=cost, limit=0.0, rate=0.1, floor=1e-4, most=most)


def spent(*costs: float, name: str = "g") -> Group:
    """Siblings of one turn each, with these costs."""
    played = [builders.turn(reward=1.0, costs={"harm": cost}) for cost in costs]
    return builders.group(*(builders.episode(f"{name}{i}", one) for i, one in enumerate(played)), name=name)


def test_the_log_step_of_the_source() -> None:
    assert stepped(1.0, 0.5) == pytest.approx(1.051271, abs=1e-6)
    assert stepped(1.0, -0.5) == pytest.approx(0.951229, abs=1e-6)
    assert stepped(0.7, 0.0) == pytest.approx(0.7)
    assert stepped(4.9, 10.0) == 5.0
    assert stepped(4.9, 1e300) == 5.0, "a huge cost ends at the cap and overflows nothing"
    assert stepped(1.0, -1e300) == pytest.approx(1e-4), "and a huge saving at the floor"
    assert stepped(0.0, 1.0) > 1e-4, "from 0 the multiplier comes back by way of the floor"


def test_the_linear_step_reaches_0_and_the_cap() -> None:
    assert linear_dual_step(1.0, cost=0.5, limit=0.1, rate=0.5, most=5.0) == pytest.approx(1.2)
    assert linear_dual_step(0.1, cost=0.0, limit=1.0, rate=0.5, most=5.0) == 0.0
    assert linear_dual_step(4.9, cost=9.0, limit=0.0, rate=0.5, most=5.0) == 5.0


def test_the_mix_of_the_source() -> None:
    reward, cost = torch.tensor([1.0]), torch.tensor([0.5])
    assert constrained_advantages(reward, cost, 1.051271).item() == pytest.approx(0.231254, abs=1e-6)
    assert torch.equal(constrained_advantages(reward, cost, 0.0), reward)
    assert constrained_advantages(reward, cost, 1e9).item() == pytest.approx(-0.5, abs=1e-6)
    with pytest.raises(ValueError, match="0 or more"):
        constrained_advantages(reward, cost, -0.1)


@pytest.mark.parametrize("multiplier", [0.0, 1.0, 5.0])
def test_a_kl_in_halves_weighs_the_same_whatever_the_multiplier(multiplier: float) -> None:
    # One token, reward and cost 0, beta = .02, log-ratio .3, values 0: A = -.003.
    batch = flatten([builders.group(builders.episode("e", builders.turn(reward=0.0, costs={"harm": 0.0})))])
    batch = batch.with_columns(logprobs_old=torch.tensor([-0.7]), logprobs_ref=torch.tensor([-1.0]))
    costs = with_kl(cost_batch(batch, lambda turn: turn.costs["harm"]), kl_coef=-0.01)
    rewards = with_kl(batch, kl_coef=0.01)
    assert (rewards.scores.item(), costs.scores.item()) == pytest.approx((-0.003, 0.003))
    assert constrained_advantages(rewards.scores, costs.scores, multiplier).item() == pytest.approx(-0.003)


def test_costs_lie_where_rewards_lie_and_those_of_others_go_to_the_turn_before() -> None:
    guide = (Span(start=0, end=1, version=-1, producer="guide"),)
    turns = [
        builders.turn(action=(2, 3), reward=1.0, costs={"harm": 0.5}),
        builders.turn(reward=7.0, costs={"harm": 2.0, "noise": 9.0}, spans=guide),
        builders.turn(action=(4,), reward=0.0),
    ]
    batch = flatten([builders.group(builders.episode("e", *turns))])
    costs = cost_batch(batch, lambda turn: turn.costs.get("harm", 0.0))
    assert costs.rewards.tolist() == [0.0, 2.5, 0.0]
    assert (costs.turn_rewards.tolist(), costs.scores.tolist()) == ([2.5, 0.0], [2.5])
    assert batch.rewards.tolist() == [0.0, 8.0, 0.0], "the batch of rewards stays as it was"


def test_the_window_forgets_the_oldest_and_nothing_moves_without_an_episode() -> None:
    held = Multiplier(ConstraintSettings(cost="harm", window=128))
    assert held.observe([]) == {"constraint/multiplier": 1.0}
    held.observe([spent(*[100.0] * 2, *[0.5] * 128)])
    assert held.mean_cost == 0.5
    assert held.value == pytest.approx(1.051271, abs=1e-6)


def test_a_delay_leaves_the_multiplier_alone() -> None:
    held = Multiplier(ConstraintSettings(cost="harm", delay=2))
    values = [held.observe([spent(0.5, name=f"g{step}")])["constraint/multiplier"] for step in range(3)]
    assert values == pytest.approx([1.0, 1.0, 1.051271], abs=1e-6)


def test_the_sum_of_all_costs_is_one_as_well() -> None:
    both = builders.turn(costs={"harm": 1.0, "noise": 2.0})
    held = Multiplier(ConstraintSettings(cost="*", limit=2.5))
    found = held.observe([builders.group(builders.episode("e", both))])
    assert (found["constraint/cost_mean"], found["constraint/over_limit_frac"]) == (3.0, 1.0)


def test_a_checkpoint_holds_multiplier_and_window(tmp_path: Path) -> None:
    settings = ConstraintSettings(cost="harm", window=3)
    one, other = Multiplier(settings), Multiplier(settings)
    one.observe([spent(0.5, 2.0)])
    one.save_state(tmp_path)
    other.load_state(tmp_path)
    assert (other.value, other.mean_cost) == (one.value, one.mean_cost)
    assert other.observe([spent(1.0, 0.0)]) == one.observe([spent(1.0, 0.0)])
    Multiplier(settings, writes=False).save_state(tmp_path / "nowhere")


def test_a_limit_that_nobody_keeps_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    held = Multiplier(ConstraintSettings(cost="harm", limit=-0.5, most=2.0, rate=1.0))
    with caplog.at_level(logging.WARNING):
        for step in range(80):
            held.observe([spent(1.0, name=f"g{step}")])
    assert held.value == 2.0
    assert [record.message for record in caplog.records if "at its cap of 2 for 50 steps" in record.message] != []
    assert len(caplog.records) == 1


def test_a_cost_that_no_turn_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no turn of 2 episodes has that cost; they have harm"):
        Multiplier(ConstraintSettings(cost="fire")).observe([spent(0.0, 1.0)])
    plain = builders.group(builders.episode("e", builders.turn(reward=1.0)))
    with pytest.raises(ConfigError, match="this world counts no costs"):
        Multiplier(ConstraintSettings(cost="*")).observe([plain])


def test_groups_of_one_reward_and_two_costs_are_told_apart() -> None:
    held = Multiplier(ConstraintSettings(cost="harm"))
    assert held.tells_apart(spent(0.0, 1.0))
    assert not held.tells_apart(spent(1.0, 1.0))


def test_a_bandit_ends_at_its_known_optimum() -> None:
    """Arm A pays 1 and costs 1, arm B pays .6 and costs -.2, limit 0: p(A) = 1/6, J_R = 2/3, lambda = 1/3."""
    rewards, costs = torch.tensor([1.0, 0.6]), torch.tensor([1.0, -0.2])
    logits, multiplier, seen = torch.zeros(2), 1.0, []
    for step in range(6000):
        p = logits.softmax(0)
        gains = constrained_advantages(rewards - p @ rewards, costs - p @ costs, multiplier)
        # The exact policy gradient of a softmax; a little entropy ends the circling of policy and multiplier.
        logits = logits + 0.3 * p * (gains + 0.02 * (-p.log() + p @ p.log()))
        multiplier = log_dual_step(multiplier, cost=(p @ costs).item(), limit=0.0, rate=0.05, floor=1e-4, most=5.0)
        seen += [(p[0].item(), multiplier)] if step >= 2000 else []
    chosen, held = (sum(column) / len(seen) for column in zip(*seen, strict=True))
    assert 0.12 <= chosen <= 0.21
    assert 0.28 <= held <= 0.40
