"""Values of the steps of a search: what a value model says, what it is told by a tree, and how well it ranks steps.

Values lie in [-1, 1]: -1 is a sure failure, 1 a sure success. Source: arXiv:2501.11223 and its released framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rollwright.maths.sequences import require_same_shape


def signed_value(logits: Tensor) -> Tensor:
    """2 sigmoid(z) - 1: logits of any shape -> values between -1 and 1. A target of 1 is approached, up to rounding.

    Source: the value head of arXiv:2501.11223.
    """
    # The same function, with less rounding where sigmoid is near 1.
    return torch.tanh(logits / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalShare:
    """Of one node: the share of its terminal descendants that succeeded, mapped to [-1, 1], and how many there are."""

    value: float
    count: int


def terminal_shares(parents: Sequence[int | None], outcomes: Sequence[bool | None]) -> list[TerminalShare | None]:
    """What the ends below each node say of it; a node that ended itself is its own only terminal descendant.

    Args:
        parents: number of each node's parent, which comes before it; None at the root.
        outcomes: success of the nodes in which an episode ended; None of the others, and of ends that nobody judged.

    Returns:
        One entry per node; None where no judged end lies below it: such a node has no target.

    Raises:
        ValueError: other lengths, or a parent that does not come before its child.
    """
    if len(parents) != len(outcomes):
        raise ValueError(f"{len(parents)} parents and {len(outcomes)} outcomes: give one of each per node")
    wins = [int(bool(outcome)) for outcome in outcomes]
    ends = [int(outcome is not None) for outcome in outcomes]
    # Children come after their parents, so that one pass from the end adds up whole subtrees.
    for node in range(len(parents) - 1, -1, -1):
        parent = parents[node]
        if parent is None:
            continue
        if not 0 <= parent < node:
            raise ValueError(f"node {node} has the parent {parent}, which does not come before it")
        wins[parent] += wins[node]
        ends[parent] += ends[node]
    return [
        TerminalShare(value=2.0 * won / count - 1.0, count=count) if count else None
        for won, count in zip(wins, ends, strict=True)
    ]


def ranking_accuracy(better: Tensor, worse: Tensor) -> float | None:
    """Share of the pairs whose better step has the higher value; equal values count one half. [P], [P]; None of none.

    A model that says the same of all steps has 0.5.

    Raises:
        ValueError: tensors of different shapes.
    """
    require_same_shape(better=better, worse=worse)
    if not better.numel():
        return None
    right = (better > worse).double() + 0.5 * (better == worse).double()
    return float(right.mean())
