"""How much of an episode somebody else plays before the policy's own part begins (RLGF's roll-in).

    b ~ Bernoulli(frac);  k ~ Uniform{1, ..., L - 1} if b and L >= 2;  k = 0 otherwise

The last turn is never given: whoever begins there still has something to do. Source: arXiv:2306.11816.
"""

from __future__ import annotations

from rollwright.curriculum.samplers import draws_of


def is_prefixed(frac: float, *, seed: int, step: int, group: int) -> bool:
    """b: whether group `group` of this step begins behind a prefix at all. Known before anybody has played.

    Raises:
        ValueError: the share lies outside [0, 1].
    """
    if not 0 <= frac <= 1:
        raise ValueError(f"the share of groups that begin behind a prefix lies in [0, 1], got {frac}")
    return draws_of(seed, "prefix", step, group).random() < frac


def prefix_length(length: int, frac: float, *, seed: int, step: int, group: int) -> int:
    """k: the turns of an episode of `length` turns that are given; 0 = the group begins at the initial state.

    The draws depend on the run's seed, the step and the group alone: every rank and every resumed run finds the same.

    Raises:
        ValueError: the share lies outside [0, 1].
    """
    if not is_prefixed(frac, seed=seed, step=step, group=group) or length < 2:
        return 0
    # A stream of its own: the length must not depend on the number that decided about b.
    return 1 + draws_of(seed, "prefix length", step, group).randrange(length - 1)
