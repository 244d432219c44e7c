"""Several groups of runs, one group per method: matrices of seeds by tasks, aggregates, and a verdict for each pair.

Scores are taken over the start states that every run finished, so that all runs are judged on the same episodes. One
group is the baseline; what is claimed about the others is one family, and Holm's procedure holds the chance of any
wrong claim at 1 minus the confidence. Screening many groups by Benjamini-Hochberg holds the share of wrong ones.

Sources: arXiv:2108.13264 (aggregates and stratified bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import DataError
from rollwright.evaluation.evaluation_record import Evaluation
from rollwright.evaluation.pairing import check_worlds, chosen_target, unlike_warnings, world_of
from rollwright.evaluation.shared_episodes import SharedEpisodes
from rollwright.evaluation.success_cost import SuccessCost, success_cost
from rollwright.maths.statistics import (
    Interval,
    PairedDifference,
    RunScores,
    Target,
    benjamini_hochberg,
    clustered_bootstrap,
    holm,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    profile_band,
    run_difference,
    stratified_bootstrap,
    stratified_bootstrap_pair,
)

Procedure = Literal["holm", "benjamini-hochberg"]
AGGREGATES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "IQM": interquartile_mean,
    "mean": mean_score,
    "median": median_score,
    "optimality gap": optimality_gap,
}
FEW_RUNS = 3
"""Fewer runs than this hardly tell how much runs differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """One group: its runs, their scores [N, M], and aggregates. An aggregate of a single run has no interval (its
    edges are infinite), except the mean, which has one by start states."""

    name: str
    runs: tuple[str, ...]
    scores: NDArray[np.float64]
    aggregates: Mapping[str, Interval]
    profile: NDArray[np.float64]
    profile_low: NDArray[np.float64] | None
    profile_high: NDArray[np.float64] | None
    cost: SuccessCost | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One claim of the family: `difference` at 1 minus alpha over m, its p-value raw and adjusted, P(B beats A)."""

    difference: PairedDifference
    adjusted_p: float
    improvement: Interval
    claimed: bool

    def verdict(self) -> str:
        """One sentence that follows the adjusted p-value."""
        if self.claimed == self.difference.decided:
            return self.difference.verdict()
        # An adjusted p-value of Holm's later steps may claim what the interval of the first step leaves open.
        i, better = self.difference.interval, self.difference.interval.point > 0
        names = self.difference.name_b, self.difference.name_a
        first, second = names if better else names[::-1]
        if self.claimed:
            return f"{first} is better than {second}: {abs(i.point):+.2f} {self.difference.scope()} (adjusted p)"
        return f"no significant difference between {names[1]} and {names[0]} {self.difference.scope()} (adjusted p)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupComparison:
    """All groups over the same tasks and starts. `metric` is "success" or "return"."""

    metric: str
    tasks: tuple[str, ...]
    num_starts: int
    groups: tuple[GroupScores, ...]
    contrasts: tuple[Contrast, ...]
    procedure: Procedure
    confidence: float
    target: Target
    thresholds: NDArray[np.float64]
    world: str
    warnings: tuple[str, ...]

    @property
    def family(self) -> str:
        """The comparisons that were adjusted together, in words."""
        named = ", ".join(f"{one.difference.name_b} against {one.difference.name_a}" for one in self.contrasts)
        count = len(self.contrasts)
        return f"{count} comparison{'' if count == 1 else 's'} of the mean {self.metric}: {named}"


def compare_groups(
    groups: Mapping[str, Mapping[str, Evaluation]],
    *,
    all_pairs: bool = False,
    procedure: Procedure = "holm",
    target: Target | None = None,
    across_versions: bool = False,
    confidence: float = 0.95,
    repetitions: int = 2000,
) -> GroupComparison:
    """Compare groups of runs, the first being the baseline.

    Args:
        groups: name of the group -> name of the run -> its evaluation.
        all_pairs: claim something about every pair of groups, not only about each against the first.
        procedure: "holm" for claims, "benjamini-hochberg" to screen.
        target: see `compare`.
        across_versions: see `compare`.
        confidence: 0.95 for 95 % intervals and a level of 0.05 over the whole family.
        repetitions: bootstrap draws of the aggregates' intervals.

    Raises:
        DataError: fewer than two groups, an empty one, no start that all runs finished, or unlike worlds.
    """
    # With the group in front, since two groups may have runs of one name.
    runs = {f"{group}/{run}": one for group, members in groups.items() for run, one in members.items()}
    if len(groups) < 2 or not all(groups.values()):
        raise DataError(
            "a comparison needs two groups or more, each with a run or more, such as base=run1,run2 new=run3"
        )
    warnings = _warnings(runs, across_versions)
    common = SharedEpisodes.of(runs)
    # The shared starts are the same in every run, so those of one run tell.
    aim = chosen_target(common.rows(next(iter(runs.values()))), target)
    # Fixed, so that the same files give the same report.
    draws = np.random.default_rng(0)
    thresholds = np.linspace(*common.bounds(runs), 51)
    scored = [
        _group(name, members, common, thresholds, aim, draws, confidence, repetitions)
        for name, members in groups.items()
    ]
    pairs = list(combinations(range(len(scored)), 2)) if all_pairs else [(0, n) for n in range(1, len(scored))]
    few = [f"{one.name} has {len(one.runs)} runs: three or more tell how much runs differ" for one in scored
           if 1 < len(one.runs) < FEW_RUNS]  # fmt: skip
    alone = [f"{one.name} is a single run: the verdict speaks about this run, not about others trained alike"
             for one in scored if len(one.runs) == 1]  # fmt: skip
    family = _Family(groups, scored, common, aim, confidence, repetitions, draws)
    return GroupComparison(
        metric=common.metric,
        tasks=common.tasks,
        num_starts=common.num_starts,
        groups=tuple(scored),
        contrasts=family.contrasts(pairs, procedure),
        procedure=procedure,
        confidence=confidence,
        target=aim,
        thresholds=thresholds,
        world=next((world for one in runs.values() if (world := world_of(one))), ""),
        warnings=tuple([*warnings, *common.warnings, *few, *alone]),
    )


def _warnings(runs: Mapping[str, Evaluation], across_versions: bool) -> list[str]:
    (first_name, first), *others = runs.items()
    found: dict[str, None] = {}
    for name, other in others:
        # Against the first alone: runs in its world are in one world.
        said = check_worlds(first, other, first_name, name, across_versions=across_versions)
        found |= dict.fromkeys([*said, *unlike_warnings(first, other, first_name, name)])
    return list(found)


def _group(
    name: str,
    members: Mapping[str, Evaluation],
    common: SharedEpisodes,
    thresholds: NDArray[np.float64],
    target: Target,
    draws: np.random.Generator,
    confidence: float,
    repetitions: int,
) -> GroupScores:
    matrix = common.matrix(members)
    several = len(matrix) > 1
    # A single task, drawn again, is always itself.
    over_tasks = target == "like-these" and matrix.shape[1] > 1
    aggregates = {}
    for what, statistic in AGGREGATES.items():
        if what == "optimality gap" and common.metric != "success":
            continue  # a return has no best value to fall short of
        if several:
            aggregates[what] = stratified_bootstrap(
                matrix, statistic, generator=draws, repetitions=repetitions, confidence=confidence,
                resample_tasks=over_tasks,
            )  # fmt: skip
        else:
            # The point of a single run is known; how much runs differ is not.
            aggregates[what] = Interval(point=statistic(matrix), low=-np.inf, high=np.inf, confidence=confidence)
    if not several:
        # Starts tell how sure this run's own mean is, though not how much runs differ.
        aggregates["mean"] = _mean_of_one(common.scores(next(iter(members.values()))), target, draws, confidence)
    band = (
        profile_band(matrix, thresholds, generator=draws, repetitions=repetitions, confidence=confidence)
        if several
        else (None, None)
    )
    return GroupScores(
        name=name,
        runs=tuple(members),
        scores=matrix,
        aggregates=aggregates,
        profile=performance_profile(matrix, thresholds),
        profile_low=band[0],
        profile_high=band[1],
        cost=success_cost(next(iter(members.values())), [row for run in members.values() for row in common.rows(run)]),
    )


def _mean_of_one(
    scores: Mapping[str, list[float]], target: Target, draws: np.random.Generator, confidence: float
) -> Interval:
    # One task tells nothing about the spread over tasks.
    fixed = target == "these" or len(scores) < 2
    if fixed and min(map(len, scores.values())) < 2:
        point = fmean(fmean(starts) for starts in scores.values())
        return Interval(point=point, low=-np.inf, high=np.inf, confidence=confidence)
    return clustered_bootstrap(scores, generator=draws, fixed_tasks=fixed, confidence=confidence)


class _Family:
    """The comparisons that are adjusted together."""

    def __init__(
        self,
        groups: Mapping[str, Mapping[str, Evaluation]],
        scored: Sequence[GroupScores],
        common: SharedEpisodes,
        target: Target,
        confidence: float,
        repetitions: int,
        draws: np.random.Generator,
    ) -> None:
        self.groups, self.scored, self.common, self.target = list(groups.values()), scored, common, target
        self.confidence, self.repetitions, self.draws = confidence, repetitions, draws

    def contrasts(self, pairs: Sequence[tuple[int, int]], procedure: Procedure) -> tuple[Contrast, ...]:
        """Differences with intervals at 1 - alpha / m (Holm) or 1 - alpha, and adjusted p-values."""
        alpha = 1.0 - self.confidence
        # Holm has no intervals of its own; at alpha / m (Bonferroni) all m of them hold together.
        level = 1.0 - alpha / len(pairs) if procedure == "holm" else self.confidence
        found = [self._difference(first, second, level) for first, second in pairs]
        adjust = holm if procedure == "holm" else benjamini_hochberg
        adjusted = adjust([one.p_value for one in found])
        return tuple(
            Contrast(
                difference=one,
                adjusted_p=p,
                improvement=self._improvement(*pair),
                # 1 - 0.95 is a little more than 0.05 in floats: rounding must not decide on the edge.
                claimed=p <= alpha + 1e-12,
            )
            for one, p, pair in zip(found, adjusted, pairs, strict=True)
        )

    def _difference(self, first: int, second: int, confidence: float) -> PairedDifference:
        a, b = self.scored[first], self.scored[second]
        sides = [self.groups[n] for n in (first, second)]
        try:
            # Without a second run on either side nothing tells how much runs differ; episodes can be paired.
            if len(a.runs) == len(b.runs) == 1:
                scores = [self.common.scores(next(iter(side.values()))) for side in sides]
                return paired_difference(
                    *scores, pair_episodes=True, target=self.target, name_a=a.name, name_b=b.name, confidence=confidence
                )
            runs = [
                RunScores(name=group.name, scores=group.scores, start_error=self._start_error(side))
                for group, side in zip((a, b), sides, strict=True)
            ]
            # Every run of B played each shared episode once.
            episodes = sum(len(keys) for keys in self.common.keys.values()) * len(b.runs)
            return run_difference(*runs, num_episodes=episodes, target=self.target, confidence=confidence)
        except ValueError as error:
            raise DataError(f"{a.name} and {b.name} cannot be compared: {error}") from error

    def _start_error(self, members: Mapping[str, Evaluation]) -> float:
        """Squared standard error of a single run's mean over these tasks, by its start states."""
        # The spread of several runs contains that of their starts already.
        if len(members) > 1:
            return 0.0
        starts = [np.array(values) for values in self.common.scores(next(iter(members.values()))).values()]
        over_all = float(np.concatenate(starts).var())  # of a task with one start nothing narrower is known
        errors = [float(values.var(ddof=1)) / values.size if values.size > 1 else over_all for values in starts]
        # The variance of a mean of M independent task means.
        return sum(errors) / len(errors) ** 2

    def _improvement(self, first: int, second: int) -> Interval:
        a, b = self.scored[first].scores, self.scored[second].scores
        # A single run, resampled, is always itself, and the interval would have no width.
        if min(len(a), len(b)) < 2:
            point = probability_of_improvement(b, a)
            return Interval(point=point, low=-np.inf, high=np.inf, confidence=self.confidence)
        # B comes first: the statistic is the chance that its first argument beats the second.
        return stratified_bootstrap_pair(
            b, a, probability_of_improvement, generator=self.draws, repetitions=self.repetitions,
            confidence=self.confidence,
        )  # fmt: skip
