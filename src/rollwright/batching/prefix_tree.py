"""Prefix trees in depth-first order: many token sequences in one row, each shared prefix stored once.

Sequences are sorted, so that the longest prefix a sequence shares with anything before it is the one it shares with its
predecessor. A row then grows by appending what is new, and the subtree below node `j` is the run of nodes from `j` to
`ends[j]`. That gives the whole attention rule in one comparison: node `i` sees node `j` iff `j <= i < ends[j]`.

Attention over prefix trees that skips what no query sees.

Under a dense mask a row of T tokens costs T^2 query-key pairs, although the branches of a tree do not look at each
other. Here a row is cut into blocks of neighbouring queries, and a block meets only the keys that some query of it
sees: its ancestors and itself. Same numbers as the dense mask, fewer pairs.

The function is registered with transformers as "sdpa_tree". Without `tree_rows` among the model's keyword arguments it
is transformers' own "sdpa": generation, padded batches and other users of the model notice nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

TREE_ATTENTION = "sdpa_tree"

CALL_WORK = 1.2e6
"""What one more block costs besides its pairs (its launch, joining its keys), in pairs times the model's width."""
LONGEST_PIECE = 128
"""Longer chains are cut: the queries of a piece skip the keys of those after it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring queries: pieces `first` to `last` (exclusive) of the row, which see the keys of pieces `seen`.

    mask: [queries, keys] bool, true where a query may look; the keys are those of `seen`, one after the other.
    """

    first: int
    last: int
    seen: tuple[int, ...]
    mask: Tensor


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One packed row: the lengths of its pieces, which add up to the row's length, and its blocks in order."""

    lengths: tuple[int, ...]
    blocks: tuple[Block, ...]


def plan_rows(subtree_ends: Tensor, *, width: int, always: bool = False) -> tuple[TreeRow, ...] | None:
    """Plan the attention of packed rows; None where one call under a dense mask is cheaper, unless `always`.

    Args:
        subtree_ends: [B, T] int64; position i sees position j iff j <= i < subtree_ends[j].
        width: of the model (heads times head dimension): the narrower it is, the larger the blocks that pay.
    """
    # A call costs the same at any width and a pair grows with it: for a wide model a call is worth fewer pairs.
    call_pairs = CALL_WORK / width
    rows = tuple(_plan(row, call_pairs) for row in subtree_ends.unbind(0))
    blocks = [block for row in rows for block in row.blocks]
    # Both sides in query-key pairs: the blocks' with what their launches cost, against the whole square of every row.
    cost = sum(block.mask.numel() for block in blocks) + call_pairs * (len(blocks) - 1)
    return rows if always or cost < subtree_ends.numel() * subtree_ends.shape[1] else None


def pays_on(device: torch.device) -> bool:
    """Whether blocks are used: a GPU would rather multiply zeros than launch many small kernels (not measured)."""
    return device.type == "cpu"


def _plan(ends: Tensor, call_pairs: float) -> TreeRow:
    starts = _piece_starts(ends.tolist())
    edges = [*starts, len(ends)]
    lengths = tuple(after - start for start, after in zip(starts, edges[1:], strict=True))
    last_seen = [int(ends[start]) for start in starts]  # the same for all of a piece

    def keys_of(first: int, last: int) -> list[int]:
        # Pieces before the block count where their subtree reaches into it: those are its ancestors.
        return [piece for piece in range(last) if piece >= first or last_seen[piece] > edges[first]]

    def pairs(first: int, last: int) -> int:
        return (edges[last] - edges[first]) * sum(lengths[piece] for piece in keys_of(first, last))

    # `own` is what the block that is open costs so far, in query-key pairs.
    blocks, first, own = [], 0, pairs(0, 1)
    for last in range(1, len(starts) + 1):
        if last < len(starts):
            joined, single = pairs(first, last + 1), pairs(last, last + 1)
            # Greedy: one wider block is worth its extra pairs as long as they cost less than one more kernel launch.
            if joined <= own + single + call_pairs:
                own = joined
                continue
            own = single
        seen = keys_of(first, last)
        keys = torch.cat([torch.arange(edges[piece], edges[piece + 1]) for piece in seen])
        queries = torch.arange(edges[first], edges[last])[:, None]
        # The tree's rule on these keys alone. Each query sees itself, so no softmax runs over nothing.
        blocks.append(Block(first, last, tuple(seen), (keys <= queries) & (queries < ends[keys])))
        first = last
    return TreeRow(lengths, tuple(blocks))


def _piece_starts(ends: Sequence[int]) -> list[int]:
    """Where the row's chains begin, long ones cut. All nodes of a chain have the same subtree end."""
    starts = [0]
    for node in range(1, len(ends)):
        # A chain ends where the parent's subtree ends, or where the parent has another child (their ends differ).
        goes_on = ends[node - 1] > node and ends[node] == ends[node - 1]
        if not goes_on or node - starts[-1] >= LONGEST_PIECE:
            starts.append(node)
    return starts


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_rows: Sequence[TreeRow] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[B, heads, T, D] queries and [B, key heads, T, D] keys and values -> [B, T, heads, D], as transformers asks.

    softcap: scores are bent to stay below it (Gemma 2), which torch's own attention cannot do.
    """
    if softcap is not None:
        return _capped_attention(query, key, value, attention_mask, softcap, dropout, scaling), None
    if tree_rows is None:
        # No plan came with this call: padded rows, generation and GPUs take transformers' own way.
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    rows = zip(tree_rows, query.split(1), key.split(1), value.split(1), strict=True)
    outputs = [_row_attention(row, q, k, v, dropout, scaling) for row, q, k, v in rows]
    return torch.cat(outputs).transpose(1, 2).contiguous(), None


def _capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, cap: float, dropout: float, scale: float | None
) -> Tensor:
    """The same as one product after the other, under a [B, 1, T, K] bool mask or, without one, causally."""
    # Grouped-query attention: each key head serves `groups` query heads.
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    # The cap acts on the scores before the mask, as in Gemma 2: masking first would bend the mask's infinity.
    scores = torch.tanh(scores / cap) * cap
    if mask is None and query.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        # The lowest finite number and not -inf: a row of -inf alone would become NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    # Softmax in float32, as the eager attention of transformers computes it; bfloat16 would lose small shares.
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    shares = torch.dropout(shares, dropout, train=dropout > 0)
    return (shares @ value).transpose(1, 2).contiguous()


def _row_attention(
    row: TreeRow, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None
) -> Tensor:
    # Split once and joined per block: the backward pass then adds gradients piece by piece, never over the whole row.
    queries, keys, values = (part.split(row.lengths, dim=2) for part in (query, key, value))
    outputs = [
        scaled_dot_product_attention(
            torch.cat(queries[block.first : block.last], dim=2),
            torch.cat([keys[piece] for piece in block.seen], dim=2),
            torch.cat([values[piece] for piece in block.seen], dim=2),
            attn_mask=block.mask,
            dropout_p=dropout,
            scale=scale,
            # torch lets several query heads use one key head by itself: nothing is repeated here.
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for block in row.blocks
    ]
    return torch.cat(outputs, dim=2)


AttentionInterface.register(TREE_ATTENTION, tree_attention)
# Under another name transformers would make no mask at all, and padded batches need sdpa's.
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)


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
        # The causal kernel skips the upper triangle; a kernel with an explicit mask computes the whole square.
        pairs = self.masked_pair * tokens**2 if branching else self.causal_pair * tokens**2 / 2
        return tokens + pairs

    def branch(self, *, fresh: int, shared: int) -> float:
        """What `fresh` tokens below `shared` others add to a row whose branches do not pay for each other."""
        # Each fresh token looks at the shared path and, on average, at half of its own branch.
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
        # A sequence that only continues the open path makes a longer chain, not a branch.
        self.branching |= shared < len(opened)
        # Nodes are numbered in the order in which they are added: the fresh ones follow all that the row holds.
        path = np.arange(self.size - shared, self.size - shared + len(sequence))
        # The shared tokens have their nodes already; the sequence is read through them.
        path[:shared] = opened[:shared]
        self.tokens.append(sequence[shared:])
        self.starts.append(shared)
        self.paths.append(path)
        self.members.append(member)
        self.size += len(sequence) - shared

    def finish(self) -> Row:
        # A branch counts on from where it left the shared path: depths become position ids, places in the row do not.
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
        # Nodes of the path that is open last have nothing behind them: their subtrees end with the row.
        ends = np.full(self.size, self.size)
        begin = len(self.tokens[0])
        # Not strict: each path is closed by the member after it, and the last has none.
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
        # The other choice is a row of its own, which is a plain causal chain.
        apart = costs.row(tokens=length, branching=False)
        if costs.dense:
            # A dense mask is paid for the whole square, so the older tokens of the row become dearer too.
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
            # Sorted order makes the predecessor the one with the longest common prefix; nobody else need be looked at.
            fits = growing.size + len(sequence) - shared <= limit
            branches = int(shared < len(previous))
            if not (fits and joins(growing.size, growing.branching, branches, len(sequence), shared)):
                rows.append(growing.finish())
                # Nothing is shared across rows: the new one begins at the root again.
                growing, shared = _Growing(), 0
        growing.add(index, sequence, shared)
    if growing.members:
        rows.append(growing.finish())
    return rows
