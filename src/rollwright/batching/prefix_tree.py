"""Prefix trees in depth-first order: many token sequences in one row, each shared prefix stored once.

Sequences are sorted, so that the longest prefix a sequence shares with anything before it is the one it shares with its
predecessor. A row then grows by appending what is new, and the subtree below node `j` is the run of nodes from `j` to
`ends[j]`. That gives the whole attention rule in one comparison: node `i` sees node `j` iff `j <= i < ends[j]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Cost of attention, in units of one token's way through the linear layers.

    `causal_pair` is the cost of one query-key pair under the plain causal kernel, which visits half the square;
    `masked_pair` that under an explicit mask. With `dense` a mask visits the row's whole square; without, branches do
    not pay for each other (`tree_attention`, on CPU), and a branch costs `block` besides. Defaults are for
    SmolLM2-135M: the causal one by counting operations (4 x 576 per pair and layer against 7.1 million per token), the
    masked one as measured on CPU (`benchmarks/packing.py --calibrate` measures both for another model or machine), the
    block's as two calls of `tree_attention.CALL_WORK`.
    """

    causal_pair: float = 3.3e-4
    masked_pair: float = 4.2e-4
    block: float = 2.0
    dense: bool = False

    def row(self, *, tokens: int, branching: bool) -> float:
        """A row by itself, under a dense mask where it branches."""
        pairs = self.masked_pair * tokens**2 if branching else self.causal_pair * tokens**2 / 2
        return tokens + pairs

    def branch(self, *, fresh: int, shared: int) -> float:
        """What `fresh` tokens below `shared` others add to a row whose branches do not pay for each other."""
        return fresh + self.masked_pair * fresh * (shared + fresh / 2) + self.block


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished prefix tree.

    tokens, depths, ends: [T] the token, its distance from the root, and the exclusive end of its subtree.
    members: which of the caller's sequences lie in this row; `paths[k]` holds the node of every token of `members[k]`.
    branching: false where every node has at most one child, so that plain causal attention is already right.
    """

    tokens: Ids
    depths: Ids
    ends: Ids
    members: tuple[int, ...]
    paths: tuple[Ids, ...]
    branching: bool

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class _Growing:
    """A row under construction; its open path is that of the sequence added last."""

    tokens: list[Ids] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """The depth at which each member left its predecessor's path."""
    members: list[int] = field(default_factory=list)
    paths: list[Ids] = field(default_factory=list)
    size: int = 0
    branching: bool = False

    def add(self, member: int, sequence: Ids, shared: int) -> None:
        """Append what `sequence` has beyond its first `shared` tokens, which it has in common with the open path."""
        opened = self.paths[-1] if self.paths else np.empty(0, dtype=np.int64)
        self.branching |= shared < len(opened)
        path = np.arange(self.size - shared, self.size - shared + len(sequence))
        path[:shared] = opened[:shared]
        self.tokens.append(sequence[shared:])
        self.starts.append(shared)
        self.paths.append(path)
        self.members.append(member)
        self.size += len(sequence) - shared

    def finish(self) -> Row:
        depths = np.concatenate([np.arange(s, s + len(t)) for s, t in zip(self.starts, self.tokens, strict=True)])
        return Row(
            tokens=np.concatenate(self.tokens),
            depths=depths,
            ends=self._ends(),
            members=tuple(self.members),
            paths=tuple(self.paths),
            branching=self.branching,
        )

    def _ends(self) -> Ids:
        """A node's subtree ends where the first member begins whose path no longer holds it."""
        ends = np.full(self.size, self.size)
        begin = len(self.tokens[0])
        for path, start, fresh in zip(self.paths, self.starts[1:], self.tokens[1:], strict=False):
            ends[path[start:]] = begin
            begin += len(fresh)
        return ends


Joins = Callable[[int, bool, int, int, int], bool]
"""(nodes in the row, branching now, branching afterwards as 0/1, length of the sequence, shared prefix) -> join?"""


def join_always(size: int, branching: bool, branches: int, length: int, shared: int) -> bool:
    """Share every prefix that can be shared."""
    return shared > 0


def join_never(size: int, branching: bool, branches: int, length: int, shared: int) -> bool:
    """Every sequence in a row of its own."""
    return False


def join_when_cheaper(costs: CostModel) -> Joins:
    """Share a prefix only where it saves more in the linear layers than it costs in attention over a wider row."""

    def joins(size: int, branching: bool, branches: int, length: int, shared: int) -> bool:
        apart = costs.row(tokens=length, branching=False)
        if costs.dense:
            joined = costs.row(tokens=size + length - shared, branching=branching or bool(branches))
            added = joined - costs.row(tokens=size, branching=branching)
        else:
            added = costs.branch(fresh=length - shared, shared=shared)
        return shared > 0 and added < apart

    return joins


def shared_prefix(first: Ids, second: Ids) -> int:
    """Length of the longest common prefix."""
    length = min(len(first), len(second))
    different = np.flatnonzero(first[:length] != second[:length])
    return int(different[0]) if len(different) else length


def sort_order(sequences: Sequence[Ids]) -> list[int]:
    """Indices of the sequences in lexicographic order; equal ones keep the caller's order."""
    # Big-endian bytes compare like the numbers they hold, and in C.
    keys = [np.asarray(sequence, dtype=">u8").tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def build_rows(sequences: Sequence[Ids], *, limit: int, joins: Joins) -> list[Row]:
    """Distribute sequences over rows of prefix trees.

    Args:
        sequences: non-empty token sequences.
        limit: most nodes a row may hold. A tree that is larger goes on in a new row, which repeats the path from the
            root to the place of the cut. A single sequence longer than this gets a row of its own.
        joins: decides whether a sequence that would fit is worth joining to the current row.

    Returns:
        Rows in depth-first order; every sequence is a member of exactly one.
    """
    rows: list[Row] = []
    growing = _Growing()
    for index in sort_order(sequences):
        sequence = sequences[index]
        shared = 0
        if growing.members:
            previous = sequences[growing.members[-1]]
            shared = shared_prefix(previous, sequence)
            fits = growing.size + len(sequence) - shared <= limit
            branches = int(shared < len(previous))
            if not (fits and joins(growing.size, growing.branching, branches, len(sequence), shared)):
                rows.append(growing.finish())
                growing, shared = _Growing(), 0
        growing.add(index, sequence, shared)
    if growing.members:
        rows.append(growing.finish())
    return rows
