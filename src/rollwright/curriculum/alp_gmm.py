"""ALP-GMM and Covar-GMM: tasks where the outcome is changing are drawn more often.

    report of task x, outcome r:   alp = |r - r'|, r' that of the nearest earlier task; 0 while fewer than 5 are known
    every `fit_every` reports:     a Gaussian mixture over the last [x, alp], components by AIC or BIC
    draw:                          uniformly with `random_frac`, or where there is no progress anywhere; else a Gaussian
                                   in proportion to its mean alp, a point of it, clipped to the box

With `progress="covariance"` the vectors are [x, time, r], and a Gaussian weighs what its covariance of time and outcome
is, where that is positive. A group counts as one report of its mean outcome: one noisy episode looks like progress.

Sources: arXiv:1910.07224 (ALP-GMM), arXiv:2103.09815 (its place among teachers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import Group, Task
from rollwright.curriculum.samplers import draws_of, outcomes_of
from rollwright.curriculum.task_space import TaskSpace, space_of
from rollwright.maths import Criterion, GaussianMixture, best_mixture

Array = NDArray[Any]
Progress = Literal["absolute", "covariance"]
# The bound keeps the search of each report and a checkpoint small, however long the run is.
REMEMBERED = 10_000
"""Reports in which the nearest earlier task is looked for."""


class AlpGmmCurriculum:
    """Draws tasks of a space by learning progress.

    Args:
        fit_every: reports between two fits, and how many of the latest each fit sees. All draws before are uniform.
        random_frac: share of uniform draws after that.
        max_components: mixtures of 2 to so many are compared.
        min_width: least standard deviation of a Gaussian along any axis, in sides of the box; about the distance of
            neighbours among `fit_every` draws of a square. The reference has 0.001. Outcomes of 0 and 1 leave progress
            of just 0 or 1, whose Gaussians have no width there: ever more of them are then fitted to ever fewer
            points, and draws keep to the few lines on which these happen to lie.
    """

    def __init__(
        self,
        space: TaskSpace,
        *,
        seed: int,
        fit_every: int = 250,
        random_frac: float = 0.2,
        max_components: int = 10,
        min_width: float = 0.07,
        criterion: Criterion = "aic",
        progress: Progress = "absolute",
    ) -> None:
        self.space, self.seed, self.fit_every, self.random_frac = space, seed, fit_every, random_frac
        self.max_components, self.min_width = max_components, min_width
        self.criterion, self.progress = criterion, progress
        self.points = np.zeros((0, space.dimensions))
        self.outcomes, self.gains = np.zeros(0), np.zeros(0)
        self.num_reports = 0
        self.mixture: GaussianMixture | None = None

    def next(self, step: int, count: int) -> list[Task]:
        """Tasks at points drawn for this step."""
        # A generator for each step: a resumed run draws the same without saving the state of one.
        draws = np.random.default_rng(draws_of(self.seed, "alp_gmm", step).getrandbits(64))
        return [self.space.task_at(self.draw(draws)) for _ in range(count)]

    def draw(self, draws: np.random.Generator) -> Array:
        """[dimensions] one point of the unit cube."""
        if self.mixture is None or draws.random() < self.random_frac or not self.weights().any():
            return draws.random(self.space.dimensions)
        chosen = draws.choice(len(self.mixture.weights), p=in_proportion(self.weights()))
        # The Gaussian also spans progress (or time and outcome): those coordinates are drawn and then dropped.
        point = draws.multivariate_normal(self.mixture.means[chosen], self.mixture.covariances[chosen])
        # A Gaussian reaches beyond the box; the reference clips such points too, and does not draw again.
        clipped: Array = np.clip(point[: self.space.dimensions], 0.0, 1.0)
        return clipped

    def weights(self) -> Array:
        """[k] what the Gaussians of the mixture are drawn in proportion to: their progress, never below 0."""
        assert self.mixture is not None
        # The columns are [x, alp] or [x, time, outcome], see `_fit`: entry [-2, -1] is Cov(time, outcome).
        found = self.mixture.means[:, -1] if self.progress == "absolute" else self.mixture.covariances[:, -2, -1]
        # EM leaves a trace of a distant component's progress everywhere: that is none.
        positive: Array = np.where(found > 1e-6, found, 0.0)
        return positive

    def update(self, groups: Sequence[Group]) -> None:
        """One report for each group: its mean outcome."""
        for group in groups:
            point, outcomes = self.space.point_of(group.task), outcomes_of(group)
            if point is not None and outcomes:
                self.report(point, sum(outcomes) / len(outcomes))

    def report(self, point: Array, outcome: float) -> None:
        """Take in what became of one task; fit the mixture anew where it is time."""
        # Before the point is stored: it would be its own nearest neighbour, at a gain of 0.
        gain = absolute_progress(point, outcome, self.points, self.outcomes)
        self.points = np.vstack([self.points, point])[-REMEMBERED:]
        self.outcomes = np.append(self.outcomes, outcome)[-REMEMBERED:]
        self.gains = np.append(self.gains, gain)[-REMEMBERED:]
        self.num_reports += 1
        if self.num_reports % self.fit_every == 0:
            self._fit()

    def _fit(self) -> None:
        recent = slice(-self.fit_every, None)
        columns = [self.points[recent]]
        if self.progress == "covariance":
            # Time runs over [0, 1), as x and the outcome do: the fit begins with distances between whole rows.
            columns += [np.linspace(0, 1, len(self.outcomes[recent]), endpoint=False), self.outcomes[recent]]
        else:
            columns.append(self.gains[recent])
        # Keyed by the number of reports, not by the step: a resumed run makes the same fit at the same report.
        draws = np.random.default_rng(draws_of(self.seed, "alp_gmm fit", self.num_reports).getrandbits(64))
        sizes = range(2, self.max_components + 1)
        # `min_width` is a standard deviation, the fit wants a variance.
        self.mixture = best_mixture(
            np.column_stack(columns), sizes, draws, criterion=self.criterion, smallest_variance=self.min_width**2
        )

    def metrics(self) -> dict[str, float]:
        """Mean progress and outcome of the latest reports, and how many Gaussians there are."""
        recent = slice(-self.fit_every, None)
        if not self.num_reports:
            return {}
        return {
            "curriculum/progress_mean": float(self.gains[recent].mean()),
            "curriculum/outcome_mean": float(self.outcomes[recent].mean()),
            "curriculum/components_count": float(0 if self.mixture is None else len(self.mixture.weights)),
        }

    def state_dict(self) -> dict[str, Any]:
        """All reports that are remembered, and the mixture."""
        return {
            "points": self.points.tolist(),
            "outcomes": self.outcomes.tolist(),
            "gains": self.gains.tolist(),
            "num_reports": self.num_reports,
            "mixture": None if self.mixture is None else self.mixture.to_json(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        # Without the reshape an empty list would come back without its second axis.
        self.points = np.asarray(state["points"], np.float64).reshape(-1, self.space.dimensions)
        self.outcomes, self.gains = np.asarray(state["outcomes"]), np.asarray(state["gains"])
        self.num_reports = int(state["num_reports"])
        self.mixture = None if state["mixture"] is None else GaussianMixture.from_json(state["mixture"])


def alp_gmm_curriculum(
    tasks: Sequence[Task],
    *,
    seed: int,
    world: object = None,
    fit_every: int = 250,
    random_frac: float = 0.2,
    max_components: int = 10,
    min_width: float = 0.07,
    criterion: Criterion = "aic",
    progress: Progress = "absolute",
) -> AlpGmmCurriculum:
    """ALP-GMM in the box of parameters that a world declares, else along the list of its tasks.

    Args:
        fit_every, random_frac, max_components, min_width, criterion, progress: see `AlpGmmCurriculum`.

    Raises:
        ConfigError: there are no tasks, held-out ones among them, or a side of the box without length.
    """
    return AlpGmmCurriculum(
        space_of(tasks, world),
        seed=seed,
        fit_every=fit_every,
        random_frac=random_frac,
        max_components=max_components,
        min_width=min_width,
        criterion=criterion,
        progress=progress,
    )


def absolute_progress(point: Array, outcome: float, points: Array, outcomes: Array, *, at_least: int = 5) -> float:
    """|outcome - that of the nearest earlier point|; 0 while fewer than `at_least` are known.

    Args:
        point: [d]. points: [n, d]. outcomes: [n].
    """
    if len(points) < at_least:
        return 0.0
    # Of equally near reports `argmin` takes the oldest.
    nearest = int(((points - point) ** 2).sum(axis=1).argmin())
    return abs(outcome - float(outcomes[nearest]))


def in_proportion(weights: Array) -> Array:
    """[k] shares in proportion to the weights, negative ones taken for 0; equal shares where none is positive."""
    positive = np.maximum(weights, 0.0)
    total = positive.sum()
    # With all weights at 0 the division would give NaN, and equal shares take its place.
    shares: Array = positive / total if total > 0 else np.full(len(weights), 1 / len(weights))
    return shares
