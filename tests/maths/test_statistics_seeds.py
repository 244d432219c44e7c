"""Differences of groups of training runs: by hand, against scipy, by simulation; coverage of the two targets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollwright.maths.statistics import RunScores, Target, clustered_bootstrap, paired_difference, run_difference
from rollwright.maths.statistics.rates import student_two_sided


def group(name: str, scores: object, start_error: float = 0.0) -> RunScores:
    return RunScores(name=name, scores=np.array(scores, dtype=float), start_error=start_error)


def test_the_difference_of_runs_is_welchs_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = [[10.0, 12.0], [11.0, 15.0], [9.0, 11.0]], [[14.0, 15.0], [18.0, 17.0], [13.0, 19.0], [20.0, 12.0]]
    found = run_difference(group("old", a), group("new", b), num_episodes=1)
    theirs = stats.ttest_ind(np.mean(b, axis=1), np.mean(a, axis=1), equal_var=False)
    edges = theirs.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((edges.low, edges.high), rel=1e-4)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-4)
    assert found.verdict() == (
        f"new is better than old: {found.interval.point:+.2f} [{edges.low:.2f}, {edges.high:.2f}] on these 2 tasks "
        "(95% CI over 4 runs against 3)"
    )


@pytest.mark.parametrize("degrees", [1.0, 2.5, 30.0, 9_000.0, 1e6])
@pytest.mark.parametrize("t", [0.0, 0.7, 2.0, 8.0])
def test_students_two_sided_tail_is_scipys(t: float, degrees: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_two_sided(t, degrees) == pytest.approx(2 * stats.t.sf(t, degrees), rel=1e-3)


@pytest.mark.parametrize("target", ["these", "like-these"])
@pytest.mark.parametrize(("num_tasks", "starts"), [(6, 50), (8, 3), (20, 10)])
def test_the_p_value_inverts_the_interval(target: Target, num_tasks: int, starts: int) -> None:
    draws = np.random.default_rng(num_tasks)
    for gain in (0.05, 0.15, 0.3):
        a = {str(n): (draws.random(starts) < 0.4).astype(float) for n in range(num_tasks)}
        b = {str(n): (draws.random(starts) < 0.4 + gain).astype(float) for n in range(num_tasks)}
        p = paired_difference(a, b, pair_episodes=True, target=target).p_value
        if not 2 * 0.5**num_tasks < p < 0.9:
            continue
        for alpha in (0.98 * p, 1.02 * p):
            edge = paired_difference(a, b, pair_episodes=True, target=target, confidence=1 - alpha)
            leaves_out_zero = edge.interval.low > 0 or edge.interval.high < 0
            assert leaves_out_zero == edge.decided == (alpha > p)


def test_single_yes_no_pairs_follow_the_exact_test() -> None:
    def pairs(only_a: int, only_b: int, both: int) -> tuple[dict, dict]:
        outcomes = [(1.0, 0.0)] * only_a + [(0.0, 1.0)] * only_b + [(1.0, 1.0)] * both
        return ({str(n): [o[side]] for n, o in enumerate(outcomes)} for side in (0, 1))  # type: ignore[return-value]

    found = paired_difference(*pairs(5, 14, 81), pair_episodes=True)
    assert found.p_value == pytest.approx(0.063568, abs=5e-7) and not found.decided
    assert paired_difference(*pairs(0, 6, 94), pair_episodes=True).decided
    assert not paired_difference(*pairs(0, 5, 95), pair_episodes=True).decided


def test_the_number_of_units_that_would_decide_decides() -> None:
    draws = np.random.default_rng(3)
    a = {str(n): (draws.random(20) < 0.5).astype(float) for n in range(6)}
    b = {str(n): (draws.random(20) < 0.58).astype(float) for n in range(6)}
    found = paired_difference(a, b, pair_episodes=True, target="these")
    more = found.more_units_needed
    assert not found.decided and more is not None and more > 1
    assert f"about {more} more start states per task would settle it" in found.verdict()
    # The same outcomes again and again: the rates stay, the error shrinks.
    times = math.ceil((20 + more) / 20) + 1
    longer = ({task: np.tile(x, times) for task, x in side.items()} for side in (a, b))
    assert paired_difference(*longer, pair_episodes=True, target="these").decided


def test_one_more_run_is_singular_and_a_vast_number_is_out_of_reach() -> None:
    runs = (
        group("a", [[0.40, 0.42], [0.50, 0.52], [0.45, 0.47]]),
        group("b", [[0.55, 0.57], [0.49, 0.51], [0.60, 0.62]]),
    )
    found = run_difference(*runs, num_episodes=1)
    assert not found.decided and found.more_units_needed == 1
    assert found.verdict().endswith("(95% CI over 3 runs against 3); about one more run per group would settle it")
    close = run_difference(runs[0], group("b", [[0.4001, 0.42], [0.50, 0.52], [0.45, 0.47]]), num_episodes=1)
    assert close.verdict().endswith("more than 10,000 further runs per group would be needed to settle it")


def test_a_single_run_counts_its_own_starts_and_two_single_runs_are_refused() -> None:
    many, lone = group("b", [[0.7, 0.8], [0.72, 0.78], [0.71, 0.81]]), group("a", [[0.5, 0.6]], start_error=0.01)
    sure = run_difference(group("a", [[0.5, 0.6]]), many, num_episodes=1).interval
    unsure = run_difference(lone, many, num_episodes=1).interval
    assert unsure.high - unsure.low > 3 * (sure.high - sure.low)
    with pytest.raises(ValueError, match="compare their episodes"):
        run_difference(lone, lone, num_episodes=1)
    with pytest.raises(ValueError, match="one task only"):
        run_difference(group("a", [[1.0], [0.5]]), group("b", [[1.0], [0.0]]), num_episodes=1, target="like-these")


@pytest.mark.parametrize("target", ["these", "like-these"])
def test_coverage_over_training_seeds(target: Target) -> None:
    """5 seeds on 6 tasks; seeds, tasks and starts all vary."""
    hits = 0
    for seed in range(300):
        draws = np.random.default_rng(seed)
        base, gains = draws.uniform(0.3, 0.5, 6), draws.normal(0.1, 0.08, 6)

        def runs(rates: np.ndarray, draws: np.random.Generator = draws) -> np.ndarray:
            means = rates + draws.normal(0, 0.05, (5, 1)) + draws.normal(0, 0.03, (5, 6))
            return draws.binomial(30, np.clip(means, 0, 1)) / 30

        pair = group("a", runs(base)), group("b", runs(base + gains))
        interval = run_difference(*pair, num_episodes=1, target=target).interval
        hits += interval.low <= (gains.mean() if target == "these" else 0.1) <= interval.high
    assert 0.92 <= hits / 300 <= 0.98


@pytest.mark.parametrize(("num_tasks", "starts"), [(6, 50), (20, 10), (60, 4)])
def test_coverage_and_false_claims_of_both_targets(num_tasks: int, starts: int) -> None:
    """The short form of benchmarks/coverage.py: 300 data sets, so a standard error of 0.013."""
    hits: dict[str, int] = {}
    for seed in range(300):
        draws = np.random.default_rng([seed, num_tasks])
        rates = 0.02 + 0.08 * draws.beta(2, 2, num_tasks)  # near 0, where normal intervals fail
        gains = 0.24 * draws.beta(2, 2, num_tasks)
        luck = draws.random((2, num_tasks, starts))
        a, same = ({str(n): luck[side, n] < rates[n] for n in range(num_tasks)} for side in (0, 1))
        b = {str(n): luck[1, n] < rates[n] + gains[n] for n in range(num_tasks)}
        for target, gain, rate in (("these", gains.mean(), rates.mean()), ("like-these", 0.12, 0.06)):
            found = paired_difference(a, b, pair_episodes=True, target=target).interval
            mean = clustered_bootstrap(a, generator=draws, fixed_tasks=target == "these")
            null = paired_difference(a, same, pair_episodes=True, target=target)
            for what, counted in (
                ("difference", found.low <= gain <= found.high),
                ("mean", mean.low <= rate <= mean.high),
                ("true null", not null.decided),
            ):
                hits[f"{what}, {target}"] = hits.get(f"{what}, {target}", 0) + counted
    assert all(0.91 <= count / 300 <= 0.985 for count in hits.values()), hits
