"""Whitening with the statistics of the global batch, however it is spread over ranks and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rollwright.maths.sequences import require_finite_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Count, mean and sum of squared deviations of a set of numbers; what a rank sends to the others."""

    count: int
    mean: float
    squares: float

    @property
    def variance(self) -> float:
        """Unbiased variance.

        Raises:
            ValueError: fewer than two numbers.
        """
        if self.count < 2:
            raise ValueError(f"whitening needs 2 action tokens or more in the global batch, got {self.count}")
        return self.squares / (self.count - 1)


def moments_of(values: Tensor) -> Moments:
    """Moments of all entries of a tensor of any shape; an empty tensor gives count 0."""
    if values.numel() == 0:
        return Moments(count=0, mean=0.0, squares=0.0)
    # float32 sums over the tokens of a large batch lose digits.
    exact = values.detach().double()
    mean = exact.mean()
    # Squares around the mean: a sum of squares minus n mean^2 cancels where the mean is large.
    return Moments(count=values.numel(), mean=float(mean), squares=float((exact - mean).square().sum()))


def whiten(values: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(variance + eps) with the unbiased variance.

    Args:
        values: float tensor of action tokens only: masked entries must have been left out.
        shift_mean: False keeps the mean and only scales.
        eps: added to the variance, in squared units of `values`.

    Raises:
        ValueError: the global batch has fewer than two entries, or an entry is not finite.
    """
    require_finite_entries(values=values)
    whole = moments_of(values)
    # eps stands under the root here, unlike in `standardise`, which adds it to the spread.
    centred = (values - whole.mean) * (whole.variance + eps) ** -0.5
    return (centred if shift_mean else centred + whole.mean).detach()
