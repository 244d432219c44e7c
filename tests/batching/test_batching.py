"""Prefix-tree packing and padding: what lies where, and that neither changes a loss or a gradient."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollwright.batching import prefix_tree
from rollwright.batching.packing import Layout, PackedBatch, Segment, pack, segment_of
from rollwright.batching.prefix_tree import CostModel, build_rows, join_always, shared_prefix
from rollwright.batching.token_batch import TokenBatch
from rollwright.contracts.record import Span, Turn
from rollwright.models.scoring import TokenScorer
from rollwright.models.tiny_model import tiny_llama
from tests.token_batches import SpelledTurn, batch_of

VOCAB = 32
LAYOUTS: tuple[Layout, ...] = ("tree", "padded", "auto")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_llama(VOCAB, hidden=32).double()


def segment(prompt: list[int], action: list[int], *, sequence: object = 0, **fields: Any) -> SpelledTurn:
    n = len(action)
    given = {"mask": [True] * n, "logprobs_sampled": [0.0] * n, "advantages": [1.0] * n} | fields
    return SpelledTurn(prompt_ids=tuple(prompt), action_ids=tuple(action), sequence=sequence, **given)


def random_turns(seed: int) -> list[SpelledTurn]:
    """Groups of growing or windowed histories over few distinct tokens, so that prefixes branch at every depth."""
    rng = random.Random(seed)

    def ids(low: int, high: int, vocab: int = 3) -> list[int]:
        return [rng.randrange(vocab) for _ in range(rng.randint(low, high))]

    segments = []
    for group in range(rng.randint(1, 3)):
        system = ids(1, 8, VOCAB) if rng.random() < 0.5 else [1, 2]
        for member in range(rng.randint(1, 4)):
            history, windowed = list(system), rng.random() < 0.3
            for _ in range(rng.randint(1, 4)):
                action = ids(1, 5)
                mask = [rng.random() < 0.8 for _ in action]
                advantages = [rng.gauss(0, 1) for _ in action]
                segments.append(segment(history, action, sequence=(group, member), mask=mask, advantages=advantages))
                history = [*system, *ids(1, 6)] if windowed else [*history, *action, *ids(1, 4)]
    rng.shuffle(segments)
    return segments


def naive_logprobs(model: torch.nn.Module, one: Segment) -> torch.Tensor:
    """The definition: run the turn alone, read each token's log-prob from the position before it."""
    ids = torch.tensor([[*one.prompt_ids, *one.action_ids]])
    logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
    before = range(len(one.prompt_ids) - 1, ids.shape[1] - 1)
    scored = zip(before, one.action_ids, one.mask or [True] * len(one.action_ids), strict=True)
    rows = [logprobs[t, token] for t, token, counts in scored if counts]
    return torch.stack(rows) if rows else logprobs.new_zeros(0)


def loss_of(logprobs: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """Not linear in the log-probs, so that a position that serves several turns must add up their gradients."""
    return (torch.where(batch.mask, logprobs.exp() + logprobs, 0.0) * batch.advantages.double()).sum()


def naive(model: torch.nn.Module, segments: list[SpelledTurn]) -> tuple[torch.Tensor, float, list[torch.Tensor]]:
    model.zero_grad()
    logprobs = torch.cat([naive_logprobs(model, one) for one in segments])
    loss = loss_of(logprobs, batch_of(segments))
    loss.backward()
    return logprobs.detach(), float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def packed(
    model: torch.nn.Module, segments: list[SpelledTurn], batches: list[PackedBatch]
) -> tuple[torch.Tensor, float, list[torch.Tensor]]:
    model.zero_grad()
    scorer, flat = TokenScorer(model, chunk=5), batch_of(segments)
    logprobs = torch.full((len(flat),), torch.nan, dtype=torch.float64)
    total = 0.0
    for batch in batches:
        scores, _, _ = scorer(batch)
        loss = loss_of(scores, flat.select(batch.entries))
        loss.backward()
        logprobs[batch.entries] = scores.detach()
        total += float(loss.detach())
    return logprobs, total, [p.grad.clone() for p in model.parameters() if p.grad is not None]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    layout=st.sampled_from(LAYOUTS),
    budget=st.integers(8, 200),
    whole_sequences=st.booleans(),
)
def test_packed_equals_naive_in_logprobs_loss_and_gradient(
    model: torch.nn.Module, seed: int, layout: Layout, budget: int, whole_sequences: bool
) -> None:
    segments = random_turns(seed)
    expected = naive(model, segments)
    batches = pack(segments, token_budget=budget, layout=layout, whole_sequences=whole_sequences)
    actual = packed(model, segments, batches)
    torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=1e-8)
    assert actual[1] == pytest.approx(expected[1], abs=1e-6)
    for mine, theirs in zip(actual[2], expected[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_attention_by_blocks_equals_naive_too(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(prefix_tree, "CALL_WORK", 0.0)  # else trees this small are one block
    monkeypatch.setattr(prefix_tree, "LONGEST_PIECE", 3)
    segments = random_turns(seed)
    batches = pack(segments, token_budget=60, layout="tree")
    actual, expected = packed(model, segments, batches), naive(model, segments)
    torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=1e-8)
    for mine, theirs in zip(actual[2], expected[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), layout=st.sampled_from(LAYOUTS), budget=st.integers(1, 120))
def test_every_action_token_is_scored_once_and_budgets_hold(seed: int, layout: Layout, budget: int) -> None:
    segments = random_turns(seed)
    batches = pack(segments, token_budget=budget, layout=layout)
    entries = torch.cat([batch.entries for batch in batches])
    assert sorted(entries.tolist()) == list(range(sum(s.num_tokens for s in segments)))
    for batch in batches:
        rows, width = batch.input_ids.shape
        alone = [one for one in segments if len(one.forward_ids) == width > budget]
        owners = {len(segments[i].forward_ids) for i in batch.segment_index.tolist()}
        assert rows * width <= budget or (alone and rows == 1 and owners <= {width})


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 60))
def test_a_row_is_a_tree_whose_paths_spell_its_sequences(seed: int, limit: int) -> None:
    sequences = [one.forward_ids for one in random_turns(seed)]
    rows = build_rows(sequences, limit=limit, joins=join_always)
    assert sorted(m for row in rows for m in row.members) == list(range(len(sequences)))
    for row in rows:
        index = np.arange(len(row))
        sees = (index[None, :] <= index[:, None]) & (index[:, None] < row.ends[None, :])
        distinct = {tuple(sequences[m][: k + 1]) for m in row.members for k in range(len(sequences[m]))}
        assert len(row) == len(distinct), "each prefix is stored once"
        for member, path in zip(row.members, row.paths, strict=True):
            assert row.tokens[path].tolist() == sequences[member].tolist()
            assert row.depths[path].tolist() == list(range(len(path)))
            for node, depth in zip(path, range(len(path)), strict=True):
                assert np.flatnonzero(sees[node]).tolist() == path[: depth + 1].tolist()


def test_two_turn_trajectory_token_by_token(model: torch.nn.Module) -> None:
    # system 10 11 | obs 12 | action 20 21 22 (22 was forced) | obs 13 14 | action 23 24
    first = Turn(
        prompt_ids=(10, 11, 12),
        action_ids=(20, 21, 22),
        action_logprobs=(-0.1, -0.2, 0.0),
        text="",
        spans=(Span(start=0, end=2, version=3), Span(start=2, end=3, version=3, producer="forced")),
    )
    second = Turn(
        prompt_ids=(10, 11, 12, 20, 21, 22, 13, 14), action_ids=(23, 24), action_logprobs=(-0.3, -0.4), text=""
    )
    segments = [segment_of(turn, sequence="t", mask=turn.action_mask) for turn in (first, second)]
    (batch,) = pack(segments, token_budget=64, layout="tree")
    sampled, gains = torch.tensor([-0.1, -0.2, -0.3, -0.4]), torch.tensor([0.5, 0.5, -1.5, -1.5])
    whole = TokenBatch.of(
        segments, logprobs_sampled=sampled, advantages=gains, versions=[first.version, second.version]
    )
    record = whole.select(batch.entries)

    assert batch.input_ids.tolist() == [[10, 11, 12, 20, 21, 22, 13, 14, 23]]  # one chain, the last token not needed
    assert batch.attention_mask() is None
    assert batch.positions.tolist() == [[0, 2], [0, 3], [0, 7], [0, 8]]  # one before each chosen token
    assert batch.targets.tolist() == [20, 21, 23, 24]  # the forced one is context
    assert batch.segment_index.tolist() == [0, 0, 1, 1]
    assert record.mask.tolist() == [True] * 4
    torch.testing.assert_close(record.logprobs_sampled, sampled)
    assert record.advantages.tolist() == [0.5, 0.5, -1.5, -1.5]
    assert record.sequence_index.tolist() == [0] * 4 and record.num_sequences == 1
    assert record.versions.tolist() == [3, 3, -1, -1]
    scores, _, _ = TokenScorer(model)(batch)
    torch.testing.assert_close(scores, torch.cat([naive_logprobs(model, one) for one in segments]))


def test_identical_turns_share_all_their_positions() -> None:
    twins = [segment([5, 6], [7, 8], sequence=k) for k in range(8)]
    (batch,) = pack(twins, token_budget=100, layout="tree")
    assert batch.input_ids.tolist() == [[5, 6, 7]]
    assert batch.gather.tolist() == [1, 2]
    assert batch.slots.tolist() == [0, 1] * 8
    (row_each,) = pack(twins, token_budget=100, layout="padded")
    assert row_each.input_ids.shape == (8, 3)


def test_siblings_do_not_see_each_other() -> None:
    (batch,) = pack([segment([5, 6], [7, 8]), segment([5, 6], [9, 8])], token_budget=100, layout="tree")
    assert batch.input_ids.tolist() == [[5, 6, 7, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2]]
    mask = batch.attention_mask()
    assert mask is not None
    assert mask[0, 0].long().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_auto_shares_long_prefixes_and_leaves_short_ones_apart() -> None:
    costs = CostModel(causal_pair=1e-3, masked_pair=1e-3, dense=True)
    together = [segment([*range(20), *range(10)], [k, k]) for k in range(4)]
    assert [b.branching for b in pack(together, token_budget=500, layout="auto", costs=costs)] == [True]
    # One shared token saves 1; joining 60 + 60 costs 1e-3 * (119^2 - 60^2) = 10.6 in attention.
    apart = [segment([1, *([k] * 60)], [k, k]) for k in range(4)]
    assert [b.branching for b in pack(apart, token_budget=500, layout="auto", costs=costs)] == [False]


def test_where_branches_do_not_pay_for_each_other_a_prefix_pays_once_it_is_longer_than_a_blocks_cost() -> None:
    costs = CostModel(causal_pair=1e-3, masked_pair=1e-3, block=4.0)
    # Fresh 60 below 1: 60 + 1e-3 * 60 * 31 + 4 = 65.86 against 61 + 1e-3 * 61^2 / 2 = 62.86 apart.
    few = [segment([1, *([k] * 60)], [k, k]) for k in range(4)]
    assert [b.branching for b in pack(few, token_budget=500, layout="auto", costs=costs)] == [False]
    # Fresh 60 below 6: 60 + 1e-3 * 60 * 36 + 4 = 66.16 against 66 + 1e-3 * 66^2 / 2 = 68.18 apart.
    more = [segment([*range(6), *([k] * 60)], [k, k]) for k in range(4)]
    assert [b.branching for b in pack(more, token_budget=500, layout="auto", costs=costs)] == [True]


def test_the_turns_of_a_sequence_stay_together_when_asked() -> None:
    segments = random_turns(7) + random_turns(8)
    for batch_set in (pack(segments, token_budget=16, whole_sequences=True),):
        seen: dict[object, int] = {}
        for number, batch in enumerate(batch_set):
            for index in batch.segment_index.tolist():
                assert seen.setdefault(segments[index].sequence, number) == number


def test_shared_prefix() -> None:
    a, b = np.array([1, 2, 3]), np.array([1, 2, 4, 5])
    assert (shared_prefix(a, b), shared_prefix(a, a[:2]), shared_prefix(a, b[::-1])) == (2, 2, 0)


def test_segments_that_cannot_be_trained_on_are_refused() -> None:
    with pytest.raises(ValueError, match="both must be non-empty"):
        segment([], [1])
    with pytest.raises(ValueError, match="mask has 1 entries for 2 action ids"):
        segment([1], [1, 2], mask=[True])
    with pytest.raises(ValueError, match="`advantages` needs one number per action token"):
        TokenBatch.of([segment([1], [1, 2])], advantages=torch.zeros(1))
    with pytest.raises(ValueError, match="token_budget is 0"):
        pack([segment([1], [2])], token_budget=0)
    with pytest.raises(ValueError, match="unknown layout"):
        pack([segment([1], [2])], token_budget=8, layout="tall")  # type: ignore[arg-type]
