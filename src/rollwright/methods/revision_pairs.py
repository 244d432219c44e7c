"""Which two episodes make a revision, and where the worse one is left: the pure part of Agent-R. No world, no model.

A family is what was played from one start: episodes of one task and seed, most of which begin alike, as the leaves of a
search tree do. Of two leaves the worse one is kept up to its first bad action and the better one goes on from there.

Source: arXiv:2501.11425.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rollwright.contracts import DataError, Trajectory, require_choice

Threshold = Literal["above", "at_least"]
"""Whether a good score must lie above alpha, or may be equal to it."""
Rating = Literal["good", "uncertain", "bad"]
RATINGS: tuple[Rating, ...] = get_args(Rating)
Merit = Literal["return", "success", "discounted_success"]
"""What a leaf is judged by: its return, its verdict as 0 or 1, or the latter times discount to the number of turns."""

TIE = 1e-9
"""Scores that differ by less are equal: 0.7 - 0.5 is no more than 0.2, whichever way binary fractions round it."""


def is_good(score: float, alpha: float, threshold: Threshold) -> bool:
    """Whether a leaf of this score may be learned from: above alpha, or at least alpha.

    Raises:
        ValueError: no such threshold.
    """
    require_choice("threshold", threshold, Threshold)
    return score > alpha + TIE if threshold == "above" else score > alpha - TIE


def revision_pairs(
    scores: Sequence[float], *, alpha: float, beta: float, threshold: Threshold = "above"
) -> list[tuple[int, int]]:
    """Ordered pairs (bad, good) of leaves: good is `is_good`, and better than bad by more than beta.

    The gap is strict and decided up to `TIE`: scores 0.5 and 0.7 are no pair at beta = 0.2, nor are 0.7 and 0.9.

    Args:
        scores: one per leaf, each within [0, 1].

    Raises:
        ValueError: alpha lies outside [0, 1], beta is negative, or a score is none.
    """
    if not 0 <= alpha <= 1 or not 0 <= beta < math.inf:
        raise ValueError(f"alpha lies within [0, 1] and beta is 0 or more; got {alpha!r} and {beta!r}")
    # Thresholds mean nothing on another scale: the maze's returns, say, are all below 0.
    if odd := [score for score in scores if not -TIE <= score <= 1 + TIE]:
        raise ValueError(f"scores of leaves lie within [0, 1], got {odd[0]!r}")
    good = [j for j, score in enumerate(scores) if is_good(score, alpha, threshold)]
    return [(i, j) for j in good for i in range(len(scores)) if scores[j] - scores[i] > beta + TIE]


def chosen_pairs(pairs: Sequence[tuple[int, int]], *, at_most: int, key: str) -> list[tuple[int, int]]:
    """The pairs in an order that `key` fixes, and no more than so many of them; 0 = all.

    k leaves give up to k (k - 1) / 2 pairs, so that without a limit easy tasks would drown the hard ones.
    """
    order = list(pairs)
    # A text seed is hashed alike in every process.
    random.Random(f"revisions/{key}").shuffle(order)
    return order[:at_most] if at_most else order


def kept_steps(ratings: Sequence[Rating]) -> int:
    """How many of the worse episode's own steps stay: up to the first bad one, which stays; all where none is bad.

    Raises:
        ValueError: no such rating.
    """
    for rating in ratings:
        require_choice("rating", rating, Rating)
    return ratings.index("bad") + 1 if "bad" in ratings else len(ratings)


def parse_rating(answer: str) -> Rating:
    """The rating that an answer consists of, alone; "uncertain" where it is anything else.

    The released code looks for the word "bad" anywhere, so that "not bad" counts as bad.
    """
    word = answer.strip().strip(".!\"'`*").strip().lower()
    return next((rating for rating in RATINGS if rating == word), "uncertain")


def round_alpha(alphas: Sequence[float], number: int) -> float:
    """The threshold of round `number`, counted from 0; rounds beyond the list have its last."""
    return alphas[min(number, len(alphas) - 1)]


def leaf_score(leaf: Trajectory, merit: Merit, discount: float = 1.0) -> float:
    """What the leaf is judged by, see `Merit`; a return below 0 is a disaster and counts 0, as in the released code.

    Raises:
        DataError: a return above 1.
        ValueError: no such merit.
    """
    require_choice("merit", merit, Merit)
    if merit == "return":
        if leaf.total_reward > 1 + TIE:
            raise DataError(
                f"the episode {leaf.id} of task {leaf.task.id!r} has a return of {leaf.total_reward:g}, and thresholds "
                "lie within [0, 1]: set algorithm.merit=success or discounted_success, or a reward within [0, 1]"
            )
        return max(0.0, leaf.total_reward)
    if not leaf.success:
        return 0.0
    # One turn is the shortest success: it is worth 1.
    return 1.0 if merit == "success" else discount ** max(0, len(leaf.turns) - 1)


def shared_turns(first: Trajectory, second: Trajectory) -> int:
    """Number of turns at the beginning in which both were given the same and did the same."""
    pairs = zip(first.turns, second.turns, strict=False)
    same = ((a.prompt_ids, a.action_ids, a.state_key) == (b.prompt_ids, b.action_ids, b.state_key) for a, b in pairs)
    # `index` of the first difference; without one, the shorter of the two.
    return next((place for place, alike in enumerate(same) if not alike), min(len(first.turns), len(second.turns)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionPair:
    """Two leaves of one family: `bad` scored `bad_score`, `good` more, and they share their first `shared` turns.

    values: [turns of bad + 1] see `prefix_values`.
    """

    bad: Trajectory
    good: Trajectory
    shared: int
    bad_score: float
    good_score: float
    values: tuple[float, ...] = ()


def family_pairs(
    leaves: Sequence[Trajectory],
    scores: Sequence[float],
    *,
    alpha: float,
    beta: float,
    threshold: Threshold,
    at_most: int,
    key: str,
) -> list[RevisionPair]:
    """The pairs of one family (`revision_pairs`), shuffled and limited (`chosen_pairs`).

    Raises:
        DataError: the leaves are of several tasks or seeds, or of a held-out split.
    """
    require_one_family(leaves)
    every = revision_pairs(scores, alpha=alpha, beta=beta, threshold=threshold)
    chosen = chosen_pairs(every, at_most=at_most, key=key)
    # One leaf is the worse one of many pairs.
    values = {i: tuple(prefix_values(leaves[i], leaves, scores)) for i, _ in chosen}
    found = [
        RevisionPair(
            bad=leaves[i],
            good=leaves[j],
            shared=shared_turns(leaves[i], leaves[j]),
            bad_score=scores[i],
            good_score=scores[j],
            values=values[i],
        )
        for i, j in chosen
    ]
    # One that ends where the other goes on has no step of its own that could be wrong, or nothing to go on with.
    return [pair for pair in found if pair.shared < min(len(pair.bad.turns), len(pair.good.turns))]


def require_one_family(leaves: Sequence[Trajectory]) -> None:
    """Raises DataError where the leaves are not of one task and seed of the training split."""
    if len(starts := {(leaf.task.id, leaf.seed) for leaf in leaves}) > 1:
        raise DataError(f"revisions are made of episodes from one start, and these are from {sorted(starts)}")
    if held_out := [leaf.task for leaf in leaves if leaf.task.split != "train"]:
        raise DataError(
            f"task {held_out[0].id!r} is of split {held_out[0].split!r}: revisions of held-out tasks would spoil the "
            "evaluation; search on training tasks only"
        )


def prefix_values(path: Trajectory, leaves: Sequence[Trajectory], scores: Sequence[float]) -> list[float]:
    """[turns + 1] mean score of the leaves that share the first 0, 1, ... turns of `path`: a value by rollouts.

    Args:
        leaves: a family with `path` in it. scores: one per leaf.
    """
    common = [shared_turns(path, leaf) for leaf in leaves]
    values = []
    for turns in range(len(path.turns) + 1):
        passing = [score for score, shared in zip(scores, common, strict=True) if shared >= turns]
        values.append(math.fsum(passing) / len(passing))
    return values


def ratings_by_value(values: Sequence[float], *, drop: float) -> list[Rating]:
    """[n] rating of each step from the values before and after it, [n + 1]: bad where it loses more than `drop`."""
    return ["bad" if before - after > drop + TIE else "good" for before, after in itertools.pairwise(values)]


def repeats_failing_action(episode: Trajectory) -> bool:
    """Whether an action that had changed nothing was done again in the same state. False where states are unknown."""
    failed: set[tuple[str, str]] = set()
    for turn, after in itertools.pairwise(episode.turns):
        if not turn.state_key:
            return False
        place = (turn.state_key, turn.action)
        if place in failed:
            return True
        if after.state_key == turn.state_key:
            failed.add(place)
    last = episode.turns[-1] if episode.turns else None
    return last is not None and (last.state_key, last.action) in failed
