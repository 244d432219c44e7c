"""Curves of runs over steps as an SVG file: one line per run, or mean and 95% band over the runs of a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean, stdev

from rollwright.contracts import DataError
from rollwright.view.records.run_groups import RunGroup
from rollwright.view.records.run_record import RunRecord
from rollwright.view.transcripts import visible

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 64, 200, 28, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#f0e442")
"""Of Okabe and Ito, which readers with any colour vision can tell apart; repeated after eight."""
# Each of eight colours thrice; the legend holds no more lines either.
MAX_LINES = 24
# Student's and not the normal's: with three seeds the difference is a factor of two.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5% points of Student's t for 1 to 10 degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of the plot; `low` and `high` are empty where one run stands alone."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def run_curves(records: Sequence[RunRecord], metric: str) -> list[Curve]:
    """One curve per run that has the metric."""
    found = []
    for record in records:
        steps, values = record.curve(metric)
        if steps:
            found.append(Curve(label=record.name, steps=tuple(steps), values=tuple(values)))
    return found


def group_curves(groups: Sequence[RunGroup], metric: str) -> list[Curve]:
    """One curve per group: the mean at every step that two runs or more have (all steps, for a lone run)."""
    # A share cannot leave [0, 1], however wide Student's interval is with two runs.
    least_value, most_value = (0.0, 1.0) if metric.endswith("_frac") else (-math.inf, math.inf)
    found = []
    for group in groups:
        at: dict[int, list[float]] = {}
        for record in group.records:
            for step, value in zip(*record.curve(metric), strict=True):
                at.setdefault(step, []).append(value)
        # Steps that one run alone has would make the band collapse to a line there.
        banded = max(map(len, at.values()), default=0) > 1
        steps = [step for step in sorted(at) if len(at[step]) > 1 or not banded]
        halves = [_half_width(at[step]) for step in steps]
        means = [fmean(at[step]) for step in steps]
        if steps:
            found.append(
                Curve(
                    label=f"{group.label} (n={len(group.records)})",
                    steps=tuple(steps),
                    values=tuple(means),
                    low=tuple(max(least_value, m - h) for m, h in zip(means, halves, strict=True)) if banded else (),
                    high=tuple(min(most_value, m + h) for m, h in zip(means, halves, strict=True)) if banded else (),
                )
            )
    return found


def plot_svg(curves: Sequence[Curve], metric: str) -> str:
    """The plot. Names are escaped: a run may be called anything.

    Raises:
        DataError: no run has the metric, or there are too many lines to tell apart.
    """
    if not curves:
        raise DataError(f"no run here has the metric {metric!r}, so there is nothing to plot")
    if len(curves) > MAX_LINES:
        raise DataError(f"{len(curves)} lines cannot be told apart: use --where or --group-by (at most {MAX_LINES})")
    scale = _Scale(curves)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">{_text(metric)}</text>',
        *_axes(scale),
    ]
    for number, curve in enumerate(curves):
        lines += _curve(curve, scale, COLOURS[number % len(COLOURS)], number)
    return "\n".join([*lines, "</svg>"]) + "\n"


class _Scale:
    """From steps and values to pixels."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        steps = [step for curve in curves for step in curve.steps]
        values = [v for curve in curves for v in (*curve.values, *curve.low, *curve.high)]
        # One step or a constant metric would have no extent to divide by.
        self.first, self.last = min(steps), max(max(steps), min(steps) + 1)
        self.low, self.high = min(values), max(values)
        if self.high - self.low < 1e-12:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        # In SVG, y grows downwards.
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def _axes(scale: _Scale) -> list[str]:
    lines = []
    for value in _ticks(scale.low, scale.high):
        y = scale.y(value)
        lines.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for step in _ticks(scale.first, scale.last):
        x = scale.x(step)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step:.4g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*lines, f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">step</text>']


def _curve(curve: Curve, scale: _Scale, colour: str, number: int) -> list[str]:
    def points(values: Sequence[float]) -> list[str]:
        return [f"{scale.x(step):.1f},{scale.y(v):.1f}" for step, v in zip(curve.steps, values, strict=True)]

    lines = []
    if curve.low:
        # There along the upper bound and back along the lower one.
        area = " ".join([*points(curve.high), *reversed(points(curve.low))])
        lines.append(f'<polygon points="{area}" fill="{colour}" fill-opacity="0.18"/>')
    lines.append(
        f'<polyline points="{" ".join(points(curve.values))}" fill="none" stroke="{colour}" stroke-width="2"/>'
    )
    y = TOP + 8 + 16 * number
    x = WIDTH - RIGHT + 12
    lines.append(f'<line x1="{x}" y1="{y}" x2="{x + 18}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
    # As much as the right margin holds.
    lines.append(f'<text x="{x + 24}" y="{y + 4}">{_text(curve.label[-26:])}</text>')
    return lines


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    # Multiples of the step and no running sum, which would collect rounding errors.
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _half_width(values: Sequence[float]) -> float:
    """Half of the 95% interval of a mean over runs, by Student's t."""
    count = len(values)
    if count < 2:
        return 0.0
    return (T_95[count - 2] if count <= len(T_95) + 1 else 1.96) * stdev(values) / math.sqrt(count)


def _text(text: str) -> str:
    return escape(visible(text))
