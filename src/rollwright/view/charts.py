"""Curves as inline SVG. Numbers in, markup out; nothing in it comes from a page or a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 320, 140
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 20
MAX_POINTS = 300

Point = tuple[float, float]


def line_chart(points: Sequence[Point]) -> str:
    """One curve over steps with the range of both axes written beside it; "" where there is nothing to draw."""
    points = thin([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)])
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = _padded(min(ys), max(ys))
    first, last = _padded(min(xs), max(xs)) if len(set(xs)) == 1 else (min(xs), max(xs))
    placed = [
        (_place(x, first, last, LEFT, WIDTH - RIGHT), _place(y, low, high, HEIGHT - BOTTOM, TOP)) for x, y in points
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    mark = placed[-1]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{max(ys):.4g}</text>'
        f'<text x="{LEFT - 4}" y="{HEIGHT - BOTTOM}" text-anchor="end">{min(ys):.4g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{min(xs):g}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{max(xs):g}</text>'
        f'<polyline class="curve" points="{path}"/>'
        f'<circle class="last" cx="{mark[0]:.1f}" cy="{mark[1]:.1f}" r="2.5"><title>{ys[-1]:.6g}</title></circle></svg>'
    )


def thin(points: Sequence[Point]) -> list[Point]:
    """At most about `MAX_POINTS` of them: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = math.ceil(2 * len(points) / MAX_POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        ends = {min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
        kept += [points[i] for i in sorted(ends)]
    return [*kept, points[-1]] if kept[-1] != points[-1] else kept


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or max(0.5, abs(high) * 0.05)
    return low - margin, high + margin


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start)
