"""How often our 95 % intervals hold the truth, how often a verdict is wrong, and how often it finds a planted gain.

    python benchmarks/coverage.py [--data-sets 2000] [--json]

Data sets are drawn from known success rates: tasks by start states at 6 x 50, 20 x 10 and 60 x 4, for several kinds of
tasks, also with rates near 0 and 1. Each data set is judged by `clustered_bootstrap` (the success rate of one policy)
and `paired_difference` (two policies on the same starts), for both targets. The truth for *these tasks* is the mean of
the rates that were drawn; for *tasks like these* it is the mean of the distribution that they were drawn from.

The result goes to benchmarks/results/coverage.md.
"""

from __future__ import annotations

import argparse
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from _common import command, machine, publish, table

from rollwright.maths.statistics import Target, clustered_bootstrap, paired_difference

SHAPES = ((6, 50), (20, 10), (60, 4))
TARGETS: tuple[Target, Target] = ("these", "like-these")
LOW, HIGH = 0.93, 0.97
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Regime:
    """Rates of two policies on tasks that are drawn, and how alike the luck of the two is at one start.

    `draw` gives [2, M] rates (one row repeated where a single policy is judged), `truth` is what they are on average
    over all tasks. With `shared` 0.5 every second start decides both policies by one throw. `kind` "normal" draws
    returns with a standard deviation of 1 in place of successes. `outside` marks cases that no interval of so little
    data can hold: they are shown apart.
    """

    name: str
    draw: Draw
    truth: float
    shared: float = 0.5
    single: bool = False
    kind: str = "success"
    outside: bool = False


def one(name: str, low: float, high: float, *, outside: bool = False) -> Regime:
    """One policy; rates from a Beta distribution, or all at `low` where `high` is 0."""

    def draw(g: np.random.Generator, tasks: int) -> np.ndarray:
        rates = g.beta(low, high, tasks) if high else np.full(tasks, low)
        return np.stack([rates, rates])

    return Regime(
        name=name, draw=draw, truth=low / (low + high) if high else low, single=True, outside=outside, shared=1.0
    )


def both(
    name: str,
    base: Draw,
    gain: Draw,
    truth: float,
    *,
    shared: float = 0.5,
    kind: str = "success",
    outside: bool = False,
) -> Regime:
    """Two policies: base rates, and base rates plus gains."""

    def draw(g: np.random.Generator, tasks: int) -> np.ndarray:
        rates = base(g, tasks)
        return np.stack([rates, rates + gain(g, tasks)])

    return Regime(name=name, draw=draw, truth=truth, shared=shared, kind=kind, outside=outside)


def flat(rate: float) -> Draw:
    """The same number for every task."""
    return lambda g, tasks: np.full(tasks, rate)


def between(low: float, high: float) -> Draw:
    """Numbers between two bounds, most of them in the middle."""
    return lambda g, tasks: low + (high - low) * g.beta(2, 2, tasks)


def some_tasks(gain: float, share: float) -> Draw:
    """This gain in a share of the tasks, none in the others."""
    return lambda g, tasks: gain * (g.random(tasks) < share)


REGIMES = (
    one("all tasks at 0.5", 0.5, 0),
    one("some harder, some easier", 2, 2),
    one("mostly easy or hard", 0.5, 0.5),
    one("near 1, some harder", 9, 1),
    one("near 0, some easier", 1, 9),
    one("all tasks at 0.95", 0.95, 0),
    one("near 0, all hard", 2, 38),
    one("near 1, one task in five hopeless", 0.8, 0.2, outside=True),
    both("null: alike at 0.5", flat(0.5), flat(0), 0),
    both("null: some harder, luck apart", between(0.1, 0.9), flat(0), 0, shared=0),
    both("null: alike at 0.95, luck apart", flat(0.95), flat(0), 0, shared=0),
    both("null: gains cancel over all tasks", between(0.3, 0.7), between(-0.25, 0.25), 0),
    both("gain 0.15 in each task", between(0.2, 0.7), flat(0.15), 0.15),
    both("gain 0.24, easy and hard tasks", lambda g, n: 0.7 * g.beta(0.8, 0.8, n), flat(0.24), 0.24),
    both("gain between -0.05 and 0.25", between(0.2, 0.6), between(-0.05, 0.25), 0.1),
    both("gain 0.5 in half of the tasks", between(0.1, 0.4), some_tasks(0.5, 0.5), 0.25),
    both("near 0: 0.03 to 0.10", flat(0.03), flat(0.07), 0.07),
    both("near 1: 0.90 to 0.96", flat(0.90), flat(0.06), 0.06),
    both("near 0: gains up to 0.16", between(0.01, 0.08), between(0, 0.16), 0.08, shared=0),
    both("returns, gain 0.3", flat(0), lambda g, n: g.normal(0.3, 0.3, n), 0.3, kind="normal"),
    both("gain 0.8 in one task of ten", between(0.1, 0.2), some_tasks(0.8, 0.1), 0.08, outside=True),
    both("four events: 0.93 to 0.95, one luck", flat(0.93), flat(0.02), 0.02, shared=1, outside=True),
)


def play(regime: Regime, rates: np.ndarray, starts: int, g: np.random.Generator) -> np.ndarray:
    """Scores of both policies. [2, M] -> [2, M, starts]."""
    shape = (rates.shape[1], starts)
    if regime.kind == "normal":
        common = g.normal(size=shape)
        apart = g.normal(size=(2, *shape))
        return rates[..., None] + np.sqrt(regime.shared) * common + np.sqrt(1 - regime.shared) * apart
    luck = g.random((2, *shape))
    luck[1] = np.where(g.random(shape) < regime.shared, luck[0], luck[1])
    return (luck < np.clip(rates, 0, 1)[..., None]).astype(float)


@dataclass(kw_only=True)
class Tally:
    """Counts over the data sets of one cell."""

    holds: dict[tuple[Target, Target], int] = field(default_factory=lambda: defaultdict(int))
    """(interval's target, truth's target) -> data sets in which the one held the other"""
    decided: dict[Target, int] = field(default_factory=lambda: defaultdict(int))


def measure(regime: Regime, tasks: int, starts: int, data_sets: int) -> Tally:
    """Draw and judge the data sets of one cell; the same cell draws the same ones every time."""
    g = np.random.default_rng([zlib.crc32(regime.name.encode()), tasks, starts])
    tally = Tally()
    for _ in range(data_sets):
        rates = regime.draw(g, tasks)
        scores = play(regime, rates, starts, g)
        a, b = ({str(n): row for n, row in enumerate(side)} for side in scores)
        clipped = rates if regime.kind == "normal" else np.clip(rates, 0, 1)
        here = float(clipped[0].mean() if regime.single else (clipped[1] - clipped[0]).mean())
        for target in TARGETS:
            if regime.single:
                interval = clustered_bootstrap(a, generator=g, fixed_tasks=target == "these")
            else:
                found = paired_difference(a, b, pair_episodes=True, target=target)
                interval = found.interval
                tally.decided[target] += found.decided
            for aim, truth in zip(TARGETS, (here, regime.truth), strict=True):
                tally.holds[target, aim] += interval.low - 1e-12 <= truth <= interval.high + 1e-12
    return tally


def main() -> None:
    """Measure all cells and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=2000, help="per cell")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cells = {(regime, shape): measure(regime, *shape, arguments.data_sets) for regime in REGIMES for shape in SHAPES}
    inside = [
        tally.holds[target, target] / arguments.data_sets
        for (regime, _), tally in cells.items()
        for target in TARGETS
        if not regime.outside
    ]
    summary = {
        "low": min(inside),
        "high": max(inside),
        "type_one": type_one(cells, arguments.data_sets),
        "cells": len(inside),
        "cells_outside": sum(not LOW <= value <= HIGH for value in inside),
    }
    publish("coverage", page(cells, arguments.data_sets, summary), summary, as_json=arguments.json)


Cells = dict[tuple[Regime, tuple[int, int]], Tally]


def type_one(cells: Cells, data_sets: int) -> float:
    """Wrong claims / verdicts over all planted nulls and both targets."""
    wrong = [
        tally.decided[target] / data_sets
        for (regime, _), tally in cells.items()
        for target in TARGETS
        if is_null(regime, target)
    ]
    return float(np.mean(wrong))


def is_null(regime: Regime, target: Target) -> bool:
    """Gains that cancel over all tasks are no null for the tasks that were drawn."""
    return regime.name.startswith("null") and (target == "like-these" or "cancel" not in regime.name)


def page(cells: Cells, data_sets: int, summary: dict[str, float]) -> str:
    """The report in Markdown."""
    error = (0.95 * 0.05 / data_sets) ** 0.5
    parts = [
        "# Coverage of the intervals, and errors of the verdicts",
        f"`{command()}` · {machine('numpy')}",
        f"{data_sets:,} data sets per cell; the standard error of a coverage of 0.95 is {error:.4f}. The nominal "
        f"coverage is 0.95; the aim is {LOW} to {HIGH} in every cell. Measured: {summary['low']:.3f} to "
        f"{summary['high']:.3f} over {summary['cells']} cells, {summary['cells_outside']} of them outside the aim. "
        f"Wrong claims over all planted nulls: {summary['type_one']:.4f} of the verdicts.",
        "## Coverage: the interval and the truth have the same target",
        coverage_table(cells, data_sets, lambda regime: not regime.outside),
        "## Verdicts: share of data sets that were decided",
        "Where there is no difference this is the type-I error, elsewhere the power. Gains that cancel over all tasks "
        "are real differences on the tasks that were drawn.",
        verdict_table(cells, data_sets),
        "## What no interval of so little data holds",
        "Where one task in ten carries the whole gain, half of all samples of six tasks hold no such task; where a "
        "difference rests on four episodes, its distribution is coarse. Use more tasks, or more starts.",
        coverage_table(cells, data_sets, lambda regime: regime.outside),
        "## An interval read for the wrong target",
        "Lowest and highest coverage when the interval of one target is read as a claim about the other.",
        crossed_table(cells, data_sets),
    ]
    return "\n\n".join(parts)


def coverage_table(cells: Cells, data_sets: int, wanted: Callable[[Regime], bool]) -> str:
    """A row per regime, a column per target and shape."""
    heads = ["regime", *(f"{target}, {m} x {n}" for target in TARGETS for m, n in SHAPES)]
    rows = [
        [regime.name, *(f"{cells[regime, shape].holds[t, t] / data_sets:.3f}" for t in TARGETS for shape in SHAPES)]
        for regime in REGIMES
        if wanted(regime)
    ]
    return table(heads, rows)


def verdict_table(cells: Cells, data_sets: int) -> str:
    """The same for the share of decided verdicts."""
    heads = ["regime", *(f"{target}, {m} x {n}" for target in TARGETS for m, n in SHAPES)]
    rows = [
        [regime.name, *(f"{cells[regime, shape].decided[t] / data_sets:.3f}" for t in TARGETS for shape in SHAPES)]
        for regime in REGIMES
        if not regime.single
    ]
    return table(heads, rows)


def crossed_table(cells: Cells, data_sets: int) -> str:
    """Lowest and highest coverage for each pair of unlike targets."""
    rows = []
    for interval, truth in (TARGETS, TARGETS[::-1]):
        row = [f"interval of {interval}, claim about {truth}"]
        for shape in SHAPES:
            found = [
                cells[regime, shape].holds[interval, truth] / data_sets for regime in REGIMES if not regime.outside
            ]
            row.append(f"{min(found):.3f} to {max(found):.3f}")
        rows.append(row)
    return table(["", *(f"{m} x {n}" for m, n in SHAPES)], rows)


if __name__ == "__main__":
    main()
