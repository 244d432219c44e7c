"""A comparison of groups as one SVG: aggregates with intervals, P(better), and performance profiles.

Plain SVG 1.1 without scripts, fonts or addresses; names are escaped. A light ground and dark ink are part of the
picture, so that it reads the same on any page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from rollwright.evaluation.group_comparison import GroupComparison, GroupScores
from rollwright.maths.statistics import Interval

COLOURS = ("#3b6fb6", "#c8553d", "#3d8a5f", "#8a5fb0", "#b08a2e", "#4a8a97", "#a34d7d", "#5f6b2e")
"""Of the groups in turn; from the ninth group on they repeat."""
_PANEL, _ROW, _LEFT, _TOP, _GAP = 190, 26, 150, 46, 28
_PROFILE_HEIGHT = 190


def group_plot(found: GroupComparison) -> str:
    """The SVG document."""
    names = list(found.groups[0].aggregates)
    panels = [
        _panel(what, [(group.name, group.aggregates[what], _colour(n)) for n, group in enumerate(found.groups)], column)
        for column, what in enumerate(names)
    ]
    better = [
        # The n-th comparison is of group n + 1 with the baseline, unless all pairs are compared.
        (f"{one.difference.name_b} > {one.difference.name_a}", one.improvement, _colour(n + 1))
        for n, one in enumerate(found.contrasts)
    ]
    rows = max(len(found.groups), 1)
    second = _TOP + rows * _ROW + 74
    # Two columns at least: the second row holds P(better) and the profiles.
    width = _LEFT + max(2, len(names)) * (_PANEL + _GAP) + 8
    below = second + max(_PROFILE_HEIGHT, len(better) * _ROW) + 64
    parts = [
        *panels,
        _labels([group.name for group in found.groups], _TOP),
        _moved(0, second - _TOP, _panel("P(better)", better, 0, bounds=(0.0, 1.0), mark=0.5)),
        _labels([name for name, _, _ in better], second),
        _moved(_LEFT + _PANEL + _GAP + 30, second, _profiles(found, width - _LEFT - _PANEL - _GAP - 60)),
        _text(_LEFT, below - 10, _caption(found), size=11),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {below}" width="{width}" height="{below}"'
    font = 'font-family="system-ui, sans-serif" fill="#222"'
    ground = f'<rect width="{width}" height="{below}" fill="#fdfdfb"/>'
    return f'{head} role="img" {font}>\n{ground}\n' + "\n".join(parts) + "\n</svg>\n"


def _caption(found: GroupComparison) -> str:
    scope = "these" if found.target == "these" else "tasks like these"
    runs = ", ".join(f"{group.name}: {len(group.runs)}" for group in found.groups)
    return f"{found.metric}, {len(found.tasks)} tasks ({scope}), {100 * found.confidence:g}% intervals; runs {runs}"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _panel(
    title: str,
    rows: Sequence[tuple[str, Interval, str]],
    column: int,
    *,
    bounds: tuple[float, float] | None = None,
    mark: float | None = None,
) -> str:
    """One aggregate: a bar for every interval, a line at its point."""
    low, high = bounds or _bounds([interval for _, interval, _ in rows])
    left, bottom = _LEFT + column * (_PANEL + _GAP), _TOP + len(rows) * _ROW

    def at(value: float) -> float:
        # Held inside the panel: the end of a wide interval would lie on the neighbour.
        return left + (min(max(value, low), high) - low) / (high - low) * _PANEL

    parts = [_text(left + _PANEL / 2, _TOP - 14, title, anchor="middle", weight="600")]
    parts.append(f'<line x1="{left}" y1="{bottom}" x2="{left + _PANEL}" y2="{bottom}" stroke="#888"/>')
    for value in (low, (low + high) / 2, high):
        parts.append(f'<line x1="{at(value):.1f}" y1="{_TOP}" x2="{at(value):.1f}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(_text(at(value), bottom + 15, f"{value:.2f}", anchor="middle", size=10))
    if mark is not None:
        parts.append(
            f'<line x1="{at(mark):.1f}" y1="{_TOP}" x2="{at(mark):.1f}" y2="{bottom}" stroke="#888" '
            'stroke-dasharray="3 3"/>'
        )
    for row, (_, interval, colour) in enumerate(rows):
        y = _TOP + row * _ROW + _ROW / 2
        if math.isfinite(interval.high - interval.low):
            # An interval of no width must still be seen.
            width = max(1.0, at(interval.high) - at(interval.low))
            parts.append(
                f'<rect x="{at(interval.low):.1f}" y="{y - 6:.1f}" width="{width:.1f}" height="12" rx="2" '
                f'fill="{colour}" fill-opacity="0.45"/>'
            )
        x = at(interval.point)
        parts.append(f'<line x1="{x:.1f}" y1="{y - 8:.1f}" x2="{x:.1f}" y2="{y + 8:.1f}" stroke="{colour}" '
                     'stroke-width="2.5"/>')  # fmt: skip
    return "\n".join(parts)


def _bounds(intervals: Sequence[Interval]) -> tuple[float, float]:
    edges = [edge for i in intervals for edge in (i.low, i.point, i.high) if math.isfinite(edge)]
    low, high = min(edges), max(edges)
    # Rates get the whole scale, so that panels can be compared by eye.
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    # Equal edges would make a panel without width, by which `at` divides.
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _profiles(found: GroupComparison, width: float) -> str:
    """The share of scores above each threshold, a line and a band for every group."""
    low, high = float(found.thresholds[0]), float(found.thresholds[-1])

    def point(threshold: float, share: float) -> str:
        # Runs that all scored the same have thresholds without a range.
        x = (threshold - low) / ((high - low) or 1.0) * width
        return f"{x:.1f},{(1 - share) * _PROFILE_HEIGHT:.1f}"

    parts = [_text(width / 2, -14, "share of runs with a score above …", anchor="middle", weight="600")]
    for share in (0.0, 0.5, 1.0):
        y = (1 - share) * _PROFILE_HEIGHT
        parts.append(f'<line x1="0" y1="{y:.1f}" x2="{width:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(-6, y + 4, f"{share:.1f}", anchor="end", size=10))
    for value in (low, (low + high) / 2, high):
        x = (value - low) / ((high - low) or 1.0) * width
        parts.append(_text(x, _PROFILE_HEIGHT + 16, f"{value:.2f}", anchor="middle", size=10))
    for index, group in enumerate(found.groups):
        parts += _profile(found, group, _colour(index), point)
    return "\n".join(parts)


def _profile(
    found: GroupComparison, group: GroupScores, colour: str, place: Callable[[float, float], str]
) -> list[str]:
    parts = []
    if group.profile_low is not None and group.profile_high is not None:
        upper = [place(t, s) for t, s in zip(found.thresholds, group.profile_high, strict=True)]
        lower = [place(t, s) for t, s in zip(found.thresholds, group.profile_low, strict=True)]
        # Forth along the upper edge and back along the lower one.
        parts.append(f'<polygon points="{" ".join([*upper, *lower[::-1]])}" fill="{colour}" fill-opacity="0.15"/>')
    line = " ".join(place(t, s) for t, s in zip(found.thresholds, group.profile, strict=True))
    parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def _labels(names: Sequence[str], top: float) -> str:
    return "\n".join(
        _text(_LEFT - 10, top + row * _ROW + _ROW / 2 + 4, _short(name), anchor="end") for row, name in enumerate(names)
    )


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:10] + "…" + name[-11:]


def _moved(x: float, y: float, content: str) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f})">\n{content}\n</g>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "400") -> str:
    # Control characters are not allowed in XML at all, escaped or not.
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f"<text {where}>{escape(clean)}</text>"
