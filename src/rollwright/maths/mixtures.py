"""Gaussian mixtures with full covariances, fitted by expectation-maximisation; how many components, by AIC or BIC.

A few hundred points of two or three dimensions: what a curriculum fits now and then.
Sources: Dempster, Laird and Rubin (1977); Akaike (1974); Schwarz (1978).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Criterion = Literal["aic", "bic"]
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GaussianMixture:
    """k Gaussians in d dimensions. weights: [k], adding up to 1. means: [k, d]. covariances: [k, d, d]."""

    weights: Array
    means: Array
    covariances: Array

    def log_densities(self, points: Array) -> Array:
        """[n, k] log of weight times density of every component at every point."""
        dimensions = points.shape[1]
        found = np.empty((len(points), len(self.weights)))
        for k, (mean, covariance) in enumerate(zip(self.means, self.covariances, strict=True)):
            # The factor gives the distance and the determinant, and a nearly singular matrix need not be inverted.
            factor = np.linalg.cholesky(covariance)
            scaled = np.linalg.solve(factor, (points - mean).T)
            log_norm = dimensions * np.log(2 * np.pi) / 2 + np.log(np.diag(factor)).sum()
            found[:, k] = np.log(self.weights[k]) - log_norm - (scaled**2).sum(axis=0) / 2
        return found

    def log_likelihood(self, points: Array) -> float:
        """Natural logarithm, summed over the points."""
        return float(_log_sum(self.log_densities(points)).sum())

    @property
    def num_parameters(self) -> int:
        """Free numbers: k - 1 weights, k means, k symmetric covariances."""
        k, d = self.means.shape
        return int(k - 1 + k * d + k * d * (d + 1) // 2)

    def score(self, points: Array, criterion: Criterion) -> float:
        """The criterion, the lower the better: 2p - 2 ln L (AIC), or p ln n - 2 ln L (BIC)."""
        price = 2.0 if criterion == "aic" else float(np.log(len(points)))
        return price * self.num_parameters - 2 * self.log_likelihood(points)

    def to_json(self) -> dict[str, Any]:
        """The mixture as lists of numbers."""
        return {name: getattr(self, name).tolist() for name in ("weights", "means", "covariances")}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> GaussianMixture:
        """A mixture back from `to_json`."""
        return cls(**{name: np.asarray(values, np.float64) for name, values in row.items()})


def fit_mixture(
    points: Array,
    components: int,
    draws: np.random.Generator,
    *,
    iterations: int = 100,
    smallest_variance: float = SMALLEST_VARIANCE,
) -> GaussianMixture:
    """EM from means that lie far apart (k-means++), until the log-likelihood per point gains less than 1e-3.

    Args:
        points: [n, d] float, n of at least `components`.
        smallest_variance: added to every variance. Without, a Gaussian on a few points that share a value has no
            width there and any likelihood, so that a criterion always asks for more of them.

    Raises:
        ValueError: there are fewer points than components.
    """
    if len(points) < components:
        raise ValueError(f"{components} components cannot be fitted to {len(points)} points")
    shares = _first_shares(points, components, draws)
    before = -np.inf
    for _ in range(iterations):
        mixture = _maximise(points, shares, smallest_variance)
        densities = mixture.log_densities(points)
        total = _log_sum(densities)
        shares = np.exp(densities - total[:, None])
        # Per point, so that the rule does not depend on how many points there are.
        if total.mean() - before < 1e-3:
            break
        before = total.mean()
    return mixture


def best_mixture(
    points: Array,
    components: Iterable[int],
    draws: np.random.Generator,
    *,
    criterion: Criterion = "aic",
    smallest_variance: float = SMALLEST_VARIANCE,
) -> GaussianMixture:
    """The mixture of the lowest criterion among those numbers of components.

    Raises:
        ValueError: there are too few points for any of them.
    """
    possible = [k for k in components if k <= len(points)]
    fitted = [fit_mixture(points, k, draws, smallest_variance=smallest_variance) for k in possible]
    if not fitted:
        raise ValueError(f"{len(points)} points are too few for a mixture of {min(components)} components")
    return min(fitted, key=lambda mixture: mixture.score(points, criterion))


def _first_shares(points: Array, components: int, draws: np.random.Generator) -> Array:
    """[n, k] each point wholly given to the nearest of k points that were drawn far from each other."""
    means = [points[draws.integers(len(points))]]
    for _ in range(components - 1):
        # k-means++ draws by the squared distance to the nearest mean so far.
        far = np.min([((points - mean) ** 2).sum(axis=1) for mean in means], axis=0)
        total = far.sum()
        # A total of 0 means that every point equals a chosen mean, so any of them will do.
        chances = far / total if total > 0 else np.full(len(points), 1 / len(points))
        means.append(points[draws.choice(len(points), p=chances)])
    nearest = np.argmin([((points - mean) ** 2).sum(axis=1) for mean in means], axis=0)
    return np.eye(components)[nearest]


def _maximise(points: Array, shares: Array, smallest_variance: float) -> GaussianMixture:
    # A component may lose all its points; the small number keeps its division finite.
    counts = shares.sum(axis=0) + 1e-10
    means = shares.T @ points / counts[:, None]
    dimensions = points.shape[1]
    covariances = np.empty((len(counts), dimensions, dimensions))
    for k, count in enumerate(counts):
        apart = points - means[k]
        covariances[k] = (shares[:, k, None] * apart).T @ apart / count
    covariances += smallest_variance * np.eye(dimensions)
    return GaussianMixture(weights=counts / counts.sum(), means=means, covariances=covariances)


def _log_sum(densities: Array) -> Array:
    # Without this shift the density of a far point underflows, and its logarithm is -inf.
    highest = densities.max(axis=1)
    result: Array = highest + np.log(np.exp(densities - highest[:, None]).sum(axis=1))
    return result
