"""From turns to packed tensors: prefix trees where prefixes are shared, length-bucketed padding where they are not.

One alignment rule, relied on everywhere: what is said of `action_ids[i]` is said given `prompt_ids + action_ids[:i]`,
so its log-prob and its value are read at the position *before* the token.

All per-token numbers live in flat tensors, one entry per scored action token, in the callers' order of segments: the
*flat order* (see `token_batch`). A `PackedBatch` says where in its rows each entry is predicted (`gather`, `slots`) and
which entry of the flat order it is (`entries`). One position may serve many entries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rollwright.batching.prefix_tree import (
    CostModel,
    Ids,
    Joins,
    Row,
    build_rows,
    join_always,
    join_never,
    join_when_cheaper,
    sort_order,
)

Layout = Literal["tree", "padded", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The ids of one turn, as a model reads them.

    sequence: id of what the turn aggregates under in a per-sequence loss: its trajectory, or the turn itself.
    mask: [len(action_ids)] which action ids are scored; None = all of them. The others are context.
    """

    prompt_ids: Sequence[int]
    action_ids: Sequence[int]
    sequence: Hashable
    mask: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.action_ids:
            raise ValueError(
                f"a segment of sequence {self.sequence!r} has {len(self.prompt_ids)} prompt and {len(self.action_ids)} "
                "action ids; both must be non-empty: the first action token is predicted from the prompt's last"
            )
        if self.mask is not None and len(self.mask) != len(self.action_ids):
            raise ValueError(
                f"segment of sequence {self.sequence!r}: mask has {len(self.mask)} entries for "
                f"{len(self.action_ids)} action ids; expected one per id"
            )

    @property
    def num_tokens(self) -> int:
        """How many of its action ids are scored."""
        return len(self.action_ids) if self.mask is None else sum(self.mask)

    @property
    def forward_ids(self) -> Ids:
        """What must pass through the model: the last action token predicts nothing that is trained on."""
        # The log-prob of the last action token is read at the position before it, so the token itself need not be
        # forwarded.
        return np.asarray([*self.prompt_ids, *self.action_ids[:-1]], dtype=np.int64)


class Acted(Protocol):
    """A record of a turn, from the run or from a store."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What was read before the action."""

    @property
    def action_ids(self) -> tuple[int, ...]:
        """What was then written."""


def segment_of(turn: Acted, *, sequence: Hashable, mask: Sequence[bool] | None = None) -> Segment:
    """The segment of a recorded turn: the exact ids that were sampled, never a second tokenization of its text."""
    return Segment(prompt_ids=turn.prompt_ids, action_ids=turn.action_ids, sequence=sequence, mask=mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """One micro-batch: B rows of T positions, and N action tokens to be scored on them.

    input_ids, position_ids: [B, T] int64; a position is a token's depth in its tree.
    subtree_ends: [B, T] int64; position i sees position j iff j <= i < subtree_ends[j].
    branching: whether `subtree_ends` says more than plain causal attention does.
    gather: [U] int64, the positions that are needed, as indices into the flattened [B * T], each once.
    slots: [N] int64 into `gather`: the position that predicts each action token.
    targets: [N] int64, the action tokens. segment_index: [N] int64 into the callers' segments.
    entries: [N] int64, ascending: the place of each action token in the flat order.
    """

    input_ids: Tensor
    position_ids: Tensor
    subtree_ends: Tensor
    branching: bool
    gather: Tensor
    slots: Tensor
    targets: Tensor
    segment_index: Tensor
    entries: Tensor
    num_real_tokens: int

    @property
    def positions(self) -> Tensor:
        """[N, 2] row and column of the hidden state that predicts each action token."""
        # `gather` holds each needed position once; siblings that share a prompt share the position that predicts their
        # first token.
        flat = self.gather[self.slots]
        width = self.input_ids.shape[1]
        return torch.stack([flat // width, flat % width], dim=1)

    def attention_mask(self) -> Tensor | None:
        """[B, 1, T, T] bool, true where a query (third axis) may look at a key; None for plain causal attention.

        Right padding needs no mask: causal attention never looks ahead, and nothing is read at a padded position.
        """
        if not self.branching:
            return None
        index = torch.arange(self.input_ids.shape[1], device=self.subtree_ends.device)
        before = index[None, :] <= index[:, None]
        # Rows are in depth-first order, so "j is an ancestor of i" is this one comparison; no tree is walked.
        return (before & (index[:, None] < self.subtree_ends[:, None, :])).unsqueeze(1)

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same micro-batch on another device."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return PackedBatch(**moved, branching=self.branching, num_real_tokens=self.num_real_tokens)


_TENSORS = ("input_ids", "position_ids", "subtree_ends", "gather", "slots", "targets", "segment_index", "entries")


def pack(
    segments: Sequence[Segment],
    *,
    token_budget: int,
    layout: Layout = "auto",
    costs: CostModel | None = None,
    whole_sequences: bool = False,
    pad_id: int = 0,
) -> list[PackedBatch]:
    """Cut a batch of turns into micro-batches.

    Args:
        segments: the turns, in any order; those of a common prefix find each other.
        token_budget: most positions (padding included) of a micro-batch. One turn that is longer gets a micro-batch of
            its own: cutting it would change what it conditions on.
        layout: "tree" forwards each unique token once; "padded" gives each turn a row; "auto" shares a prefix where
            the cost model says that it pays.
        costs: for "auto"; the default was measured for SmolLM2-135M on CPU.
        whole_sequences: keep the segments of one `sequence` in one micro-batch (losses with a ratio per sequence).
        pad_id: any valid token id; padded positions are never read.

    Raises:
        ValueError: the budget is below 1 or the layout unknown.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget is {token_budget}; a micro-batch needs room for at least one token")
    joins = _join_rule(layout, costs or CostModel())
    # From here on a turn is an array of ids; masks and owners come back in `_terms`.
    sequences = [segment.forward_ids for segment in segments]
    starts = np.cumsum([0, *(segment.num_tokens for segment in segments)])

    def rows_of(members: Sequence[int]) -> list[Row]:
        rows = build_rows([sequences[m] for m in members], limit=token_budget, joins=joins)
        # `build_rows` counted within `members`; give the turns their numbers in the caller's list again.
        return [_rename(row, members) for row in rows]

    if whole_sequences:
        batches = _whole_sequence_batches(segments, sequences, token_budget, rows_of)
    else:
        batches = _bucket(rows_of(range(len(segments))), token_budget)
    return [_to_tensors(rows, segments, starts, pad_id) for rows in batches]


def _join_rule(layout: Layout, costs: CostModel) -> Joins:
    rules: dict[str, Joins] = {"tree": join_always, "padded": join_never, "auto": join_when_cheaper(costs)}
    if layout not in rules:
        raise ValueError(f"unknown layout {layout!r}; expected one of {', '.join(rules)}")
    return rules[layout]


def _rename(row: Row, members: Sequence[int]) -> Row:
    """The same row with members named by their place in the callers' list."""
    return Row(
        tokens=row.tokens,
        depths=row.depths,
        ends=row.ends,
        members=tuple(members[m] for m in row.members),
        paths=row.paths,
        branching=row.branching,
    )


def _bucket(rows: Sequence[Row], token_budget: int) -> list[list[Row]]:
    """Rows of similar length together, longest first; those that need a mask apart from those that do not."""
    batches: list[list[Row]] = []
    # One branching row would force a dense mask on the plain rows beside it: branching rows come first, by themselves.
    for row in sorted(rows, key=lambda row: (row.branching, len(row)), reverse=True):
        current = batches[-1] if batches else []
        same_kind = bool(current) and current[0].branching == row.branching
        # The first row of a batch is its longest, and all others are padded to it.
        if same_kind and (len(current) + 1) * len(current[0]) <= token_budget:
            current.append(row)
        else:
            batches.append([row])
    return batches


def _whole_sequence_batches(
    segments: Sequence[Segment],
    sequences: Sequence[Ids],
    token_budget: int,
    rows_of: Callable[[Sequence[int]], list[Row]],
) -> list[list[Row]]:
    """Micro-batches that never separate the turns of one sequence, even where that exceeds the budget."""
    units: dict[Hashable, list[int]] = {}
    # Sequences come in the order of their first turn in sorted order: those of one prompt stand side by side.
    for index in sort_order(sequences):
        units.setdefault(segments[index].sequence, []).append(index)
    batches: list[list[Row]] = []
    members: list[int] = []
    # A sequence is taken with the ones before it as long as all fit: the rows are built anew, since more turns may
    # share more prefixes.
    for unit in units.values():
        rows = rows_of([*members, *unit])
        # The budget counts padding too: every row is as wide as the longest.
        if members and len(rows) * max(map(len, rows)) <= token_budget:
            members = [*members, *unit]
            batches[-1] = rows
        else:
            members = unit
            batches.append(rows_of(unit))
    return batches


def _to_tensors(rows: Sequence[Row], segments: Sequence[Segment], starts: Ids, pad_id: int) -> PackedBatch:
    width = max(map(len, rows))
    shape = (len(rows), width)
    # Padding continues the count of positions: a jump would read as the start of another packed sequence. It ends at
    # the deepest token's, since a row of branches may be longer than the model has positions.
    deepest = max(int(row.depths.max()) for row in rows)
    ids, depths = np.full(shape, pad_id), np.tile(np.minimum(np.arange(width), deepest), (len(rows), 1))
    ends = np.full(shape, width)  # padding is a chain of its own at the end of a row
    for index, row in enumerate(rows):
        ids[index, : len(row)], depths[index, : len(row)], ends[index, : len(row)] = row.tokens, row.depths, row.ends
    where, targets, owner, entries = _terms(rows, segments, starts, width)
    # Reading each position once keeps the vocabulary head, the dearest layer of a small model, from scoring it for
    # every sibling.
    gather, slots = np.unique(where, return_inverse=True)
    return PackedBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(depths),
        subtree_ends=torch.from_numpy(ends),
        # Rows of both kinds meet only where whole sequences are kept together; `_bucket` separates them.
        branching=any(row.branching for row in rows),
        gather=torch.from_numpy(gather),
        slots=torch.from_numpy(slots),
        targets=torch.from_numpy(targets),
        segment_index=torch.from_numpy(owner),
        entries=torch.from_numpy(entries),
        num_real_tokens=sum(map(len, rows)),
    )


def _terms(rows: Sequence[Row], segments: Sequence[Segment], starts: Ids, width: int) -> tuple[Ids, Ids, Ids, Ids]:
    """Flat position, target, segment and flat-order entry of every action token, sorted by the last."""
    where, targets, owner, entries = [], [], [], []
    for index, row in enumerate(rows):
        for member, path in zip(row.members, row.paths, strict=True):
            action, mask = np.asarray(segments[member].action_ids, dtype=np.int64), segments[member].mask
            # The path ends at the second-last action token, so its last len(action) nodes are those that predict the
            # action.
            before = index * width + path[-len(action) :]
            if mask is not None:
                before, action = before[np.asarray(mask)], action[np.asarray(mask)]
            where.append(before)
            targets.append(action)
            owner.append(np.full(len(action), member))
            entries.append(starts[member] + np.arange(len(action)))
    # The learner writes scores back by slices of the flat order, so the entries must ascend.
    order = np.argsort(np.concatenate(entries), kind="stable")
    columns = [np.concatenate(column)[order] for column in (where, targets, owner, entries)]
    return columns[0], columns[1], columns[2], columns[3]
