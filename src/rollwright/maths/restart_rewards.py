"""What an episode earns that may have begun at a restart, and the pair loss with a margin (Satori).

    R = (solved - 1) + sigmoid(preference) + bonus
    bonus = +beta  behind a failed episode, if solved now     (status -1)
            -beta  behind a solved episode, if failed now     (status +1)
            0      otherwise, and from the initial state      (status 0)

Source: arXiv:2502.02508.
"""

from __future__ import annotations

import torch
from torch import Tensor

STATUSES = (-1, 0, 1)


def reflection_bonus(solved: bool, status: int, *, beta: float = 0.5) -> float:
    """What repairing a failed beginning earns, and destroying a solved one costs.

    Args:
        status: what became of the episode that the restart was taken from: -1 failed, 1 solved, 0 no restart.

    Raises:
        ValueError: another status.
    """
    if status not in STATUSES:
        raise ValueError(f"the status of a start is one of {', '.join(map(str, STATUSES))}, got {status}")
    if status == -1:
        return beta if solved else 0.0
    return -beta if status == 1 and not solved else 0.0


def margin_ranking_loss(better: Tensor, worse: Tensor, *, margin: float = 0.0) -> Tensor:
    """Same shape: -log sigmoid(better - worse - margin), the Bradley-Terry loss with a margin."""
    return -torch.nn.functional.logsigmoid(better - worse - margin)
