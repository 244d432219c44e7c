"""Selection and back-up in search trees: pure functions of counts and values.

Sources: arXiv:2501.11425 (Agent-R: UCT with sums), arXiv:2501.11223 and its released framework (the reasoning
blueprint: a score without a policy prior, values normalised by what was seen, a discounted average as back-up).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Bounds = tuple[float, float]
"""The lowest and the highest value seen so far."""


def uct_scores(
    totals: Sequence[float], visits: Sequence[int], parent_visits: int, exploration: float = 0.25
) -> list[float]:
    """total/n + c sqrt(ln N / n) of each child; infinite where it was never visited. Source: arXiv:2501.11425.

    Args:
        totals: sum of the values backed up through each child. visits: how many they are, n.
        parent_visits: N, of the node itself.

    Raises:
        ValueError: other lengths, or a child that was visited below a node that was not.
    """
    _require_pairs(totals, visits)
    if any(visits) and parent_visits < 1:
        raise ValueError(f"a node with {parent_visits} visits has children with {list(visits)}")
    return [
        total / count + exploration * math.sqrt(math.log(parent_visits) / count) if count else math.inf
        for total, count in zip(totals, visits, strict=True)
    ]


def puct_scores(
    values: Sequence[float], visits: Sequence[int], parent_visits: int, *, c1: float = 1.25, c2: float = 19652.0
) -> list[float]:
    """value + sqrt(N - 1)/(1 + n) (c1 + ln((N + c2)/c2)) of each child. Source: arXiv:2501.11223, released framework.

    A node with N = 0 counts as N = 1, where the second term is 0: the released code takes the root of -1 there.

    Args:
        values: normalised (`normalised_value`). visits: n of each child. parent_visits: N, of the node itself.
    """
    _require_pairs(values, visits)
    factor = c1 + math.log((parent_visits + c2) / c2)
    width = math.sqrt(max(0, parent_visits - 1))
    return [value + width / (1 + count) * factor for value, count in zip(values, visits, strict=True)]


def normalised_value(value: float, bounds: Bounds | None) -> float:
    """(value - low)/(high - low); the raw value while fewer than two different values were seen."""
    if bounds is None or bounds[1] <= bounds[0]:
        return value
    return (value - bounds[0]) / (bounds[1] - bounds[0])


def widened(bounds: Bounds | None, value: float, *, skip_zero: bool = False) -> Bounds | None:
    """The bounds with one more value seen. `skip_zero` leaves them as they are at exactly 0 (released framework)."""
    if skip_zero and value == 0.0:
        return bounds
    return (value, value) if bounds is None else (min(bounds[0], value), max(bounds[1], value))


def discounted_average(
    values: Sequence[float], visits: Sequence[int], *, discount: float = 0.96, rate: float = 1.0, old: float = 0.0
) -> float:
    """(1 - rate) old + rate sum(n discount value)/sum(n): what a node is worth by its children. arXiv:2501.11223.

    It shrinks by `discount` per level, so that only nodes of one depth can be compared by it.

    Raises:
        ValueError: other lengths, or no visit at all.
    """
    _require_pairs(values, visits)
    if sum(visits) < 1:
        raise ValueError("a node without a visited child cannot be worth what its children are")
    pairs = zip(values, visits, strict=True)
    return (1.0 - rate) * old + rate * discount * math.fsum(v * n for v, n in pairs) / sum(visits)


def judged_state(
    estimate: float | None, simulations: Sequence[float] = (), *, mix: float = 0.5, outcome: float | None = None
) -> float | None:
    """What a new state is worth: its outcome where it has ended and one is known, else model and simulations mixed.

    (1 - mix) estimate + mix mean(simulations); one of the two alone where the other is missing, None where both are.
    Source: arXiv:2501.11223, released framework (mix 0.5).
    """
    if outcome is not None:
        return outcome
    if not simulations:
        return estimate
    mean = math.fsum(simulations) / len(simulations)
    return mean if estimate is None else (1.0 - mix) * estimate + mix * mean


def best_choice(scores: Sequence[float], draws: random.Random) -> int:
    """The place of the highest score; among equal ones, one by chance.

    Raises:
        ValueError: there is none.
    """
    most = max(scores)
    equal = [place for place, score in enumerate(scores) if score == most]
    # Nothing is drawn where there is no choice, so that a tree without ties needs no chance.
    return equal[0] if len(equal) == 1 else draws.choice(equal)


def followed_path(children: Sequence[Sequence[int]], worth: Sequence[float], start: int = 0) -> list[int]:
    """From `start`, always on to the child that is worth most, the first of equal ones, until there is none.

    `worth` is what the path is chosen by: mean values, visits, or scores of leaves. [N] nodes each.
    """
    path = [start]
    while children[path[-1]]:
        path.append(max(children[path[-1]], key=lambda child: worth[child]))
    return path


def _require_pairs(values: Sequence[float], visits: Sequence[int]) -> None:
    if len(values) != len(visits):
        raise ValueError(f"{len(values)} values and {len(visits)} counts of visits: give one of each per child")
