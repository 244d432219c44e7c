"""Where episodes begin: every number that the cards of RLGF and of start-state curricula give."""

from __future__ import annotations

from collections import Counter

import pytest

from rollwright.curriculum import is_prefixed, prefix_length


def test_prefix_lengths_are_distributed_as_in_the_card() -> None:
    """RLGF: L = 5, beta = .8: P(k = 0) = .2, P(k = j) = .2 for j = 1..4, E[k] = 2.0."""
    draws = [prefix_length(5, 0.8, seed=1, step=step, group=group) for step in range(200) for group in range(50)]
    counts = Counter(draws)
    assert set(counts) == {0, 1, 2, 3, 4}
    # Chi-square of four degrees of freedom: 13.28 at 1 %.
    assert sum((count - 2000) ** 2 / 2000 for count in counts.values()) < 13.28
    assert sum(draws) / len(draws) == pytest.approx(2.0, abs=0.05)


def test_a_prefix_leaves_the_last_turn_to_the_policy() -> None:
    for group in range(50):
        assert prefix_length(1, 1.0, seed=0, step=0, group=group) == 0
        assert prefix_length(0, 1.0, seed=0, step=0, group=group) == 0
        assert prefix_length(2, 1.0, seed=0, step=0, group=group) == 1
        assert prefix_length(9, 0.0, seed=0, step=0, group=group) == 0


def test_the_draws_are_fixed_by_seed_step_and_group() -> None:
    def draws(seed: int) -> list[int]:
        return [prefix_length(7, 0.6, seed=seed, step=step, group=group) for step in range(4) for group in range(8)]

    assert draws(3) == draws(3) != draws(4)
    # Whether a group has a prefix is known before its length is.
    for step in range(20):
        begins = is_prefixed(0.6, seed=3, step=step, group=1)
        assert begins == (prefix_length(7, 0.6, seed=3, step=step, group=1) > 0)


@pytest.mark.parametrize("frac", [-0.1, 1.1])
def test_a_share_outside_of_0_and_1_is_refused(frac: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        prefix_length(5, frac, seed=0, step=0, group=0)
