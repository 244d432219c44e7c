"""Evaluation statistics against published or hand-made numbers, and the cases they must refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollwright.maths.statistics import (
    clustered_bootstrap,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    paired_difference,
    pass_at_k,
    performance_profile,
    probability_of_improvement,
    profile_band,
    stratified_bootstrap,
    stratified_bootstrap_pair,
    wilson_interval,
)
from rollwright.maths.statistics.rates import student_quantile

X = [[1, 2], [2, 2], [1, 1], [2, 1]]
Y = [[1, 1], [2, 2], [3, 3]]
A = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("statistic", [mean_score, median_score, interquartile_mean])
def test_aggregates_by_hand(statistic) -> None:
    assert statistic(X) == pytest.approx(1.5)
    assert statistic(Y) == pytest.approx(2.0)


def test_probability_of_improvement_by_hand() -> None:
    # Per task, 12 pairs: x = 1 twice and 2 twice against 1, 2, 3: wins 2, ties 4 -> (2 + 2) / 12.
    assert probability_of_improvement(X, Y) == pytest.approx(1 / 3)
    assert probability_of_improvement(Y, X) == pytest.approx(2 / 3)
    assert probability_of_improvement(X, X) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement(X, [[1]])


def test_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert interquartile_mean([1, 2, 3, 4, 100]) == 3.0
    assert interquartile_mean(A) == pytest.approx(0.5)


def test_optimality_gap_and_profile_by_hand() -> None:
    assert optimality_gap([[0.5, 1.5]]) == pytest.approx(0.25)
    first_task = [[row[0]] for row in A]
    assert performance_profile(first_task, [0.1, 0.9]).tolist() == [0.75, 0.0]
    # Over both tasks: .1 twice and .9 twice among eight scores; strictly above.
    assert performance_profile(A, [0.1, 0.5, 0.9]).tolist() == [0.75, 0.5, 0.0]


def test_bootstrap_of_constant_tasks_has_no_width() -> None:
    constant = np.tile([0.2, 0.8], (5, 1))
    interval = stratified_bootstrap(constant, mean_score, generator=rng(), repetitions=200)
    assert (interval.low, interval.high) == (pytest.approx(0.5), pytest.approx(0.5))
    over_tasks = stratified_bootstrap(constant, mean_score, generator=rng(), repetitions=200, resample_tasks=True)
    assert over_tasks.low == pytest.approx(0.2) and over_tasks.high == pytest.approx(0.8)


def test_pairing_of_runs_across_tasks_does_not_matter() -> None:
    scores = rng(1).normal(size=(8, 3))
    shuffled = scores.copy()
    shuffled[:, 1] = shuffled[::-1, 1]
    one, two = (stratified_bootstrap(s, mean_score, generator=rng(2), repetitions=4000) for s in (scores, shuffled))
    assert one.low == pytest.approx(two.low, abs=0.02) and one.high == pytest.approx(two.high, abs=0.02)
    # Resampling whole runs instead would give perfectly aligned columns a wider interval than opposed ones.
    aligned = np.sort(scores, axis=0)
    opposed = aligned * 1.0
    opposed[:, 1] = opposed[::-1, 1]
    widths = [
        (lambda i: i.high - i.low)(stratified_bootstrap(s, mean_score, generator=rng(3), repetitions=4000))
        for s in (aligned, opposed)
    ]
    assert widths[0] == pytest.approx(widths[1], rel=0.06)


@pytest.mark.long
def test_stratified_coverage_is_near_nominal() -> None:
    generator = rng(4)
    hits = 0
    for _ in range(500):
        scores = generator.normal(size=(10, 5))
        interval = stratified_bootstrap(scores, np.mean, generator=generator, repetitions=300)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 500 <= 0.97, hits / 500


def test_same_generator_seed_same_interval() -> None:
    scores = rng(5).normal(size=(6, 4))
    runs = [stratified_bootstrap(scores, interquartile_mean, generator=rng(s), repetitions=500) for s in (7, 7, 8)]
    assert runs[0] == runs[1] != runs[2]
    many = [stratified_bootstrap(scores, np.mean, generator=rng(s), repetitions=50_000) for s in (1, 2)]
    assert abs(many[0].low - many[1].low) < 0.01 and abs(many[0].high - many[1].high) < 0.01


def test_pair_bootstrap_and_profile_band() -> None:
    interval = stratified_bootstrap_pair(X, Y, probability_of_improvement, generator=rng(), repetitions=500)
    assert interval.point == pytest.approx(1 / 3) and 0 <= interval.low < 1 / 3 < interval.high <= 1
    low, high = profile_band(A, [0.05, 0.5], generator=rng(), repetitions=300)
    assert low[0] == high[0] == 1.0 and low[1] < 0.5 < high[1]


def test_one_run_is_refused() -> None:
    with pytest.raises(ValueError, match="zero width"):
        stratified_bootstrap([[0.1, 0.2]], mean_score, generator=rng())
    with pytest.raises(ValueError, match="2 tasks or more"):
        stratified_bootstrap([[0.1], [0.2]], mean_score, generator=rng(), resample_tasks=True)
    with pytest.raises(ValueError, match="finite"):
        mean_score([[math.nan, 1.0]])


def test_wilson_interval_of_70_of_165() -> None:
    interval = wilson_interval(70, 165)
    assert interval.point == pytest.approx(0.424, abs=5e-4)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.351, 0.501)
    assert interval.low < interval.point + 0.03 < interval.high  # a claimed gain of 3 points is inside the noise


def test_wilson_interval_at_the_borders() -> None:
    nothing = wilson_interval(0, 10)
    assert nothing.low == 0 and nothing.high == pytest.approx(0.2775, abs=1e-4)
    assert wilson_interval(10, 10).high == 1 and wilson_interval(1, 1).low > 0
    for successes, trials in ((1, 0), (0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="successes"):
            wilson_interval(successes, trials)


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(8, 2, k=1) == pytest.approx(0.25)
    assert pass_at_k(8, 2, k=4) == pytest.approx(0.7857, abs=5e-5)  # 1 - C(6,4) / C(8,4) = 1 - 15 / 70
    assert pass_at_k(8, 0, k=4) == 0 and pass_at_k(8, 5, k=4) == 1
    with pytest.raises(ValueError, match=r"pass@9 needs 9 attempts"):
        pass_at_k(8, 2, k=9)


def clustered_data(seed: int, num_tasks: int, episodes: int) -> dict[str, np.ndarray]:
    generator = rng(seed)
    rates = generator.beta(0.5, 0.5, size=num_tasks)  # tasks are mostly easy or mostly hard
    return {f"t{n}": (generator.random(episodes) < rates[n]).astype(float) for n in range(num_tasks)}


def test_clustering_widens_the_interval_when_tasks_differ() -> None:
    data = clustered_data(0, 12, 40)
    clustered = clustered_bootstrap(data, generator=rng(1))
    fixed = clustered_bootstrap(data, generator=rng(1), fixed_tasks=True)
    assert clustered.point == fixed.point == pytest.approx(np.mean([x.mean() for x in data.values()]))
    assert clustered.high - clustered.low > 3 * (fixed.high - fixed.low)


def test_clustered_coverage_over_new_tasks() -> None:
    hits = {False: 0, True: 0}
    for seed in range(120):
        data = clustered_data(seed, 20, 5)
        for fixed in hits:
            interval = clustered_bootstrap(data, generator=rng(seed), fixed_tasks=fixed, repetitions=400)
            hits[fixed] += interval.low <= 0.5 <= interval.high
    assert hits[False] / 120 >= 0.9
    assert hits[True] / 120 < 0.85  # pretending that these tasks are all tasks claims too much


def rates_of(kind: str, num_tasks: int, generator: np.random.Generator) -> np.ndarray:
    """Success rates with the mean 0.5 (easy: 0.9) of tasks drawn anew."""
    shapes = {"little": (60, 60), "somewhat": (2, 2), "mostly easy or hard": (0.5, 0.5), "easy": (9, 1)}
    return np.full(num_tasks, 0.5) if kind == "not at all" else generator.beta(*shapes[kind], size=num_tasks)


@pytest.mark.parametrize(
    ("kind", "num_tasks", "episodes", "low", "high"),
    [  # where tasks are alike, drawing episodes again inside drawn tasks covered 0.98 to 0.99
        ("not at all", 20, 5, 0.92, 0.975),
        ("not at all", 8, 40, 0.92, 0.975),
        ("little", 50, 4, 0.92, 0.975),
        ("little", 8, 5, 0.92, 0.98),
        ("somewhat", 6, 8, 0.93, 0.985),
        ("mostly easy or hard", 20, 5, 0.93, 0.985),
        ("mostly easy or hard", 4, 8, 0.92, 0.985),  # percentiles of draws covered 0.865
        ("mostly easy or hard", 3, 20, 0.91, 0.985),
        ("easy", 20, 5, 0.92, 0.985),
        ("easy", 12, 3, 0.93, 0.995),
    ],
)
def test_within_task_noise_counts_once(kind: str, num_tasks: int, episodes: int, low: float, high: float) -> None:
    """Coverage of the mean over tasks like these, 400 data sets each: a standard error of 0.011."""
    hits, truth = 0, 0.9 if kind == "easy" else 0.5
    for seed in range(400):
        draws = rng(seed)
        solved = draws.binomial(episodes, rates_of(kind, num_tasks, draws))
        data = {f"t{n}": np.arange(episodes) < k for n, k in enumerate(solved)}
        interval = clustered_bootstrap(data, generator=draws, repetitions=200)
        hits += interval.low <= truth <= interval.high
    assert low <= hits / 400 <= high


@pytest.mark.parametrize("kind", ["not at all", "somewhat", "mostly easy or hard"])
@pytest.mark.parametrize(("num_tasks", "episodes"), [(1, 20), (6, 4), (20, 5)])
def test_coverage_of_exactly_these_tasks(kind: str, num_tasks: int, episodes: int) -> None:
    hits = 0
    for seed in range(200):
        draws = rng(seed)
        rates = rates_of(kind, num_tasks, draws)
        data = {f"t{n}": draws.random(episodes) < rate for n, rate in enumerate(rates)}
        interval = clustered_bootstrap(data, generator=draws, repetitions=200, fixed_tasks=True)
        hits += interval.low <= rates.mean() <= interval.high
    assert hits / 200 >= 0.91


@pytest.mark.parametrize(("rates", "sizes"), [((0.5, *[0.0] * 9), (2,) * 10), ((0.5, *[1.0] * 9), (2, *[20] * 9))])
def test_coverage_where_few_episodes_of_a_fixed_task_come_out_alike(
    rates: tuple[float, ...], sizes: tuple[int, ...]
) -> None:
    """Two episodes alike do not say that the task's rate is 0 or 1."""
    hits = 0
    for seed in range(200):
        draws = rng(seed)
        data = {f"t{n}": draws.random(size) < rate for n, (rate, size) in enumerate(zip(rates, sizes, strict=True))}
        interval = clustered_bootstrap(data, generator=draws, repetitions=200, fixed_tasks=True)
        hits += interval.low <= np.mean(rates) <= interval.high
    assert hits / 200 >= 0.91


def test_fixed_tasks_that_each_came_out_alike_leave_open_what_wilson_does() -> None:
    """One task 2 of 2, one 0 of 20: each reaches as far as Wilson's interval of its own, and the squares add up."""
    found = clustered_bootstrap({"a": [1.0] * 2, "b": [0.0] * 20}, generator=rng(), fixed_tasks=True)
    down, up = 1 - wilson_interval(2, 2).low, wilson_interval(0, 20).high
    assert (found.point, found.low, found.high) == pytest.approx((0.5, 0.5 - down / 2, 0.5 + up / 2))
    both = {"a": [0.0, 0.0], "b": [0.0] * 20}  # alike at one value: two tasks of two episodes at least
    same = clustered_bootstrap(both, generator=rng(), fixed_tasks=True)
    assert (same.low, same.high) == pytest.approx((0.0, wilson_interval(0, 4).high))


@pytest.mark.parametrize("num_tasks", [4, 12])
def test_coverage_without_bounds_and_of_a_difference(num_tasks: int) -> None:
    """Returns of any size, tasks and episodes with a normal spread of 1; the true gain is 0.5."""
    hits = {"mean": 0, "difference": 0}
    for seed in range(300):
        draws = rng(seed)
        tasks = draws.normal(-20, 1, size=num_tasks)
        gains = draws.normal(0.5, 0.5, size=num_tasks)
        a = {f"t{n}": task + draws.normal(size=6) for n, task in enumerate(tasks)}
        b = {
            f"t{n}": task + gain + draws.normal(size=6) for n, (task, gain) in enumerate(zip(tasks, gains, strict=True))
        }
        mean = clustered_bootstrap(a, generator=draws, repetitions=200)
        gain = paired_difference(a, b, pair_episodes=False).interval
        hits["mean"] += mean.low <= -20 <= mean.high
        hits["difference"] += gain.low <= 0.5 <= gain.high
    assert all(0.92 <= count / 300 <= 0.98 for count in hits.values()), hits


def test_one_episode_each_is_wilsons_interval() -> None:
    """Reduction: a task tried once is a trial; of 200, Student's quantile is nearly the normal one."""
    data = {f"t{n}": [float(n < 150)] for n in range(200)}
    found, wanted = clustered_bootstrap(data, generator=rng(), repetitions=20_000), wilson_interval(150, 200)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=2e-3)


def test_without_bounds_it_is_students_interval() -> None:
    """Task means 1, 2, 3, 4, 10: mean 4, standard error sqrt(12.5 / 5), t(4) = 2.776."""
    data = {f"t{n}": [mean - 1.0, mean + 1.0] for n, mean in enumerate((1.0, 2.0, 3.0, 4.0, 10.0))}
    found = clustered_bootstrap(data, generator=rng(), repetitions=100_000)
    half = 2.776 * math.sqrt(12.5 / 5)
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half), abs=0.05)


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.95, 4, 2.1318), (0.975, 30, 2.0423), (0.995, 10, 3.1693),
     (0.025, 5, -2.5706), (0.975, 2.5, 3.57465), (0.975, 1e6, 1.95996)],
)  # fmt: skip
def test_students_quantiles_from_tables(probability: float, degrees: float, expected: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-4)
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_equal_results_have_width(value: float, fixed: bool) -> None:
    """Six tasks of two episodes: Wilson's reach with six alike, or twelve where the tasks are fixed."""
    data = {f"t{n}": [value] * 2 for n in range(6)}
    found = clustered_bootstrap(data, generator=rng(), fixed_tasks=fixed)
    odd = 1 - wilson_interval(12, 12).low if fixed else 1 - wilson_interval(6, 6).low
    assert found.point == value
    assert (found.low, found.high) == pytest.approx((value - odd * value, value + odd * (1 - value)))
    if value == 1.0 and not fixed:
        assert (found.low, found.high) == pytest.approx((0.6097, 1.0), abs=1e-4)


def test_equal_results_of_an_unknown_range_exclude_nothing() -> None:
    found = clustered_bootstrap({"a": [-7.0, -7.0], "b": [-7.0]}, generator=rng())
    assert (found.point, found.low, found.high) == (-7.0, -math.inf, math.inf)
    same = {"a": [-7.0, -7.0], "b": [-7.0, -7.0]}
    verdict = paired_difference(same, same, pair_episodes=True).verdict()
    assert verdict == (
        "no significant difference between A and B on tasks like these 2: +0.00 [-inf, inf] (95% CI); "
        "no difference was seen"
    )
    spread = {"a": [-9.0, -5.0], "b": [-9.0, -5.0]}  # equal means, but episodes say how far scores go
    found = clustered_bootstrap(spread, generator=rng())
    assert -9 < found.low < -7 < found.high < -5


@pytest.mark.parametrize("num_tasks", range(2, 12))
@pytest.mark.parametrize("gain", [1.0, -1.0])
def test_an_equal_difference_is_decided_from_as_many_tasks_as_a_sign_test_needs(num_tasks: int, gain: float) -> None:
    a = {f"t{n}": [max(0.0, -gain)] for n in range(num_tasks)}
    b = {f"t{n}": [max(0.0, gain)] for n in range(num_tasks)}
    found = paired_difference(a, b, pair_episodes=True)
    assert found.decided == (num_tasks >= 6) and found.interval.low < found.interval.high


def test_a_statistic_that_leaves_the_unit_range_has_no_bounds() -> None:
    data = {"a": [0.0, 1.0, 1.0], "b": [0.0, 0.0, 1.0], "c": [0.0, 0.0, 0.0]}
    sums = clustered_bootstrap(data, generator=rng(), statistic=lambda rows: rows.sum(axis=-1))
    assert sums.point == 1.0 and sums.low < 0 and sums.high > 2
    best = clustered_bootstrap(data, generator=rng(), statistic=lambda rows: rows.max(axis=-1), fixed_tasks=True)
    assert math.isfinite(best.low) and best.low < best.point < best.high


def test_what_no_number_can_hold_is_refused_and_never_zero_wide() -> None:
    huge = {"a": [1e308, 1e308], "b": [-1e308, -1e307]}
    for fixed in (False, True):
        with pytest.raises(ValueError, match=r"not finite, or beyond 1e\+100"):
            clustered_bootstrap(huge, generator=rng(), fixed_tasks=fixed)
    with pytest.raises(ValueError, match=r"not finite, or beyond 1e\+100"):
        paired_difference(huge, {"a": [0.0, 1.0], "b": [1.0, 0.0]}, pair_episodes=True)
    data = {"a": [1.0, 0.0], "b": [0.0, 0.0]}
    with pytest.raises(ValueError, match="the statistic of a task is not finite"):
        clustered_bootstrap(data, generator=rng(), statistic=lambda rows: rows.mean(axis=-1) * math.nan)
    for thresholds in ([0.5, math.nan], 0.5):
        with pytest.raises(ValueError, match="thresholds are a flat list of numbers"):
            performance_profile([[0.0, 1.0], [1.0, 1.0]], thresholds)


def test_each_task_weighs_the_same() -> None:
    interval = clustered_bootstrap({"a": [1.0] * 100, "b": [0.0, 0.0]}, generator=rng())
    assert interval.point == 0.5 and interval.low < 0.01 and interval.high > 0.99, "two tasks tell next to nothing"


def test_clustered_bootstrap_of_another_statistic() -> None:
    best = clustered_bootstrap(
        {"a": [0.0, 1.0], "b": [0.0, 0.0]}, generator=rng(), statistic=lambda rows: rows.max(axis=-1)
    )
    assert best.point == 0.5


def test_zero_width_cases_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one task only \('a'\)"):
        clustered_bootstrap({"a": [0, 1, 1]}, generator=rng())
    with pytest.raises(ValueError, match=r"single start have zero width.*: b"):
        clustered_bootstrap({"a": [0, 1], "b": [1]}, generator=rng(), fixed_tasks=True)
    with pytest.raises(ValueError, match="not finite"):
        clustered_bootstrap({"a": [0, math.nan], "b": [1]}, generator=rng())
    with pytest.raises(ValueError, match="no task"):
        clustered_bootstrap({}, generator=rng())
    clustered_bootstrap({"a": [0], "b": [1]}, generator=rng())  # one episode each is fine when tasks are drawn


def runs(gain: float, num_tasks: int, episodes: int, seed: int = 0) -> tuple[dict, dict]:
    generator = rng(seed)
    a, b = {}, {}
    for n in range(num_tasks):
        luck = generator.random(episodes)  # the same seed is as hard for both
        rate = generator.uniform(0.2, 0.7)
        a[f"t{n}"], b[f"t{n}"] = (luck < rate).astype(float), (luck < rate + gain).astype(float)
    return a, b


def test_a_clear_gain_gets_a_verdict() -> None:
    a, b = runs(0.15, 60, 20)
    result = paired_difference(a, b, pair_episodes=True, name_a="sft", name_b="grpo")
    assert result.decided and result.more_units_needed is None
    i = result.interval
    assert 0.10 < i.low < i.point < i.high < 0.20
    said = f"grpo is better than sft: +{i.point:.2f} [{i.low:.2f}, {i.high:.2f}] on tasks like these 60 (95% CI)"
    assert result.verdict() == said
    swapped = paired_difference(b, a, pair_episodes=True, name_a="grpo", name_b="sft")
    assert swapped.verdict().startswith("grpo is better than sft: +0.1")


def test_no_clear_gain_says_how_much_more_would_decide() -> None:
    a = {f"t{n}": [0.0] for n in range(10)}
    b = {f"t{n}": [1.0 if n < 4 else (-1.0 if n < 7 else 0.0)] for n in range(10)}
    result = paired_difference(a, b, pair_episodes=True)
    assert result.interval.point == pytest.approx(0.1) and not result.decided
    more = result.more_units_needed
    # The lower half-width is about .6 against a gain of .1: about 36 times as many tasks.
    assert more is not None and 250 < more < 450
    i = result.interval
    head = "no significant difference between A and B on tasks like these 10"
    numbers = f"+0.10 [{i.low:.2f}, {i.high:.2f}] (95% CI)"
    assert result.verdict() == f"{head}: {numbers}; about {more} more tasks would settle it"


def test_pairing_episodes_narrows_the_interval() -> None:
    a, b = runs(0.05, 8, 200)
    widths = []
    for paired in (True, False):
        i = paired_difference(a, b, pair_episodes=paired, target="these").interval
        widths.append(i.high - i.low)
    assert widths[0] < 0.6 * widths[1]


def test_too_few_tasks_never_decide() -> None:
    a, b = {f"t{n}": [0.0] for n in range(5)}, {f"t{n}": [1.0] for n in range(5)}
    few = paired_difference(a, b, pair_episodes=True)
    assert 0 < few.interval.low < few.interval.high == 1.0 and not few.decided and few.more_units_needed == 1
    a["t5"], b["t5"] = [0.0], [1.0]
    assert paired_difference(a, b, pair_episodes=True).decided


def test_no_difference_at_all() -> None:
    a = {"x": [0.0, 1.0], "y": [1.0, 1.0]}
    result = paired_difference(a, a, pair_episodes=True)
    head = "no significant difference between A and B on tasks like these 2"
    assert result.verdict() == f"{head}: +0.00 [-0.66, 0.66] (95% CI); no difference was seen"


def test_paired_difference_bad_input() -> None:
    a = {"x": [0.0, 1.0], "y": [1.0, 1.0]}
    with pytest.raises(ValueError, match="only one of them has: y, z"):
        paired_difference(a, {"x": [0.0, 1.0], "z": [1.0]}, pair_episodes=False)
    with pytest.raises(ValueError, match="'y' has 2 and 1 episodes"):
        paired_difference(a, {"x": [0.0, 1.0], "y": [1.0]}, pair_episodes=True)
    with pytest.raises(ValueError, match="one task only"):
        paired_difference({"x": [0, 1]}, {"x": [1, 1]}, pair_episodes=True)
    with pytest.raises(ValueError, match="confidence"):
        paired_difference(a, a, pair_episodes=True, confidence=95)
