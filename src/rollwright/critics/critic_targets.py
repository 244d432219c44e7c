"""What a critic is fitted to: targets by the name of the head, and the losses that hold its values against them.

A turn critic is told `{"q": (actions, targets), "v": (states, targets)}`: each head sees its own rows only, and the
means over the rows of each head are added. The loss of a head is one function of values and targets, such as
`maths.expectile_loss`. The target of a bootstrapped Q, r + gamma V(s'), stands here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from rollwright.maths import Divergence, dual_value_loss, expectile_loss, td_target
from rollwright.store.replay import Transition

Readings = Mapping[str, Tensor]
"""Name of the head -> [heads, N] float32."""

Columns = Mapping[str, Tensor]
"""Name -> [N] or [heads, N] what each of N places is fitted to, or counts."""

HeadLoss = Callable[[Tensor, Tensor], Tensor]
"""([heads, n] values with gradient, [heads, n] targets) -> [heads, n] one loss for each."""

ColumnLoss = Callable[[Readings, Columns], Tensor]
"""(values of n places with gradient, the columns at these places) -> [n] one loss for each."""

HeadTargets = Mapping[str, tuple[Sequence[Sequence[int]], Tensor]]
"""Name of the head -> the sequences that it is read at the end of, and [n] or [heads, n] what it shall say there."""


DIVERGENCES: dict[str, Divergence] = {"fdvl_tv": "tv", "fdvl_chi2": "chi2"}
"""Kinds of V whose loss is f-DVL's, and the divergence of each."""


def squared_error(values: Tensor, targets: Tensor) -> Tensor:
    """(value - target)^2, per entry: the regression on a mean."""
    return (values - targets).square()


def loss_of_v(kind: str, *, expectile: float, alpha: float) -> HeadLoss:
    """Loss of V against values of actions: squared for fresh actions, leaning upwards for stored ones.

    Args:
        kind: "policy" (fresh actions), "iql", or one of `DIVERGENCES`.
        expectile: tau of IQL. alpha: how far f-DVL leans towards the best action.

    Sources: arXiv:2402.19446 (ArCHer), arXiv:2110.06169 (IQL), arXiv:2302.08560 (f-DVL).
    """
    if kind == "policy":
        return squared_error
    if kind == "iql":
        return partial(expectile_loss, expectile=expectile)
    return partial(dual_value_loss, divergence=DIVERGENCES[kind], alpha=alpha)


def rows_of_heads(
    targets: HeadTargets, weights: Mapping[str, Tensor] | None = None
) -> tuple[list[Sequence[int]], dict[str, Tensor]]:
    """All sequences of the update in the order of the heads, and the columns that `loss_of_heads` reads.

    Args:
        weights: name of a head -> [n] what each of its rows counts; 1 where left out.

    Raises:
        ValueError: a head has another number of targets or weights than of sequences.
    """
    sequences = [ids for rows, _ in targets.values() for ids in rows]
    columns: dict[str, Tensor] = {}
    start, total = 0, len(sequences)
    for name, (rows, wanted) in targets.items():
        counts = torch.ones(len(rows)) if weights is None or name not in weights else weights[name]
        if wanted.shape[-1] != len(rows) or len(counts) != len(rows):
            raise ValueError(
                f"the head {name!r} has {len(rows)} sequences, {wanted.shape[-1]} targets and {len(counts)} weights"
            )
        place = slice(start, start + len(rows))
        # The rows of other heads hold 0 here, which is no target: `loss_of_heads` does not look at them.
        columns[name] = torch.zeros(*wanted.shape[:-1], total)
        columns[name][..., place] = wanted
        # The learner takes the mean over all rows, the method one over the rows of each head.
        columns[_share(name)] = torch.zeros(total)
        columns[_share(name)][place] = counts * (total / max(1, len(rows)))
        start += len(rows)
    return sequences, columns


def loss_of_heads(losses: Mapping[str, HeadLoss], values: Readings, columns: Columns) -> Tensor:
    """[n] each place's loss: of its own head alone, added over the members of an ensemble.

    Args:
        losses: name of the head -> its loss; `squared_error` where left out.
        columns: made by `rows_of_heads`.
    """
    found = torch.zeros_like(next(iter(values.values()))[0])
    # Columns named after no head are the shares.
    for name in [name for name in columns if name in values]:
        share = columns[_share(name)]
        # A micro-batch may hold none of a head's rows; rows of weight 0 are left out too, and would add 0.
        mine = share.nonzero()[:, 0]
        said = values[name][:, mine]
        # Targets [n] serve all heads of the name; [heads, n] give each its own (ArCHer's double critics).
        each = losses.get(name, squared_error)(said, columns[name][..., mine].expand_as(said))
        found = found.index_add(0, mine, share[mine] * each.sum(dim=0))
    return found


def _share(name: str) -> str:
    """The column that says what a row counts for this head; 0 in the rows of others."""
    return f"share of {name}"


def followed(batch: Sequence[Transition], *, truncated_end: bool = False) -> list[int]:
    """Places of the turns that another state comes after.

    Args:
        truncated_end: a limit is the task's own end, so that nothing comes after a cut episode.
    """
    return [k for k, t in enumerate(batch) if t.next_prompt_ids and not (truncated_end and t.truncated)]


def one_step_targets(
    batch: Sequence[Transition], following: Tensor, *, gamma: float, truncated_end: bool = False
) -> Tensor:
    """[heads, n] r + gamma V(s'); r alone where the task ended.

    A turn after which a cut left no state to bootstrap from has no such target: `valid_turns(needs_next=True)`.

    Args:
        following: [heads, m] values of the states after the m turns that `followed` gives, in the batch's order.
    """
    # Asked again and not passed in: `following` must have been read by the same rule.
    follows = followed(batch, truncated_end=truncated_end)
    after = torch.zeros(len(following), len(batch))
    after[:, follows] = following
    rewards = torch.tensor([t.reward for t in batch])
    # A cut turn that a state comes after is not done: the limit is no end of the task.
    done = torch.ones(len(batch), dtype=torch.bool)
    done[follows] = False
    return td_target(rewards.expand_as(after), after, done.expand_as(after), gamma=gamma)
