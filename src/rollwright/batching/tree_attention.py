"""Attention over prefix trees that skips what no query sees.

Under a dense mask a row of T tokens costs T^2 query-key pairs, although the branches of a tree do not look at each
other. Here a row is cut into blocks of neighbouring queries, and a block meets only the keys that some query of it
sees: its ancestors and itself. Same numbers as the dense mask, fewer pairs.

The function is registered with transformers as "sdpa_tree". Without `tree_rows` among the model's keyword arguments it
is transformers' own "sdpa": generation, padded batches and other users of the model notice nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
    call_pairs = CALL_WORK / width
    rows = tuple(_plan(row, call_pairs) for row in subtree_ends.unbind(0))
    blocks = [block for row in rows for block in row.blocks]
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
        return [piece for piece in range(last) if piece >= first or last_seen[piece] > edges[first]]

    def pairs(first: int, last: int) -> int:
        return (edges[last] - edges[first]) * sum(lengths[piece] for piece in keys_of(first, last))

    blocks, first, own = [], 0, pairs(0, 1)
    for last in range(1, len(starts) + 1):
        if last < len(starts):
            joined, single = pairs(first, last + 1), pairs(last, last + 1)
            if joined <= own + single + call_pairs:
                own = joined
                continue
            own = single
        seen = keys_of(first, last)
        keys = torch.cat([torch.arange(edges[piece], edges[piece + 1]) for piece in seen])
        queries = torch.arange(edges[first], edges[last])[:, None]
        blocks.append(Block(first, last, tuple(seen), (keys <= queries) & (queries < ends[keys])))
        first = last
    return TreeRow(lengths, tuple(blocks))


def _piece_starts(ends: Sequence[int]) -> list[int]:
    """Where the row's chains begin, long ones cut. All nodes of a chain have the same subtree end."""
    starts = [0]
    for node in range(1, len(ends)):
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
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = torch.tanh(scores / cap) * cap
    if mask is None and query.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
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
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for block in row.blocks
    ]
    return torch.cat(outputs, dim=2)


AttentionInterface.register(TREE_ATTENTION, tree_attention)
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
