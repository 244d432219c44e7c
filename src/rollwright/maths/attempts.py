"""Credit where a task is attempted more than once in one episode (SCoRe): one return and one baseline per attempt.

Everything here is per attempt, which is one turn: [U] numbers of U attempts, each with the trajectory it belongs to and
its number in it, from 0. Sources: arXiv:2409.12917, section 5.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from rollwright.maths.sequences import require_finite_entries, require_length, reverse_discounted_sum


def progress_rewards(rewards: Tensor, trajectory_index: Tensor, attempt_index: Tensor, *, bonus: float) -> Tensor:
    """Rewards with SCoRe's bonus: an attempt after the first also earns `bonus` times its gain over the one before.

    Args:
        rewards: [U] float, what each attempt earned.
        trajectory_index, attempt_index: [U] int.
        bonus: alpha; 0 leaves the rewards as they are.

    Returns:
        [U] float. With alpha = 10: wrong then right 11, right twice 1, wrong twice 0, right then wrong -10.

    Raises:
        ValueError: lengths differ, a number is not finite, or the attempts of a trajectory are not numbered 0, 1, ...
    """
    before = _previous(rewards, trajectory_index, attempt_index)
    # First attempts have the place -1, which would read the last entry: the clamp and `where` keep it out.
    gained = torch.where(before >= 0, rewards - rewards[before.clamp(min=0)], torch.zeros_like(rewards))
    return rewards + bonus * gained


def attempt_returns(rewards: Tensor, trajectory_index: Tensor, attempt_index: Tensor, *, turn_gamma: float) -> Tensor:
    """What each attempt is credited with: its own reward, and `turn_gamma` times the return of the next attempt.

    0 is turn-local credit, SCoRe's safe choice: with a bonus, 1 (return-to-go) pays a wrong first attempt for being
    corrected later.

    Args:
        rewards: [U] float, with bonus and KL already in them.
        trajectory_index, attempt_index: [U] int.
        turn_gamma: 0 to 1.

    Returns:
        [U] float.

    Raises:
        ValueError: as `progress_rewards`.
    """
    before = _previous(rewards, trajectory_index, attempt_index)
    returns = rewards.clone()
    # Later attempts come first, so that a return is complete before the attempt in front of it takes its share.
    for place in torch.argsort(attempt_index, descending=True, stable=True).tolist():
        if (earlier := int(before[place])) >= 0:
            returns[earlier] += turn_gamma * returns[place]
    return returns


def leave_one_out_by_attempt(returns: Tensor, group_index: Tensor, attempt_index: Tensor) -> Tensor:
    """Each return minus the mean of the same attempt in the group's other episodes (RLOO, one baseline per attempt).

    One baseline over both attempts would couple them again, which is what the method avoids.

    Args:
        returns: [U] float.
        group_index: [U] int, the group of each attempt's trajectory.
        attempt_index: [U] int.

    Returns:
        [U] float: n / (n - 1) times the distance to the mean of the n attempts; 0 where there is only one.

    Raises:
        ValueError: lengths differ, or a return is not finite.
    """
    require_length("group_index", group_index, len(returns), per="attempt")
    require_length("attempt_index", attempt_index, len(returns), per="attempt")
    require_finite_entries(returns=returns)
    # One cell for each attempt number of a group: only equal attempts are compared.
    cells = torch.stack([group_index, attempt_index])
    _, cell = torch.unique(cells, dim=1, return_inverse=True)
    counts = torch.bincount(cell).to(returns.dtype)
    means = torch.zeros_like(counts).index_add(0, cell, returns) / counts
    # n / (n - 1) turns the distance to the mean of all into the distance to the mean of the others.
    scale = torch.where(counts > 1, counts / (counts - 1).clamp(min=1), torch.zeros_like(counts))
    return (returns - means[cell]) * scale[cell]


def kl_to_go(log_ratios: Tensor, turn_index: Tensor, num_turns: int, coefficients: Tensor) -> Tensor:
    """The KL penalty of every token: what its own attempt still pays from this token on.

    The other way to charge the KL than one sum per attempt: no baseline is taken off, and a token does not answer for
    what was drawn before it. At an attempt's first token both charge the same.

    Args:
        log_ratios: [N] float, log pi - log pi_ref of every token (k1).
        turn_index: [N] int, the attempt of every token.
        num_turns: U.
        coefficients: [N] float, the KL coefficient of every token.

    Returns:
        [N] float, to be taken off the tokens' advantages: sum of coefficient times log-ratio over this token and those
        after it in the same attempt.

    Raises:
        ValueError: lengths differ, or a number is not finite.
    """
    require_length("log_ratios", log_ratios, len(turn_index), per="action token")
    require_length("coefficients", coefficients, len(turn_index), per="action token")
    require_finite_entries(log_ratios=log_ratios, coefficients=coefficients)
    return reverse_discounted_sum(coefficients * log_ratios, turn_index, num_turns, 1.0)


def attempt_metrics(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """Accuracy of both attempts, the difference, and the shares of all episodes that became right or wrong.

    Args:
        first, second: one truth value per episode, in the same order.

    Raises:
        ValueError: different or zero lengths.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"both attempts of every episode are needed, got {len(first)} and {len(second)}")
    count = len(first)
    pairs = list(zip(first, second, strict=True))
    return {
        "accuracy_first": sum(first) / count,
        "accuracy_second": sum(second) / count,
        "delta": (sum(second) - sum(first)) / count,
        # Shares of all episodes, so that their difference is `delta`.
        "wrong_to_right": sum(b and not a for a, b in pairs) / count,
        "right_to_wrong": sum(a and not b for a, b in pairs) / count,
    }


def edit_ratio(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Levenshtein distance of two sequences over the longer one's length: 0 = the same, 1 = nothing in common."""
    # The division at the end would be 0 / 0.
    if not first and not second:
        return 0.0
    longer = max(len(first), len(second))
    # A common beginning or end is never edited; without it an attempt that changes one word takes one row.
    start = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    first, second = first[start:], second[start:]
    pairs = zip(reversed(first), reversed(second), strict=False)
    end = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    first, second = first[: len(first) - end], second[: len(second) - end]
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        # One row of the table is enough: `diagonal` keeps the entry that is about to be overwritten.
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1] / longer


def _previous(rewards: Tensor, trajectory_index: Tensor, attempt_index: Tensor) -> Tensor:
    """[U] the place of the attempt before each one, -1 for first attempts."""
    require_length("trajectory_index", trajectory_index, len(rewards), per="attempt")
    require_length("attempt_index", attempt_index, len(rewards), per="attempt")
    require_finite_entries(rewards=rewards)
    keys = list(zip(trajectory_index.tolist(), attempt_index.tolist(), strict=True))
    # A dictionary keeps one place per key, so a key that came twice makes it shorter.
    places = {key: place for place, key in enumerate(keys)}
    if len(places) < len(keys):
        raise ValueError("two turns of one trajectory have the same attempt number: an attempt must be one turn")
    lost = [key for key in keys if key[1] and (key[0], key[1] - 1) not in places]
    if lost:
        raise ValueError(f"trajectory {lost[0][0]} has attempt {lost[0][1]} but not the one before: drop such episodes")
    return torch.tensor([places[(s, k - 1)] if k else -1 for s, k in keys], dtype=torch.long)
