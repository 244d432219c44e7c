"""Adjusted p-values, exact paired tests and rank correlation: numbers by hand, other people's code, simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwright.maths.statistics import benjamini_hochberg, holm, mcnemar_exact, spearman, units_needed

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("given_p", "by_holm", "by_bh"),
    [
        ((0.001, 0.01, 0.02, 0.04, 0.05), (0.005, 0.04, 0.06, 0.08, 0.08), (0.005, 0.025, 1 / 30, 0.05, 0.05)),
        ((0.03, 0.004, 0.6, 0.012), (0.06, 0.016, 0.6, 0.036), (0.04, 0.016, 0.6, 0.024)),
        ((0.01, 0.04, 0.03), (0.03, 0.06, 0.06), (0.03, 0.04, 0.04)),
        ((0.2,), (0.2,), (0.2,)),
    ],
)
def test_adjusted_p_values_by_hand(given_p: tuple, by_holm: tuple, by_bh: tuple) -> None:
    assert holm(given_p) == pytest.approx(by_holm)
    assert benjamini_hochberg(given_p) == pytest.approx(by_bh)


@given(P_VALUES, st.randoms())
def test_adjusting_does_not_depend_on_the_order_and_never_makes_p_smaller(p_values: list[float], draw) -> None:
    order = list(range(len(p_values)))
    draw.shuffle(order)
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p_values)
        assert adjust([p_values[i] for i in order]) == pytest.approx([adjusted[i] for i in order])
        assert all(p <= q + 1e-12 and q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert all(b <= h + 1e-12 for b, h in zip(benjamini_hochberg(p_values), holm(p_values), strict=True))


def test_benjamini_hochberg_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    p_values = np.random.default_rng(0).random(30) ** 2
    assert benjamini_hochberg(list(p_values)) == pytest.approx(stats.false_discovery_control(p_values).tolist())


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [0.1, 1.5], [-0.1]])
def test_a_refused_comparison_is_not_dropped(adjust, bad: list[float]) -> None:
    with pytest.raises(ValueError, match="p-value"):
        adjust(bad)


@pytest.mark.parametrize(
    ("first", "second", "p"), [(14, 5, 0.063568), (6, 0, 0.03125), (5, 0, 0.0625), (5, 5, 1.0), (0, 0, 1.0)]
)
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar_exact(first, second) == mcnemar_exact(second, first) == pytest.approx(p, abs=5e-7)


def test_mcnemar_is_the_binomial_test_also_of_thousands() -> None:
    stats = pytest.importorskip("scipy.stats")
    for first, second in ((3, 11), (40, 61), (1500, 1610), (0, 2000)):
        expected = stats.binomtest(first, first + second).pvalue
        assert mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    with pytest.raises(ValueError, match="0 or more"):
        mcnemar_exact(-1, 3)


def test_units_that_a_family_needs() -> None:
    assert [units_needed(m) for m in (1, 5, 10, 20)] == [6, 8, 9, 10]
    with pytest.raises(ValueError, match="a comparison or more"):
        units_needed(0)


def test_holm_holds_the_chance_of_any_wrong_claim_and_bh_the_share_of_wrong_ones() -> None:
    draws = np.random.default_rng(0)
    any_wrong, shares = 0, []
    for _ in range(2000):
        null = draws.random(10)
        any_wrong += min(holm(null.tolist())) <= 0.05
        mixed = np.concatenate([draws.random(5), draws.random(5) ** 6])  # the last five are real
        claimed = np.array(benjamini_hochberg(mixed.tolist())) <= 0.05
        shares.append(claimed[:5].sum() / max(1, claimed.sum()))
    assert any_wrong / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert 0 < np.mean(shares) <= 0.05


def test_rank_correlation_by_hand_and_with_ties() -> None:
    # ranks 1 2 3 4 against 1 3 4 2: sum of d^2 = 0 + 1 + 1 + 4 = 6, 1 - 6 * 6 / (4 * 15) = 0.4
    assert spearman([0.60, 0.65, 0.70, 0.75], [0.30, 0.38, 0.41, 0.36]) == pytest.approx(0.4)
    assert spearman([1, 2, 3], [9, 5, 1]) == pytest.approx(-1)
    assert math.isnan(spearman([1, 2, 3], [4, 4, 4]))
    stats = pytest.importorskip("scipy.stats")
    x, y = [1, 2, 2, 3, 5, 5, 5], [3, 1, 4, 1, 5, 9, 2]
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    for bad in ([1.0], [1.0, math.inf]):
        with pytest.raises(ValueError):
            spearman(bad, bad)
