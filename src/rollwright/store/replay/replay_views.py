"""Views over a turn table: pure functions from arrays to the numbers of the turns (or trajectories) that are kept.

Each is a filter with one meaning; they are combined by taking one view's result as the next one's `among`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollwright.store.replay.replay_table import TurnTable

Array = NDArray[Any]


def valid_turns(table: TurnTable, *, needs_next: bool = False) -> Array:
    """Turns that may be trained on: of the train split, without fault, decided, with an action of at least one token.

    Args:
        needs_next: leave out last turns that were cut and left no next prompt: a TD target cannot bootstrap there.
    """
    kept = table.per_turn("learnable") & table.per_turn("train") & (table.column("length") > 0)
    if needs_next:
        last = table.column("turn") + 1 == table.per_turn("num_turns")
        # A truncated end whose next prompt did not fit the context has no ids to value.
        blind = table.per_turn("truncated") & (table.per_turn("next_end") == table.per_turn("next_start"))
        kept &= ~(last & blind)
    return np.flatnonzero(kept)


def best_trajectories(scores: Array, fraction: float, *, positive_only: bool, among: Array | None = None) -> Array:
    """Trajectories whose score reaches the (1 - fraction) quantile (linear interpolation), compared with >=.

    DigiRL's own rule: all that tie with the quantile are kept. Where fewer than `fraction` succeed at a 0/1 score the
    quantile is 0 and >= keeps every failure too: `positive_only` is the answer to that.

    Args:
        scores: [S] float, one per trajectory.
        among: [n] the trajectories to choose from; None = all.

    Raises:
        ValueError: fraction outside (0, 1], or a score that is not finite.

    Sources: DigiRL's filter, arXiv:2406.11896.
    """
    chosen = _choice(scores, fraction, among)
    if not len(chosen):
        return chosen
    kept = scores[chosen] >= np.quantile(scores[chosen], 1 - fraction)
    if positive_only:
        kept &= scores[chosen] > 0
    return chosen[kept]


def top_trajectories(
    scores: Array, fraction: float, *, rng: np.random.Generator, positive_only: bool = False, among: Array | None = None
) -> Array:
    """The int(n * fraction) best trajectories of n, one at least, in order; a seeded draw decides between equal scores.

    A trajectory's lot depends on its number alone, so the same `rng` state draws the same ones after others joined.

    Args:
        scores: [S] float, one per trajectory.
        rng: the only source of randomness; S numbers are drawn.
        positive_only: of these, only the ones with a score above 0.
        among: [n] the trajectories to choose from; None = all.

    Raises:
        ValueError: fraction outside (0, 1], or a score that is not finite.

    Sources: filtered BC of LMRL-Gym, arXiv:2311.18232.
    """
    chosen = _choice(scores, fraction, among)
    lots = rng.random(len(scores))[chosen]
    # `lexsort` sorts by its last key first: by score, and by lot among equals.
    best_first = chosen[np.lexsort((lots, -scores[chosen]))]
    count = max(1, int(len(chosen) * fraction + 1e-9))  # 100 * 0.29 is 28.999999999999996
    # Cut to the share first: `positive_only` may leave fewer, and never fills up with others.
    kept = np.sort(best_first[:count])
    return kept[scores[kept] > 0] if positive_only else kept


def _choice(scores: Array, fraction: float, among: Array | None) -> Array:
    """The trajectories to choose from, once what is asked for makes sense."""
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction to keep lies in (0, 1], got {fraction}")
    chosen = np.arange(len(scores)) if among is None else among
    odd = chosen[~np.isfinite(scores[chosen])]
    if len(odd):
        raise ValueError(f"scores must be finite to be ranked, got {scores[odd[0]]} for trajectory {odd[0]}")
    return chosen


def keep_trajectories(table: TurnTable, trajectories: Array, *, among: Array) -> Array:
    """The turns of `among` that belong to one of the trajectories."""
    wanted = np.zeros(len(table.trajectories), np.bool_)
    wanted[trajectories] = True
    return among[wanted[table.owners()[among]]]


def above(turns: Array, advantages: Array, threshold: float) -> Array:
    """Turns whose advantage is strictly larger than the threshold. turns, advantages: [n], in the same order.

    Raises:
        ValueError: an advantage that is not a number: it would be left out in silence.
    """
    _refuse_nan("advantages", advantages)
    # Strict, as DigiRL's filter of steps (advantage > 1/H).
    return turns[advantages > threshold]


def in_perplexity_band(turns: Array, mean_logprobs: Array, *, low: float = 0.5, high: float = 0.95) -> Array:
    """Turns with low < p <= high for p = exp(mean log-prob of the action's tokens) under the policy that was asked.

    Neither memorised nor too surprising. The log-probs belong to a named policy version and must be computed anew for
    the next one.

    Args:
        turns, mean_logprobs: [n], in the same order.

    Raises:
        ValueError: a log-prob that is not a number.

    Sources: WebRL, arXiv:2411.02337.
    """
    _refuse_nan("mean_logprobs", mean_logprobs)
    # Per token: the geometric mean, so that a long action is not improbable by its length alone.
    probability = np.exp(mean_logprobs)
    # The bounds are WebRL's perplexities [1 / 0.95, 1 / 0.5), read as probabilities: open below, closed above.
    return turns[(probability > low) & (probability <= high)]


def _refuse_nan(name: str, values: Array) -> None:
    odd = np.flatnonzero(np.isnan(values))
    if len(odd):
        raise ValueError(f"`{name}` holds NaN at {odd[0]}: the model or critic that gave it is broken")


def latest_per_task(table: TurnTable, *, among: Array) -> Array:
    """Trajectories: the last one of every task among these, in order (WebRL keeps the latest success of each)."""
    # A later row of the same task overwrites the earlier one; `among` is in the order written.
    latest = {int(task): int(row) for row, task in zip(among, table.trajectories["task"][among], strict=True)}
    return np.array(sorted(latest.values()), np.int64)


def cap_relative(turns: Array, *, num_current: int, ratio: float, rng: np.random.Generator) -> Array:
    """At most `ratio` times as many old turns as there are current ones, drawn without replacement, shuffled."""
    # Shuffled before it is cut: otherwise the oldest turns would be replayed and never the others.
    limit = int(ratio * num_current)
    return rng.permutation(turns)[:limit]


def mixed_places(marked: Array, size: int, frac: float, draws: np.random.Generator) -> Array:
    """[size] places, exactly round(size frac) of them marked ones, each kind drawn uniformly with replacement.

    Where one kind is missing all are of the other.

    Args:
        marked: [n] bool.

    Raises:
        ValueError: there is nothing to draw from, or the share lies outside [0, 1].

    Sources: arXiv:2302.02948 (RLPD), arXiv:2410.21845 (HIL-SERL): half of each batch from the second buffer.
    """
    if not len(marked) or not 0 <= frac <= 1:
        raise ValueError(f"a mixed draw needs places and a share in [0, 1], got {len(marked)} and {frac}")
    ones, others = np.flatnonzero(marked), np.flatnonzero(~marked)
    count = round(size * frac) if len(ones) and len(others) else size * bool(len(ones))
    # Permuted: whoever cuts a draw into parts finds both kinds in each.
    parts = [draws.choice(kind, number) for kind, number in ((ones, count), (others, size - count)) if number]
    return draws.permutation(np.concatenate(parts))
