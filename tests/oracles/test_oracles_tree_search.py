"""Numbers of search trees by hand: selection, normalisation and back-up of Agent-R and of the reasoning blueprint."""

from __future__ import annotations

import math
import random

import pytest

from rollwright.maths import (
    best_choice,
    discounted_average,
    followed_path,
    judged_state,
    normalised_value,
    puct_scores,
    uct_scores,
    widened,
)


def test_uct_scores_of_agent_r() -> None:
    """(q, n) = (1.5, 3), (0.9, 1), (2.0, 4) with N = 8 and c = 0.25."""
    assert uct_scores([1.5, 0.9, 2.0], [3, 1, 4], 8) == pytest.approx([0.7081, 1.2605, 0.6803], abs=5e-5)
    assert best_choice(uct_scores([1.5, 0.9], [3, 1], 8), random.Random(0)) == 1


def test_an_unvisited_child_comes_first() -> None:
    scores = uct_scores([1.5, 0.9, 0.0], [3, 1, 0], 8)
    assert scores[2] == math.inf
    assert {best_choice(scores, random.Random(seed)) for seed in range(20)} == {2}


def test_ties_are_broken_by_seeded_chance() -> None:
    chosen = [best_choice([1.0, math.inf, math.inf], random.Random(seed)) for seed in range(40)]
    assert set(chosen) == {1, 2}
    assert chosen == [best_choice([1.0, math.inf, math.inf], random.Random(seed)) for seed in range(40)]


def test_uct_refuses_counts_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="0 visits"):
        uct_scores([1.0], [1], 0)
    with pytest.raises(ValueError, match="one of each per child"):
        uct_scores([1.0], [1, 2], 3)


def test_puct_scores_of_the_blueprint() -> None:
    """N = 5: the factor is c1 + ln(19657/19652) = 1.250254; A 0.7 + 0.5 factor, B 0 + factor."""
    assert 1.25 + math.log(19657 / 19652) == pytest.approx(1.250254, abs=1e-6)
    assert puct_scores([0.7, 0.0], [3, 1], 5) == pytest.approx([1.325127, 1.250254], abs=1e-6)


@pytest.mark.parametrize("visits", [0, 1])
def test_puct_explores_nothing_before_the_second_visit(visits: int) -> None:
    """N = 1 by the formula; N = 0 is NaN in the released code."""
    assert puct_scores([0.7, 0.0], [3, 1], visits) == [0.7, 0.0]


def test_values_are_normalised_by_what_was_seen() -> None:
    assert normalised_value(0.5, (-0.2, 0.8)) == pytest.approx(0.7)
    assert normalised_value(0.5, (0.5, 0.5)) == 0.5
    assert normalised_value(0.5, None) == 0.5


def test_bounds_widen_and_may_leave_out_zeros() -> None:
    bounds = widened(widened(None, 0.8), -0.2)
    assert bounds == (-0.2, 0.8)
    assert widened(bounds, 0.0) == bounds
    assert widened((0.3, 0.8), 0.0) == (0.0, 0.8)
    assert widened((0.3, 0.8), 0.0, skip_zero=True) == (0.3, 0.8)
    assert widened(None, 0.0, skip_zero=True) is None


def test_back_up_is_a_discounted_average() -> None:
    """Children (n, q) = (3, 0.5), (1, -0.2): 0.96 (1.5 - 0.2)/4 = 0.312; with rate 0.5 and old value 0.1, 0.206."""
    assert discounted_average([0.5, -0.2], [3, 1]) == pytest.approx(0.312)
    assert discounted_average([0.5, -0.2], [3, 1], rate=0.5, old=0.1) == pytest.approx(0.206)
    with pytest.raises(ValueError, match="without a visited child"):
        discounted_average([], [])


def test_a_state_is_judged_by_outcome_model_and_simulations() -> None:
    assert judged_state(0.2, [1, -1, 1, 1]) == pytest.approx(0.35)
    assert judged_state(0.2, [1, -1], outcome=1.0) == 1.0
    assert judged_state(0.2) == 0.2
    assert judged_state(None, [1, -1, 1, 1]) == 0.5
    assert judged_state(None) is None


def test_a_path_follows_what_is_worth_most() -> None:
    children = [[1, 2], [3], [4, 5], [], [], []]
    assert followed_path(children, [0, 5, 9, 100, 1, 1]) == [0, 2, 4]
    assert followed_path(children, [0, 9, 5, 0, 1, 2]) == [0, 1, 3]
    assert followed_path([[]], [0]) == [0]
