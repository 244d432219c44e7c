"""What the audit of the text worlds found, and what they declare for it."""

from __future__ import annotations

import pytest

from rollwright.checks import AuditPlan, audit_world, format_audit
from rollwright.contracts import episode_seed
from rollwright.envs.text import bandit, car_dealer, combination_lock, guess_number, maze
from rollwright.envs.text.conversations.car_rules import LOT, ONE_OFFER, best_offer

SMALL = AuditPlan(constants=3, leak_pairs=2, replayed=8)


def test_a_seller_who_lists_every_car_and_price_sells_nothing():
    """The audit's shotgun policy sold in 22 of 80 episodes: a price and a car were found somewhere in the list."""
    world = car_dealer.build()
    env = world.make()
    for number in range(20):
        task = world.tasks("train")[0]
        env.reset(task, episode_seed("train", number))
        right, price = best_offer(env.state.talk.buyer, 1)
        listed = [f"the {car.name} for {car.msrp} dollars" for car in LOT if car is not right]
        listed.insert(len(listed) // 2, f"the {right.name} for {price} dollars")
        result = env.step("I can offer you " + ", ".join(listed))
        assert not result.terminated and result.observation == ONE_OFFER
        # To talk of two cars and offer one of them is an offer.
        told = f"Not the {LOT[0].name}. The {right.name}, {price} dollars."
        assert right is LOT[0] or env.step(told).success is True


@pytest.mark.parametrize("build", [guess_number.build, maze.build, bandit.build, combination_lock.build])
def test_small_text_worlds_are_fit(build):
    report = audit_world(build, plan=SMALL)
    assert report.verdict == "fit", format_audit(report)
    assert report.row("golden").accepted == report.row("golden").episodes >= 60
    assert all(report.row(name).accepted == 0 for name in ("null", "constant", "forger", "injection", "shotgun"))
